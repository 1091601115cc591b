//! When what was decided and when it was in force, by three witnesses with one clock: Aviary's log, the API server's audit log, and
//! Envoy's account of its own routes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Inside, fetch};

/// What share of a host's requests goes to each Service, in percent.
pub type Shares = BTreeMap<String, u64>;

/// Looks at Envoy's routes so often. Envoy says itself since when they are in force; one that is replaced within this time is
/// missed, and then the next one counts, which is later.
const LOOK: Duration = Duration::from_millis(40);

/// The routes of all hosts, each with the time since when they were in force.
type History = Vec<(Timestamp, BTreeMap<String, Shares>)>;

/// The routes that Envoy has had in force, and since when.
pub struct Routes {
    seen: Arc<Mutex<History>>,
    looking: tokio::task::JoinHandle<()>,
}

impl Routes {
    pub fn follow() -> Routes {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let looking = tokio::spawn(look(Arc::clone(&seen)));
        Routes { seen, looking }
    }

    /// Since when a host's requests go like this: the first time that is not before `after`.
    pub fn since(&self, host: &str, shares: &Shares, after: Timestamp) -> Option<Timestamp> {
        let seen = self.seen.lock();
        let found = seen.iter().find(|(at, hosts)| *at >= after && hosts.get(host) == Some(shares));
        found.map(|(at, _)| *at)
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

async fn look(seen: Arc<Mutex<History>>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let dump = fetch("http://127.0.0.1:15000/config_dump?resource=dynamic_route_configs").await;
        let Some((at, hosts)) = routes_of(&dump) else { continue };
        let mut seen = seen.lock();
        if seen.last().is_none_or(|(last, _)| *last != at) {
            seen.push((at, hosts));
        }
    }
}

/// When the last of the routes was updated, and where they lead.
fn routes_of(dump: &Value) -> Option<(Timestamp, BTreeMap<String, Shares>)> {
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut hosts: BTreeMap<String, Shares> = BTreeMap::new();
    let mut updated = None;
    for config in all(&dump["configs"]) {
        updated = updated.max(config["last_updated"].as_str().and_then(|at| at.parse().ok()));
        for virtual_host in all(&config["route_config"]["virtual_hosts"]) {
            let mut shares = Shares::new();
            for route in all(&virtual_host["routes"]) {
                // One destination is no list.
                if let Some(cluster) = route["route"]["cluster"].as_str() {
                    shares.insert(service_of(cluster), 100);
                }
                for cluster in all(&route["route"]["weighted_clusters"]["clusters"]) {
                    let weight = cluster["weight"].as_u64().unwrap_or_default();
                    shares.insert(service_of(cluster["name"].as_str().unwrap_or_default()), weight);
                }
            }
            for domain in all(&virtual_host["domains"]) {
                hosts.insert(domain.as_str().unwrap_or_default().to_owned(), shares.clone());
            }
        }
    }
    updated.map(|updated| (updated, hosts))
}

/// `outbound|80||podinfo-canary.test.svc.cluster.local` is `podinfo-canary`.
fn service_of(cluster: &str) -> String {
    cluster.rsplit('|').next().and_then(|name| name.split('.').next()).unwrap_or_default().to_owned()
}

/// What Aviary and the API server have written down.
pub struct Logs {
    operator: PathBuf,
    audit: PathBuf,
}

impl Logs {
    pub fn of(bench: &Inside) -> Logs {
        Logs { operator: bench.path("aviary.log"), audit: bench.path("audit.log") }
    }

    /// What Aviary has said of a canary since then, with the time at which it said it.
    pub fn said(&self, canary: &str, since: Timestamp) -> Vec<(Timestamp, String)> {
        let name = format!("{canary}.test");
        let said = lines(&self.operator, &name).into_iter().filter(|line| line["canary"] == json!(name));
        let said = said.filter_map(|line| Some((time(&line["ts"])?, line["msg"].as_str()?.to_owned())));
        // The log's times are cut to milliseconds.
        said.filter(|(at, _)| at.as_millisecond() >= since.as_millisecond()).collect()
    }

    /// When the API server received Aviary's successful writes of a VirtualService since then.
    pub fn route_writes(&self, name: &str, since: Timestamp) -> Vec<Timestamp> {
        let is_write = |call: &Value| {
            call["objectRef"]["resource"] == "virtualservices"
                && call["objectRef"]["name"] == name
                && call["userAgent"].as_str().is_some_and(|agent| agent.starts_with("aviary/"))
                && call["verb"] != "watch"
                && call["verb"] != "list"
                && call["verb"] != "get"
                && call["stage"] == "ResponseComplete"
                && call["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300)
        };
        let writes = lines(&self.audit, "\"virtualservices\"").into_iter().filter(is_write);
        let mut writes: Vec<_> = writes.filter_map(|call| time(&call["requestReceivedTimestamp"])).collect();
        writes.retain(|at| *at >= since);
        // The log is in the order of the answers.
        writes.sort_unstable();
        writes
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// Those that hold this text: to read all would keep the machine from what is measured. The last line may be half written.
fn lines(path: &PathBuf, text: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(path).unwrap_or_default();
    log.lines().filter(|line| line.contains(text)).filter_map(|line| serde_json::from_str(line).ok()).collect()
}
