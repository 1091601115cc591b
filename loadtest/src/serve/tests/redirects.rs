//! Where requests go when a server sends them elsewhere, and what they take along.

use super::*;

/// The headers of which these tests speak: `Host`, then what a stranger may not learn.
fn told(seen: &Seen) -> (String, bool) {
    let host = seen.headers["host"].to_str().unwrap().to_owned();
    (host, seen.headers.contains_key("authorization") || seen.headers.contains_key("cookie"))
}

#[tokio::test]
async fn another_host_is_not_told_the_name_of_the_first_one() {
    let ((first, address), (other, elsewhere)) = (Server::start().await, Server::start().await);
    let tester = Tester::start(options()).await;
    for program in ["curl -sL", "hey -n 1 -c 1"] {
        let cmd = format!(
            "{program} -H 'Host: app.example.com' -H 'Cookie: a=b' -H 'Authorization: x' \
             -H 'x-location: http://{elsewhere}/token' http://{address}/redirect/302"
        );
        let (status, text) = tester.run("bash", &cmd).await;
        assert_eq!(status, 200, "{text}");
        let (first, other) = (std::mem::take(&mut *first.seen.lock()), std::mem::take(&mut *other.seen.lock()));
        assert_eq!(first.iter().map(told).collect::<Vec<_>>(), [("app.example.com".to_owned(), true)], "{program}");
        assert_eq!(other.iter().map(told).collect::<Vec<_>>(), [(elsewhere.clone(), false)], "{program}");
    }
}

#[tokio::test]
async fn the_same_host_is_told_the_same_name() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    for location in ["/token".to_owned(), "../token".to_owned(), format!("http://{address}/token")] {
        let cmd = format!(
            "curl -sL -u me:secret -H 'Host: app.example.com' -H 'x-location: {location}' http://{address}/redirect/307"
        );
        assert_eq!(tester.run("bash", &cmd).await, answer(200, "{\"token\": \"abc\"}"));
        let seen = std::mem::take(&mut *server.seen.lock());
        let seen: Vec<_> = seen.iter().map(|seen| (seen.path.as_str(), told(seen))).collect();
        let host = ("app.example.com".to_owned(), true);
        assert_eq!(seen, [("/redirect/307", host.clone()), ("/token", host)], "{location}");
    }
}

#[tokio::test]
async fn a_name_that_is_only_told_over_tls_stays_with_its_server() {
    let ((first, address), (other, elsewhere)) = (Server::start().await, Server::start().await);
    let (address, elsewhere) = (tls::in_front_of(address), tls::in_front_of(elsewhere));
    let tester = Tester::start(options()).await;
    let locations = ["/token".to_owned(), format!("https://{elsewhere}/token")];
    for location in &locations {
        let cmd = format!(
            "curl -skL --http1.1 -H 'Host: app.example.com' -H 'x-location: {location}' https://{address}/redirect/302"
        );
        assert_eq!(tester.run("bash", &cmd).await, answer(200, "{\"token\": \"abc\"}"));
    }
    let hosts = |server: &Server| server.seen().iter().map(|seen| told(seen).0).collect::<Vec<_>>();
    assert_eq!(hosts(&first), ["app.example.com"; 3]);
    assert_eq!(hosts(&other), [elsewhere]);
}

#[tokio::test]
async fn methods_and_bodies_are_what_they_are_behind_a_redirection() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    for (status, method, body) in
        [(301, "GET", ""), (302, "GET", ""), (303, "GET", ""), (307, "POST", "a=1"), (308, "POST", "a=1")]
    {
        let cmd = format!("curl -sL -d a=1 -H 'x-location: /token' http://{address}/redirect/{status}");
        assert_eq!(tester.run("bash", &cmd).await.0, 200, "{status}");
        let seen = std::mem::take(&mut *server.seen.lock());
        assert_eq!((seen[0].method.as_str(), seen[0].body.as_ref()), ("POST", b"a=1".as_slice()), "{status}");
        assert_eq!((seen[1].method.as_str(), seen[1].body.as_ref()), (method, body.as_bytes()), "{status}");
        assert_eq!(seen[1].headers.contains_key("content-type"), method == "POST", "{status}");
    }
    let cmd = format!("curl -s -H 'x-location: /token' -o /dev/null -w '%{{http_code}}' http://{address}/redirect/302");
    assert_eq!(tester.run("bash", &cmd).await, answer(200, "302"), "without -L");
}

#[tokio::test]
async fn redirections_end() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    let curl = |flags: &str, location: &str| {
        format!("curl -sL {flags} -H 'x-location: {location}' http://{address}/redirect/302")
    };
    let (status, text) = tester.run("bash", &curl("--max-redirs 3", "/redirect/302")).await;
    assert_eq!((status, text.contains("exit code 47: curl: too many redirections")), (500, true), "{text}");
    assert_eq!(server.seen().len(), 4, "the first one, and three more");
    let (status, text) = tester.run("bash", &curl("", "ftp://a.b/")).await;
    assert_eq!((status, text.contains("exit code 1: curl: ")), (500, true), "{text}");
    let (status, text) = tester.run("bash", &curl("-m 0.3", "/slow")).await;
    assert_eq!((status, text.contains("exit code 28: curl: timeout exceeded")), (500, true), "{text}");
}
