//! The load tester that webhooks call. Its `hey` and `wrk` commands become requests of users; other commands succeed
//! at once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use aviary_load_commands::{Amount, Task};
use aviary_sim::clock::Clock;
use aviary_sim::traffic::Traffic;
use parking_lot::Mutex;

/// Requests per second of one worker without a limit: one after the other, at the median latency of a healthy version.
const UNLIMITED: f64 = 50.0;

/// A command that sends requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Command {
    pub(crate) namespace: String,
    pub(crate) host: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) requests_per_second: f64,
    pub(crate) time: Duration,
}

/// Runs commands against the simulated traffic.
#[derive(Clone)]
pub(crate) struct LoadTester {
    traffic: Traffic,
    clock: Clock,
    /// Commands under way, by canary. One that its canary calls again meanwhile is not run twice, as with Flagger's load
    /// tester.
    running: Arc<Mutex<HashSet<(String, String)>>>,
}

impl LoadTester {
    pub(crate) fn new(traffic: Traffic, clock: Clock) -> LoadTester {
        LoadTester { traffic, clock, running: Arc::default() }
    }

    /// Runs a command that a canary of this namespace and name gives. Service names without a namespace are meant in it.
    pub(crate) fn run(&self, text: &str, namespace: &str, name: &str) {
        let Some(command) = parse(text, namespace) else { return };
        let key = (format!("{name}.{namespace}"), text.to_owned());
        if !self.running.lock().insert(key.clone()) {
            return;
        }
        let (traffic, clock, running) = (self.traffic.clone(), self.clock, self.running.clone());
        tokio::spawn(async move {
            let Command { namespace, host, headers, requests_per_second, time } = command;
            let load = traffic.add_load(&namespace, &host, &headers, requests_per_second);
            clock.sleep(time).await;
            traffic.remove_load(load);
            running.lock().remove(&key);
        });
    }
}

/// What a `hey` or `wrk` command sends; `None` for every other command, and for requests that leave the cluster. `namespace`
/// is where a host without one is.
pub(crate) fn parse(command: &str, namespace: &str) -> Option<Command> {
    let aviary_load_commands::Command::HttpLoad(load) = Task::parse(command).ok()?.command else { return None };
    let requests_per_second = load.requests_per_second().unwrap_or(f64::from(load.workers) * UNLIMITED);
    let parts: Vec<&str> = load.request.url.host()?.split('.').collect();
    let (host, namespace) = match parts.as_slice() {
        [host] => (*host, namespace),
        [host, namespace] | [host, namespace, "svc", ..] => (*host, *namespace),
        _ => return None,
    };
    let named = load.request.headers.iter().map(|(name, value)| (name.as_str(), value));
    let headers = named.chain(load.request.host.iter().map(|host| ("host", host)));
    let headers = headers.filter_map(|(name, value)| Some((name.to_owned(), value.to_str().ok()?.to_owned())));
    let headers: BTreeMap<String, String> = headers.collect();
    // `hey -H 'Host: podinfo.test' http://envoy.test:10000/`: behind a proxy, the header names who answers.
    let behind = headers.get("host").and_then(|name| name.strip_suffix(namespace)?.strip_suffix('.'));
    let host = behind.filter(|name| !name.is_empty() && !name.contains('.')).unwrap_or(host);
    Some(Command {
        namespace: namespace.to_owned(),
        host: host.to_owned(),
        headers,
        requests_per_second,
        time: match load.amount {
            Amount::Time(time) => time,
            #[expect(clippy::cast_precision_loss, reason = "a time that need not be exact")]
            Amount::Requests(number) => Duration::try_from_secs_f64(number as f64 / requests_per_second).ok()?,
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn commands_of_the_examples_are_understood() {
        let command =
            parse("hey -z 10m -q 10 -c 2 -H 'Cookie: type=insider' http://podinfo-canary.test/", "x").unwrap();
        assert_eq!((command.host.as_str(), command.namespace.as_str()), ("podinfo-canary", "test"));
        assert_eq!(command.headers["cookie"], "type=insider");
        let elsewhere = parse("hey -H 'Host: a.b' http://podinfo/", "x").unwrap();
        assert_eq!((elsewhere.headers["host"].as_str(), elsewhere.host.as_str()), ("a.b", "podinfo"));
        let behind = parse("hey -z 1m -q 10 -c 2 -H 'Host: podinfo.test' http://envoy.test:10000/", "x").unwrap();
        assert_eq!((behind.host.as_str(), behind.namespace.as_str()), ("podinfo", "test"));
        assert_eq!((command.requests_per_second, command.time), (20.0, Duration::from_secs(600)));
        let command = parse("hey -n 100 -c 1 -m POST http://podinfo:9898/token", "shop").unwrap();
        assert_eq!((command.host.as_str(), command.namespace.as_str()), ("podinfo", "shop"));
        assert_eq!((command.requests_per_second, command.time), (50.0, Duration::from_secs(2)));
        let command = parse("wrk -t2 -c4 -d1m http://podinfo:9898/", "shop").unwrap();
        assert_eq!((command.requests_per_second, command.time), (200.0, Duration::from_secs(60)));
    }

    #[test]
    fn everything_else_sends_nothing() {
        for command in
            ["curl -s http://podinfo.test/", "", "hey", "hey -c x http://a/", "hey http://www.example.com/", "hey -c"]
        {
            assert_eq!(parse(command, "test"), None, "{command}");
        }
    }
}
