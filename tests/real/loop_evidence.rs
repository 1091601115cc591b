//! When what was decided and when it was in force, by witnesses with one clock: Aviary's log, and Envoy's account of its own
//! routes; and how long the machine let others wait meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Inside, fetch, now};

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
        let Some((at, hosts)) = routes_in_force().await else { continue };
        let mut seen = seen.lock();
        if seen.last().is_none_or(|(last, _)| *last != at) {
            seen.push((at, hosts));
        }
    }
}

/// What share of a host's requests the gateway's Envoy sends to each Service now, by its own account.
pub async fn shares(host: &str) -> Shares {
    let routes = routes_in_force().await;
    routes.and_then(|(_, mut hosts)| hosts.remove(host)).unwrap_or_default()
}

async fn routes_in_force() -> Option<(Timestamp, BTreeMap<String, Shares>)> {
    routes_of(&fetch("http://127.0.0.1:15000/config_dump?resource=dynamic_route_configs").await)
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

/// Asks to run so often.
const TICK: Duration = Duration::from_millis(5);
/// The processes on the way of a weight, each of which may be kept waiting: Aviary, the API server, etcd, the API server's watch,
/// istiod and Envoy.
const PROCESSES: u32 = 6;

/// How long the machine keeps a thread waiting that wants to run and has nothing to do with what is tested.
pub struct Waits {
    /// When it ran at last, and for how long it had waited.
    seen: Arc<Mutex<Vec<(Timestamp, Duration)>>>,
    _end: oneshot::Sender<()>,
}

impl Waits {
    pub fn follow() -> Waits {
        let seen = Arc::<Mutex<Vec<(Timestamp, Duration)>>>::default();
        let waits = Arc::clone(&seen);
        let (end, mut ended) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async move {
                loop {
                    let due = Instant::now() + TICK;
                    tokio::select! {
                        _ = &mut ended => return,
                        () = tokio::time::sleep_until(due) => {}
                    }
                    // Timers are exact to a millisecond.
                    let waited = due.elapsed();
                    if waited > Duration::from_millis(2) {
                        waits.lock().push((now(), waited));
                    }
                }
            });
        });
        Waits { seen, _end: end }
    }

    /// How much longer a weight may take from one moment to another than on a machine that keeps nobody waiting.
    pub fn excuse(&self, from: Timestamp, to: Timestamp) -> Duration {
        let seen = self.seen.lock();
        let meanwhile = |(ran, waited): &&(Timestamp, Duration)| {
            let began = *ran - SignedDuration::try_from(*waited).unwrap();
            began <= to && *ran >= from
        };
        let longest = seen.iter().filter(meanwhile).map(|(_, waited)| *waited).max();
        longest.unwrap_or_default() * PROCESSES
    }
}

/// What Aviary has written down.
pub struct Logs {
    operator: PathBuf,
}

impl Logs {
    pub fn of(bench: &Inside) -> Logs {
        Logs { operator: bench.path("aviary.log") }
    }

    /// What Aviary has said of a canary since then, with the time at which it said it.
    pub fn said(&self, canary: &str, since: Timestamp) -> Vec<(Timestamp, String)> {
        let name = format!("{canary}.test");
        let said = lines(&self.operator, &name).into_iter().filter(|line| line["canary"] == json!(name));
        let said = said.filter_map(|line| Some((time(&line["ts"])?, line["msg"].as_str()?.to_owned())));
        // The log's times are cut to milliseconds.
        said.filter(|(at, _)| at.as_millisecond() >= since.as_millisecond()).collect()
    }

    /// When Aviary set about writing a VirtualService, since then: what was decided is sent to the API server.
    pub fn route_writes(&self, name: &str, since: Timestamp) -> Vec<Timestamp> {
        let text = format!("updating VirtualService {name}.test");
        let orders = lines(&self.operator, &text).into_iter().filter(|line| line["msg"] == json!(text));
        orders.filter_map(|line| time(&line["ts"])).filter(|at| at.as_millisecond() >= since.as_millisecond()).collect()
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
