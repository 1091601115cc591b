#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use super::*;

fn task(text: &str) -> Task {
    Task::parse(text).unwrap_or_else(|refused| panic!("{text}: {refused}"))
}

fn http_load(text: &str) -> HttpLoad {
    let Command::HttpLoad(load) = task(text).command else { panic!("{text}") };
    *load
}

fn curl(text: &str) -> Curl {
    let Command::Curl(curl) = task(text).command else { panic!("{text}") };
    *curl
}

/// The `cmd:` values of Flagger's end-to-end tests, guides and documentation, and of what users have published.
const SENT: &[&str] = &[
    "hey -z 10m -q 10 -c 2 -H 'Cookie: type=insider' http://podinfo-canary.test/",
    "hey -z 1m -q 10 -c 2 http://podinfo-canary.test:9898/",
    "hey -z 1m -q 5 -c 2 http://podinfo.test",
    "hey -z 2m -q 10 -c 2 http://podinfo-canary.bg-test:9898",
    "hey -z 1m -q 10 -c 2 -m POST -d '{test: 2}' http://podinfo-canary.test:9898/echo",
    "hey -z 1m -q 10 -c 2 -h2 https://podinfo.example.com/",
    "hey -z 1m -q 10 -c 2 -h2 -host app.example.com http://apisix-gateway.apisix/api/info",
    "hey -z 2m -q 10 -c 2 -host www.example.com http://gateway-istio.istio-ingress/status/500",
    "hey -z 2m -q 10 -c 2 -host www.example.com -H 'X-Canary: insider' http://gateway-istio.istio-ingress",
    "hey -z 1m -q 10 -c 2 -H 'Host: podinfo.test' http://envoy.test:10000/",
    "hey -z 10m -q 10 -c 2 -host podinfo.example.com  http://podinfo-canary.test.svc:9898",
    "hey -z 30s http://order-service-canary:8080",
    "hey -z 30s -q 10 http://my-api-canary.production/",
    "hey -n 1000 -c 50 https://example.com/",
    "hey -n 100 -c 10 -m POST -H 'Content-Type: application/json' -H \"Authorization: Bearer x\" -d '{\"id\": 1}' http://a.b/",
    "hey -z 1m -q 10 -c 2 -disable-keepalive -t 5 http://podinfo-canary.test/",
    "/usr/local/bin/hey -z 1m http://a/",
    "wrk -d 1m -t 1 -c 1 http://podinfo-canary.test:9898/",
    "wrk -t12 -c400 -d30s https://example.com/",
    "wrk -t12 -c400 -d30s --timeout 5s --latency -H \"User-Agent: x\" http://a/",
    "ghz -z 1m -q 10 -c 2 --insecure podinfo.test:9898",
    "ghz --insecure --proto=/tmp/ghz/health.proto --call=grpc.health.v1.Health/Check podinfo.test:9898",
    "ghz -z 1m -q 10 -c 2 --insecure --proto /tmp/ghz/health.proto --call grpc.health.v1.Health/Check podinfo.test:9898",
    "grpc_health_probe -connect-timeout=1s -addr=podinfo-canary:9999",
    "grpc_health_probe -addr 127.0.0.1:3000",
    "grpc_health_probe -addr=localhost:9999 -connect-timeout 250ms -rpc-timeout 100ms",
    "curl -s http://podinfo.test/",
    "curl -sf http://podinfo-canary.test:9898/",
    "curl -sd 'test' http://podinfo-canary.test/token | grep token",
    "curl -sd 'anon' http://podinfo-canary.bg-test:9898/token | grep token",
    "curl -sd 'test' -H 'Host: app.example.com' http://envoy.projectcontour/token | grep token",
    "curl -sH 'x-user: insider' -H 'Host: app.example.com' http://ingress-nginx-controller.ingress-nginx",
    "curl http://vote-canary.instavote/ | grep choice",
    "curl -sf http://my-app-canary.default:80/healthz",
    "curl -fsS http://podinfo-canary.demo.svc.cluster.local:9898/readyz >/dev/null",
    "curl -X POST http://slack.com/webhook -d '{\"text\":\"Canary rollout completed\"}'",
    "curl -s -o /dev/null -w '%{http_code}' http://a.b:8000/orders | grep 200",
    "curl -s -o /dev/null -w \"%{http_code}\\n\" -X POST localhost:8000/orders/1 -d '{\"status\":\"x\"}' | grep -q '^2'",
    "curl --fail --silent --show-error --max-time 5 --retry 3 --retry-delay 1 --retry-connrefused http://a/health",
    "curl -X GET --retry-all-errors --retry 5 --retry-connrefused --retry-delay 1 http://localhost:8080/ready --silent",
];

#[test]
fn what_guides_and_users_send_is_understood() {
    for text in SENT {
        task(text);
    }
}

#[test]
fn what_the_fixtures_send_is_understood() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/flagger/");
    let mut commands = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let mut lines = text.lines();
            while let Some(line) = lines.next() {
                let Some((key, value)) = line.split_once("cmd:") else { continue };
                if !key.trim_start_matches(['-', ' ', '#']).is_empty() {
                    continue;
                }
                let value = value.trim();
                let value = if value == "|-" || value == "|" { lines.next().unwrap().trim() } else { value };
                commands.push(value.trim_matches('"').to_owned());
            }
        }
    }
    assert!(commands.len() > 50, "{}", commands.len());
    for command in commands {
        task(&command);
    }
}

#[test]
fn hey_has_its_own_defaults_and_rates() {
    let load = http_load("hey http://podinfo.test:9898/a?b=c");
    assert_eq!((load.workers, load.rate_per_worker, load.amount), (50, None, Amount::Requests(200)));
    assert_eq!((load.timeout, load.keeps_alive, load.follows_redirects), (Some(Duration::from_secs(20)), true, true));
    let load = http_load(
        "hey -z 90s -n 7 -q 2.5 -c 4 -m post -d body -H 'A: 1' -H 'A: 2' -H 'Host: h1' -T text/plain -U me \
         -a user:secret -t 0 -h2 -disable-keepalive -disable-redirects -disable-compression -cpus 2 -o csv http://x/",
    );
    assert_eq!((load.amount, load.requests_per_second()), (Amount::Time(Duration::from_secs(90)), Some(10.0)));
    assert_eq!((load.request.method.as_str(), load.request.body.as_slice()), ("POST", b"body".as_slice()));
    assert_eq!(load.request.headers.get_all("a").iter().count(), 2);
    assert_eq!(load.request.host.as_ref().unwrap(), "h1");
    assert_eq!(load.request.headers["content-type"], "text/plain");
    assert_eq!((load.request.headers.get("accept-encoding"), load.timeout), (None, None));
    assert_eq!((load.is_http2, load.keeps_alive, load.follows_redirects), (true, false, false));
    assert_eq!(load.request.credentials, Some(("user".to_owned(), "secret".to_owned())));
}

#[test]
fn wrk_keeps_its_connections_busy() {
    let load = http_load("wrk http://x/");
    assert_eq!((load.workers, load.rate_per_worker), (10, None));
    assert_eq!((load.amount, load.timeout), (Amount::Time(Duration::from_secs(10)), Some(Duration::from_secs(2))));
    let load = http_load("wrk -t2 -c20 -d2m --header 'A: b' --timeout=7 http://x/");
    assert_eq!((load.workers, load.amount), (20, Amount::Time(Duration::from_secs(120))));
    assert_eq!((load.timeout, load.request.headers["a"].to_str().unwrap()), (Some(Duration::from_secs(7)), "b"));
}

#[test]
fn curl_builds_its_request_as_curl_does() {
    let post = curl("curl -sd a=1 --data-urlencode 'b=x y' x.test:80/path");
    assert_eq!((post.request.method.as_str(), post.request.body.as_slice()), ("POST", b"a=1&b=x%20y".as_slice()));
    assert_eq!(post.request.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(post.request.url, "http://x.test:80/path");
    let get = curl("curl -G -d a=1 -d b=2 'http://x/?c=3'");
    assert_eq!((get.request.method.as_str(), get.request.url.to_string()), ("GET", "http://x/?c=3&a=1&b=2".to_owned()));
    let put = curl("curl -X PUT --json '{}' http://x/");
    assert_eq!(
        (put.request.method.as_str(), put.request.headers["accept"].as_bytes()),
        ("PUT", b"application/json".as_slice())
    );
    assert_eq!(curl("curl -I http://x/").request.method, "HEAD");
    assert_eq!(curl("curl -sfLk -m 2.5 http://x/").max_time, Some(Duration::from_millis(2500)));
    assert_eq!((curl("curl -L http://x/").redirects, curl("curl http://x/").redirects), (50, 0));
    let told = curl("curl -o /dev/null -w 'code=%{http_code}\\n' http://x/");
    let text = |text: &str| WritePart::Text(text.to_owned());
    assert_eq!((told.drops_body, told.write_out), (true, vec![text("code="), WritePart::Status, text("\n")]));
}

#[test]
fn grpc_calls_have_their_programs_defaults() {
    let Command::GrpcLoad(load) = task("ghz -z 1m -q 10 -c 2 --insecure podinfo.test:9898").command else { panic!() };
    assert_eq!((load.workers, load.calls_per_second, load.target.is_tls), (2, Some(10.0), false));
    assert_eq!(load.amount, Amount::Time(Duration::from_secs(60)));
    let text = "ghz -n 5 --skipTLS -d '{\"service\": \"web\"}' -m '{\"a\": \"b\"}' -t 3s --authority x.y z:443";
    let Command::GrpcLoad(load) = task(text).command else { panic!() };
    assert_eq!((load.target.service.as_str(), load.target.is_tls, load.target.skips_verification), ("web", true, true));
    assert_eq!((load.amount, load.target.timeout), (Amount::Requests(5), Duration::from_secs(3)));
    let text = "grpc_health_probe -addr=a:1 -service=web -tls -tls-no-verify -tls-server-name=x -rpc-header='a: b'";
    let Command::HealthProbe(HealthProbe { target }) = task(text).command else { panic!() };
    assert_eq!((target.service.as_str(), target.is_tls, target.skips_verification), ("web", true, true));
    assert_eq!((target.connect_timeout, target.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    assert_eq!(target.metadata["a"], "b");
}

#[test]
fn everything_else_is_refused_with_what_is_wrong() {
    let cases = [
        ("", "the command is empty"),
        ("helm test podinfo", "\"helm\" is none of the programs"),
        ("bats /tests/acceptance.bats", "\"bats\" is none of the programs"),
        ("curl -s http://a/ | jq .", "\"jq\" is none of the programs"),
        ("hey -z 1m http://a/ && curl http://b/", "&& needs a shell"),
        ("curl http://a/?b=1&c=2", "quote it"),
        ("hey", "hey: there is no URL"),
        ("hey -z 1m -q 10 -c 2", "hey: there is no URL"),
        ("hey http://a/ http://b/", "more than one address"),
        ("hey -c x http://a/", "hey: -c x: expected a number from 1 to 1000"),
        ("hey -c 5000 http://a/", "hey: -c 5000: expected a number from 1 to 1000"),
        ("hey -q 1000 -c 1000 http://a/", "1000000 requests per second: expected at most 20000"),
        ("hey -z 1x http://a/", "hey: -z 1x: expected a duration"),
        ("hey -c", "hey: the flag c needs a value"),
        ("hey -D body.json http://a/", "-D is not understood: it reads a file"),
        ("hey --fast http://a/", "hey: the flag --fast is not understood"),
        ("hey ftp://a/", "expected http://"),
        ("hey -H secret http://a/", "hey: -H (not shown): expected"),
        ("wrk -s post.lua http://a/", "Lua scripts are not run"),
        (
            "ghz --insecure --proto /tmp/app.proto --call app.Service/Get -d '{}' -c 5 -n 1000 a.apps:8080",
            "--proto /tmp/app.proto",
        ),
        ("ghz --insecure --call app.Service.Get a:1", "--call app.Service.Get: expected grpc.health.v1.Health/Check"),
        ("ghz --insecure podinfo", "expected HOST:PORT"),
        ("grpc_health_probe", "there is no -addr"),
        ("curl -d @/etc/passwd http://a/", "it reads or writes a file"),
        ("curl -o /tmp/x http://a/", "it reads or writes a file"),
        ("curl file:///etc/passwd", "expected http://"),
        ("curl -x http://proxy http://a/", "proxies are not served"),
        ("curl -w '%{json}' http://a/", "expected http_code"),
        ("curl --upload-file x http://a/", "it reads or writes a file"),
        ("curl http://user:secret@/", "(not shown)"),
        ("curl http://a/ | grep", "there is no pattern"),
        ("curl http://a/ | grep -P x", "grep: the flag -P is not understood"),
        ("curl http://a/ | grep x /etc/passwd", "no files"),
        ("curl http://a/ | grep -E '('", "expected a regular expression"),
    ];
    for (text, expected) in cases {
        let refused = Task::parse(text).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(expected), "{text}: {refused}");
        assert!(!refused.contains("secret"), "{text}: {refused}");
    }
}

#[test]
fn refusals_tell_no_secrets() {
    let cases = [
        // What stands free because its quotes were forgotten, or is joined to a flag that takes no joined value.
        (
            "grpc_health_probe -addr=a:1 -rpc-header=authorization: SECRET",
            "the argument (not shown): expected flags alone",
        ),
        ("hey -HCookie:SECRET http://a/", "the flag -H… is not understood: its value comes behind a space or an ="),
        ("hey -asecretword http://a/", "the flag -a… is not understood: its value"),
        ("hey -Xauth:SECRET http://a/", "the flag (not shown) is not understood"),
        ("wrk --headerCookie:SECRET http://a/", "the flag (not shown) is not understood"),
        ("curl --SECRET http://a/", "the flag (not shown) is not understood"),
        ("curl --silent=SECRET http://a/", "the flag --silent is not understood: it takes no value"),
        ("hey -h2=token:SECRET http://a/", "h2 (not shown): expected true or false"),
        ("curl http://a/ | grep x 'SECRET file'", "the file (not shown)"),
        ("curl http://a/ | grep -E '(SECRET'", "the pattern (not shown)"),
        ("curl http://a/ | A=SECRET grep x", "a variable needs a shell"),
        ("TOKEN=SECRET curl http://a/", "a variable needs a shell"),
        ("'curl -u me:SECRET http://a/'", "\"(not shown)\" is none of the programs"),
        // Addresses.
        ("curl 'http://x/?token=SECRET a'", "the URL http://x/…: expected"),
        ("curl 'ftp://x/#SECRET'", "the URL ftp://x/…: expected"),
        ("curl 'http://x/ SECRET'", "the URL http://x/…: expected"),
        ("curl 'http://me:SECRET@'", "the URL (not shown): expected"),
        ("hey 'Cookie: SECRET'", "the URL (not shown): expected"),
        ("ghz --insecure 'authorization: SECRET'", "the address (not shown): expected HOST:PORT"),
        ("grpc_health_probe -addr=me:SECRET@a", "the address (not shown): expected HOST:PORT"),
        // A value behind the wrong flag.
        ("hey -c 'Cookie: SECRET' http://a/", "-c (not shown): expected a number"),
        ("hey -z token=SECRET http://a/", "-z (not shown): expected a duration"),
        ("hey -m 'Cookie: SECRET' http://a/", "-m (not shown): expected a method"),
        ("curl -m me:SECRET http://a/", "-m (not shown): expected seconds"),
        ("curl -w '%{header{SECRET}}' http://a/", "-w (not shown): expected http_code"),
        ("ghz --authority 'Bearer SECRET' a:1", "--authority (not shown): expected a host's name"),
        ("ghz --call '{\"token\": \"SECRET\"}' a:1", "--call (not shown): expected"),
    ];
    for (text, expected) in cases {
        let refused = Task::parse(text).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(expected), "{text}: {refused}");
        assert!(!refused.to_lowercase().contains("secret"), "{text}: {refused}");
    }
}

#[test]
fn switches_have_the_values_that_go_has() {
    assert!(!http_load("hey -disable-keepalive=false -h2=0 http://a/").is_http2);
    let load = http_load("hey -disable-keepalive=true -h2=1 http://a/");
    assert!(load.is_http2 && !load.keeps_alive);
    let Command::HealthProbe(probe) = task("grpc_health_probe -addr=a:1 -tls=0 -tls-no-verify=T").command else {
        panic!()
    };
    assert!(!probe.target.is_tls && probe.target.skips_verification);
}

#[test]
fn curl_is_told_how_long_it_may_try_again() {
    assert_eq!(curl("curl --retry 9 --retry-max-time 10 http://a/").retry_max_time, Some(Duration::from_secs(10)));
    assert_eq!(curl("curl --retry 9 --retry-max-time 0 http://a/").retry_max_time, None);
    assert_eq!(curl("curl --connect-timeout 0 http://a/").connect_timeout, None, "curl's default, which is long");
}

#[test]
fn curl_makes_one_request_of_what_could_be_many() {
    for text in ["curl 'http://a/{b,c}'", "curl 'http://a/?page=[1-9]'"] {
        let refused = Task::parse(text).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("with -g"), "{text}: {refused}");
    }
    assert_eq!(curl("curl -g 'http://a/?page=[1-9]'").request.url.query(), Some("page=[1-9]"));
    assert_eq!(curl("curl 'http://[::1]:80/'").request.url.port_u16(), Some(80));
}

#[test]
fn curl_leaves_a_header_without_a_value_out() {
    assert!(curl("curl -H 'Expect:' -H 'Content-Type:' -d a http://a/").request.headers.is_empty());
}

#[test]
fn a_name_is_not_an_address_in_disguise() {
    for name in ["podinfo.test", "a", "1.a", "127.0.0.1.nip.io", "svc_a.b-c", "x.0y", "a.test."] {
        assert!(is_host_name(name), "{name}");
    }
    for address in [
        "127.0.0.1",
        "[::1]",
        "::1",
        "2130706433",
        "0x7f.1",
        "a.0X7f",
        "127.1",
        "0x",
        "1.",
        "%31.a",
        "a b",
        "",
        ".",
        "a..1",
    ] {
        assert!(!is_host_name(address), "{address}");
        let text = format!("ghz --insecure --authority '{address}' podinfo.test:9999");
        assert!(Task::parse(&text).is_err(), "{text}");
        let text = format!("grpc_health_probe -addr=a:1 -tls-server-name='{address}'");
        assert!(Task::parse(&text).is_err(), "{text}");
    }
}

#[test]
fn summaries_tell_no_secrets() {
    let text = "hey -z 1m -q 10 -c 2 -H 'Authorization: secret' -d secret http://me:secret@a.b:80/path?token=secret";
    assert_eq!(task(text).summary(), "hey GET http://a.b:80/path, 60s, 20 requests per second");
    let text = "curl -u me:secret -H 'Authorization: secret' https://a.b/path?token=secret | grep secret";
    assert_eq!(task(text).summary(), "curl GET https://a.b:443/path");
}
