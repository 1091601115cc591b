#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;
use crate::leader::Timing;

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::parse_from(line.iter().map(OsString::from), |_| None)
}

fn run(line: &[&str]) -> RunArgs {
    match parse(line).map(|cli| cli.command) {
        Ok(Command::Run(run)) => *run,
        Ok(_) => panic!("{line:?} is not `run`"),
        Err(error) => panic!("{line:?}: {error}"),
    }
}

fn refusal(line: &[&str]) -> String {
    parse(line).err().expect("refused").to_string()
}

#[test]
fn go_notation_and_ours_mean_the_same() {
    for line in [
        &["aviary", "run", "--mesh-provider=kubernetes", "--enable-config-tracking=false", "--enable-leader-election"]
            [..],
        &[
            "aviary",
            "run",
            "-mesh-provider=kubernetes",
            "-enable-config-tracking=false",
            "-enable-leader-election=true",
        ],
        &["aviary", "run", "-mesh-provider", "kubernetes", "-enable-config-tracking=F", "-enable-leader-election"],
        &["aviary", "-mesh-provider", "kubernetes", "-enable-config-tracking=0", "-enable-leader-election=1"],
        &["./flagger", "-mesh-provider=kubernetes", "-enable-config-tracking=False", "--enable-leader-election=T"],
        &["flagger", "run", "-mesh-provider=kubernetes", "-enable-config-tracking=f", "-enable-leader-election=t"],
    ] {
        let run = run(line);
        assert_eq!(run.mesh_provider, "kubernetes", "{line:?}");
        assert!(!run.enable_config_tracking, "{line:?}");
        assert!(run.enable_leader_election, "{line:?}");
    }
}

#[test]
fn values_are_never_taken_for_flags() {
    let run = run(&[
        "aviary",
        "run",
        "-slack-channel",
        "-port",
        "-include-label-prefix=-version",
        "-slack-user",
        "--",
        "-port",
        "9",
    ]);
    assert_eq!(run.slack_channel, "-port");
    assert_eq!(run.include_label_prefix, "-version");
    assert_eq!(run.slack_user, "--");
    assert_eq!(run.port, 9);
    assert!(!run.version);
}

#[test]
fn defaults_are_flaggers() {
    let run = run(&["flagger"]);
    assert_eq!(run.kubeconfig_qps, 100.0);
    assert_eq!(run.kubeconfig_burst, 250);
    assert_eq!(run.metrics_server, "http://prometheus:9090");
    assert_eq!(run.control_loop_interval, Duration::from_secs(10));
    assert_eq!(run.log_level(), (LogLevel::Debug, true));
    assert_eq!(run.port, 8080);
    assert_eq!(run.slack_user, "flagger");
    assert_eq!(run.threadiness, 2);
    assert_eq!(run.zap_encoding, LogEncoding::Json);
    assert_eq!(run.mesh_provider, "istio");
    assert_eq!(run.selector_labels, "app,name,app.kubernetes.io/name");
    assert_eq!(run.leader_election_namespace, "kube-system");
    assert_eq!((run.election().is_none(), run.election_timing()), (true, Timing::default()));
    assert!(run.enable_config_tracking && !run.enable_leader_election && !run.no_cross_namespace_refs);
    assert_eq!((run.metrics_errors, run.metrics_outage_limit), (MetricsErrors::Hold, Duration::from_secs(600)));
    assert_eq!(run.namespaces(), [""; 0]);
    assert_eq!(run.unused_flags(), []);
}

#[test]
fn the_lease_is_where_flagger_has_it_and_its_durations_fit() {
    let namespace = |line: &[&str]| run(line).election_namespace();
    assert_eq!(namespace(&["flagger", "-enable-leader-election"]), "kube-system");
    assert_eq!(namespace(&["flagger", "-leader-election-namespace=flagger-system"]), "flagger-system");
    assert_eq!(namespace(&["flagger", "-leader-election-namespace=flagger-system", "-namespace=b,a"]), "b");
    let settings = run(&["flagger", "-enable-leader-election"]).election().unwrap();
    let again = run(&["flagger", "-enable-leader-election"]).election().unwrap();
    assert_ne!(settings.identity, again.identity, "each process has a name of its own");
    for (flags, problem) in [
        (&["-leader-election-lease-duration=900ms"][..], "one second at least"),
        (&["-leader-election-renew-deadline=15s"], "less than --leader-election-lease-duration"),
        (&["-leader-election-retry-period=0s"], "at most half of --leader-election-renew-deadline"),
        (&["-leader-election-retry-period=6s"], "at most half of --leader-election-renew-deadline"),
    ] {
        let error = refusal(&[&["flagger"], flags].concat());
        assert!(
            error.contains(problem) && error.contains(flags[0].split('=').next().unwrap().trim_matches('-')),
            "{error}"
        );
    }
}

/// The arguments of the chart's Deployment with everything switched on.
#[test]
fn the_arguments_of_flaggers_chart_are_accepted() {
    let run = run(&[
        "/app/flagger",
        "-log-level=info",
        "-mesh-provider=istio",
        "-metrics-server=http://flagger-prometheus:9090",
        "-enable-config-tracking=true",
        "-selector-labels=app,name,app.kubernetes.io/name",
        "-namespace=test",
        "-slack-url=https://hooks.slack.com/services/x",
        "-slack-user=flagger",
        "-slack-channel=general",
        "-slack-proxy-url=http://proxy:3128",
        "-msteams-url=https://outlook.office.com/x",
        "-msteams-proxy-url=",
        "-enable-leader-election=true",
        "-leader-election-namespace=istio-system",
        "-ingress-annotations-prefix=custom.ingress.kubernetes.io",
        "-ingress-class=contour",
        "-event-webhook=http://hook",
        "-kubeconfig-qps=50",
        "-kubeconfig-burst=100",
        "-kubeconfig-service-mesh=/tmp/controlplane/kubeconfig",
        "-threadiness=4",
        "-include-label-prefix=app.kubernetes.io,team",
        "-cluster-name=prod",
        "-no-cross-namespace-refs=true",
        "-control-loop-interval=30s",
        "-zap-replace-globals",
        "-zap-encoding=console",
        "-v=4",
        "-logtostderr",
        "-stderrthreshold",
        "INFO",
    ]);
    assert_eq!(run.namespaces(), ["test"]);
    let unused: Vec<_> = run.unused_flags().into_iter().map(|unused| unused.flag).collect();
    assert_eq!(unused, ["ingress-annotations-prefix", "ingress-class"]);
}

#[test]
fn the_environment_wins_unless_it_is_empty() {
    let line =
        ["flagger", "-slack-url=http://flag", "-slack-token=flag", "-msteams-url=http://flag"].map(OsString::from);
    let environment = |name: &str| match name {
        "SLACK_URL" => Some("http://environment".to_owned()),
        "SLACK_TOKEN" => Some(String::new()),
        "EVENT_WEBHOOK_URL" => Some("http://hook".to_owned()),
        _ => None,
    };
    let Ok(Cli { command: Command::Run(run) }) = Cli::parse_from(line, environment) else { panic!("not `run`") };
    assert_eq!(run.slack_url, "http://environment");
    assert_eq!(run.slack_token, "flag");
    assert_eq!(run.msteams_url, "http://flag");
    assert_eq!(run.event_webhook, "http://hook");
}

#[test]
fn a_repeated_flag_counts_the_last_time() {
    assert_eq!(run(&["flagger", "-port=1", "-port=2"]).port, 2);
}

#[test]
fn namespaces_are_a_list() {
    assert_eq!(run(&["aviary", "run", "--namespace=team-a, team-b,"]).namespaces(), ["team-a", "team-b"]);
}

#[test]
fn refusals_name_flag_value_and_what_is_allowed() {
    for (line, parts) in [
        (&["aviary", "run", "-metrics-errors=ignore"][..], &["--metrics-errors", "'ignore'", "hold, fail"][..]),
        (&["aviary", "run", "-zap-encoding=xml"], &["--zap-encoding", "'xml'", "json, console"]),
        (&["aviary", "run", "-metrics-outage-limit=10"], &["--metrics-outage-limit", "'10'", "unit (ms, s, m or h)"]),
        (&["aviary", "run", "-enable-config-tracking=yes"], &["--enable-config-tracking", "'yes'", "true or false"]),
        (&["aviary", "run", "-mesh-provider=isto"], &["--mesh-provider", "'isto'", "supported: istio"]),
        (&["aviary", "run", "-kubeconfig-qps=nan"], &["--kubeconfig-qps", "'nan'", "a number"]),
        (&["flagger", "-master=foo"], &["--master=foo: expected http:// or https://"]),
        (&["flagger", "-metrics-server=prometheus:9090"], &["--metrics-server", "http://prometheus:9090"]),
        (&["flagger", "-port=http"], &["--port", "'http'"]),
        (&["flagger", "-mesh-provder=istio"], &["'--mesh-provder'", "'--mesh-provider'"]),
        (&["aviary", "demo", "--speed=0"], &["--speed", "'0'", "max"]),
        (&["aviary", "demo", "--bad-error-rate=10"], &["--bad-error-rate", "'10'", "0 to 1"]),
        (&["aviary", "sandbox"], &["--kubeconfig <FILE>"]),
        (&["aviary", "sandbox", "--kubeconfig=x", "--speed=nan"], &["--speed", "'nan'", "0.01 to 1000"]),
        (&["aviary", "sandbox", "--kubeconfig=x", "--load=-1"], &["--load", "'-1'", "0 or more"]),
        (&["aviary", "sandbox", "--kubeconfig=x", "--load", "-1"], &["--load", "'-1'", "0 or more"]),
        (&["aviary", "sandbox", "--kubeconfig=x", "--load", "nan"], &["--load", "'nan'", "0 or more"]),
        (&["aviary", "sandbox", "--kubeconfig=x", "--speed", "-1"], &["--speed", "'-1'", "0.01"]),
        (&["aviary", "sandbox", "--kubeconfig=x", "--error-rate=0.1"], &["--error-rate", "podinfo:6.0.2=0.1"]),
        (&["aviary", "sandbox", "--kubeconfig=x", "--error-rate=a=2"], &["--error-rate", "0 to 1"]),
        (&["aviary", "sandbox", "--kubeconfig=x", "--latency=a=2"], &["--latency", "unit (ms, s, m or h)"]),
    ] {
        let refusal = refusal(line);
        assert!(parts.iter().all(|part| refusal.contains(part)), "{line:?}: {refusal}");
    }
}

/// Addresses of chats are passwords, and others hold one.
#[test]
fn refused_addresses_are_not_repeated() {
    for flag in [
        "metrics-server",
        "slack-url",
        "slack-proxy-url",
        "msteams-url",
        "msteams-proxy-url",
        "event-webhook",
        "master",
    ] {
        for address in ["user:s3cr3t@host:9090", "ftp://user:s3cr3t@host", "http://user:s3cr3t@host:x/"] {
            let error = parse(&["flagger", &format!("-{flag}={address}")]).err().expect("refused");
            let text = error.to_string();
            assert!(text.contains(&format!("--{flag}")) && text.contains("expected http://"), "{text}");
            assert!(!text.contains("s3cr3t"), "{text}");
            assert_eq!(error.exit_code(), 2);
        }
    }
    let environment = |name: &str| (name == "MSTEAMS_URL").then(|| "s3cr3t".to_owned());
    let error = Cli::parse_from(["flagger".into()], environment).err().expect("refused").to_string();
    assert!(error.contains("MSTEAMS_URL") && !error.contains("s3cr3t"), "{error}");
}

#[test]
fn help_and_version_are_found_in_every_notation() {
    let kind = |line: &[&str]| parse(line).err().expect("an answer instead of a command").kind();
    for line in [["aviary", "-version"], ["aviary", "--version"], ["aviary", "-V"], ["flagger", "-version"]] {
        assert_eq!(kind(&line), ErrorKind::DisplayVersion, "{line:?}");
    }
    for line in [&["aviary", "-h"][..], &["aviary", "--help"], &["aviary", "run", "-help"], &["flagger", "-h"]] {
        assert_eq!(kind(line), ErrorKind::DisplayHelp, "{line:?}");
    }
    assert_eq!(kind(&["aviary"]), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    assert!(refusal(&["flagger", "-h"]).contains("--mesh-provider"));
    assert!(run(&["flagger", "-mesh-provider=istio", "-version"]).version);
}

#[test]
fn other_verbs_are_no_flagger() {
    let Ok(Cli { command: Command::Demo(demo) }) = parse(&["aviary", "demo", "--speed", "max", "--plain"]) else {
        panic!("not `demo`")
    };
    assert_eq!(demo.speed, Speed::Max);
    assert!(demo.plain && demo.bad_error_rate == 0.1 && demo.good_error_rate == 0.0);
    let Ok(Cli { command: Command::Demo(demo) }) =
        parse(&["aviary", "demo", "-speed", "2", "-plain", "-bad-error-rate=0.5"])
    else {
        panic!("not `demo`")
    };
    assert_eq!((demo.speed, demo.plain, demo.bad_error_rate), (Speed::Times(2.0), true, 0.5));
    assert!(refusal(&["aviary", "demo", "-v"]).contains("'-v'"), "only `run` drops Go's logging flags");
    assert!(matches!(parse(&["aviary", "version", "-o", "json"]), Ok(Cli { command: Command::Version(_) })));
    let line =
        ["aviary", "sandbox", "--kubeconfig", "x", "-n", "a,b", "-f", "-", "--error-rate=img:1=0.5", "-o", "json"];
    let Ok(Cli { command: Command::Sandbox(sandbox) }) = parse(&line) else { panic!("not `sandbox`") };
    assert_eq!((sandbox.namespace, sandbox.filename), (vec!["a".to_owned(), "b".to_owned()], vec!["-".into()]));
    assert_eq!((sandbox.error_rate, sandbox.output), (vec![("img:1".to_owned(), 0.5)], SandboxOutput::Json));
    assert!(matches!(parse(&["flagger", "crds"]), Ok(Cli { command: Command::Crds })));
}

/// `UPDATE_GENERATED=1 cargo test` rewrites the page.
#[test]
fn the_checked_in_help_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    let mut page = String::from(
        "<!-- Generated: UPDATE_GENERATED=1 cargo test -p aviary -->\n# Command line\n\nWhat `--help` says of every command.\n",
    );
    let mut command = Cli::command().term_width(HELP_WIDTH).bin_name("aviary");
    command.build();
    let verbs = command.get_subcommands_mut().filter(|verb| verb.get_name() != "help");
    let verbs: Vec<_> = verbs.map(|verb| (format!("aviary {}", verb.get_name()), verb.render_long_help())).collect();
    for (title, help) in [("aviary".to_owned(), command.render_long_help())].into_iter().chain(verbs) {
        let help: Vec<_> = help.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
        write!(page, "\n## {title}\n\n```text\n{}\n```\n", help.join("\n").trim_end()).unwrap();
    }
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(checked_in == page, "{path} is out of date: run UPDATE_GENERATED=1 cargo test -p aviary");
}

#[test]
fn a_seed_that_is_none_is_refused_in_words() {
    let refusal = refusal(&["aviary", "simulate", "-f", "a.yaml", "--seed", "-1"]);
    assert!(refusal.contains("a seed is a whole number from 0 to 18446744073709551615"), "{refusal}");
}
