//! The load tester that webhooks call. Its `hey` commands become requests of users; other commands succeed at once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use aviary_crds::duration::parse_go_duration;
use aviary_sim::clock::Clock;
use aviary_sim::traffic::Traffic;
use parking_lot::Mutex;

/// Requests per second of one worker without a limit: one after the other, at the median latency of a healthy version.
const UNLIMITED: f64 = 50.0;
/// Workers and requests of `hey` where a command does not say.
const WORKERS: f64 = 50.0;
const REQUESTS: f64 = 200.0;

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
    /// Commands under way. One that is called again meanwhile is not run twice, as with Flagger's load tester.
    running: Arc<Mutex<HashSet<(String, String)>>>,
}

impl LoadTester {
    pub(crate) fn new(traffic: Traffic, clock: Clock) -> LoadTester {
        LoadTester { traffic, clock, running: Arc::default() }
    }

    /// Runs a command that a canary of this namespace gives. Service names without a namespace are meant in it.
    pub(crate) fn run(&self, text: &str, namespace: &str) {
        let Some(command) = parse(text, namespace) else { return };
        let key = (namespace.to_owned(), text.to_owned());
        if !self.running.lock().insert(key.clone()) {
            return;
        }
        let (traffic, clock, running) = (self.traffic.clone(), self.clock, self.running.clone());
        tokio::spawn(async move {
            let Command { namespace, host, headers, requests_per_second, time } = command;
            traffic.set_audience_load(&namespace, &host, &headers, requests_per_second);
            clock.sleep(time).await;
            traffic.set_audience_load(&namespace, &host, &headers, 0.0);
            running.lock().remove(&key);
        });
    }
}

/// What a `hey` command sends; `None` for every other command, and for requests that leave the cluster. `namespace` is where
/// a host without one is.
pub(crate) fn parse(command: &str, namespace: &str) -> Option<Command> {
    let words = words(command);
    let mut words = words.iter().map(String::as_str);
    if words.next()?.rsplit('/').next() != Some("hey") {
        return None;
    }
    let mut headers = BTreeMap::new();
    let (mut workers, mut limit, mut requests, mut time) = (WORKERS, None, REQUESTS, None);
    let mut url = None;
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-') else {
            url = Some(word);
            continue;
        };
        let flag = flag.trim_start_matches('-');
        if flag.starts_with("disable-") || flag == "h2" {
            continue;
        }
        let value = words.next()?;
        match flag {
            "c" => workers = value.parse().ok()?,
            "q" => limit = Some(value.parse::<f64>().ok()?).filter(|limit| *limit > 0.0),
            "n" => requests = value.parse().ok()?,
            "z" => time = Some(parse_go_duration(value).ok()?),
            "H" => {
                let (name, value) = value.split_once(':')?;
                headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
            "host" => {
                headers.insert("host".to_owned(), value.to_owned());
            }
            _ => {}
        }
    }
    let requests_per_second = workers * limit.unwrap_or(UNLIMITED);
    let uri: http::Uri = url?.parse().ok()?;
    let parts: Vec<&str> = uri.host()?.split('.').collect();
    let (host, namespace) = match parts.as_slice() {
        [host] => (*host, namespace),
        [host, namespace] | [host, namespace, "svc", ..] => (*host, *namespace),
        _ => return None,
    };
    Some(Command {
        namespace: namespace.to_owned(),
        host: host.to_owned(),
        headers,
        requests_per_second,
        time: match time {
            Some(time) => time,
            None => Duration::try_from_secs_f64(requests / requests_per_second).ok()?,
        },
    })
}

/// Words as a shell splits them, up to the first operator.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in command.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '|' | ';' | '&') => break,
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
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
        assert_eq!(command.headers, BTreeMap::from([("cookie".to_owned(), "type=insider".to_owned())]));
        assert_eq!((command.requests_per_second, command.time), (20.0, Duration::from_secs(600)));
        let command = parse("hey -n 100 -c 1 -m POST http://podinfo:9898/token", "shop").unwrap();
        assert_eq!((command.host.as_str(), command.namespace.as_str()), ("podinfo", "shop"));
        assert_eq!((command.requests_per_second, command.time), (50.0, Duration::from_secs(2)));
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
