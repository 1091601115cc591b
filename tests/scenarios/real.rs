//! Real components: Kubernetes, istiod, Envoy and Prometheus, with pods that answer and users who ask; the scenarios side by
//! side in groups.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use aviary_loadtest::users::{Options, Users};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::host::{Headers, Host};
use super::scene::VIRTUAL_SERVICE;
use super::{all, run_all, run_all_with_kills};
use crate::real::{Aviary, GATEWAY, Inside, Installed, in_bench, is_full_set};
use crate::support::api;
use crate::support::process::eventually;

const ARGUMENTS: &[&str] = &["--mesh-provider", "istio"];
/// Requests per second of a scenario's users: two or three of them for a canary with 25 %, twenty-five in a round, and not more
/// than a small machine bears from thirty scenarios.
const RATE: f64 = 10.0;
/// A machine that is busy with something else stands still for seconds; a request that is lost is never answered.
const USERS_PATIENCE: Duration = Duration::from_secs(10);
/// All that can be under way in this time. More connections of all scenarios together than Envoy may have files open would
/// turn a short stall into one that does not end.
const USERS_CONNECTIONS: usize = 100;
/// What every run tells; `AVIARY_REAL_FULL=1` tells all.
const SAMPLE: &[&str] = &[
    "good-release",
    "errors",
    "crash-loop",
    "newer-revision",
    "config-map",
    "ab-header",
    "blue-green",
    "session-affinity",
    "reverted-progressing",
    "deleted-succeeded",
];
/// Requests whose answers tell where users are led.
const WATCHED: usize = 30;

#[test]
fn on_real_components() {
    in_bench("scenarios::real::on_real_components", async |bench: Inside| {
        // Not the operator of the other tests: this is the one that Helm installs, started as its Deployment says.
        let client = bench.client("admin").await;
        let installed = Installed::by_helm(&bench, &client, &[]).await;
        let _network = bench.network().await;
        let host = Real::with_operator(client, || installed.start());
        installed.probes_answer().await;
        run_all(&host).await;
    });
}

#[test]
fn every_name_of_the_sample_is_that_of_a_scenario() {
    let names: BTreeSet<String> = all().into_iter().map(|scenario| scenario.name).collect();
    let unknown: Vec<_> = SAMPLE.iter().filter(|name| !names.contains(**name)).collect();
    // With AVIARY_SCENARIOS there are only some of them.
    assert!(unknown.is_empty() || std::env::var_os("AVIARY_SCENARIOS").is_some(), "{unknown:?}");
}

/// Three minutes, so a part of the full set only.
#[test]
fn on_real_components_with_kills() {
    if !is_full_set() {
        return;
    }
    in_bench("scenarios::real::on_real_components_with_kills", async |bench: Inside| {
        let _network = bench.network().await;
        run_all_with_kills(&Real::new(&bench).await).await;
    });
}

pub struct Real<'a> {
    client: Client,
    start_operator: Box<dyn Fn() -> Aviary + 'a>,
    operator: RefCell<Aviary>,
    /// By the host that they ask; they do until they are dropped.
    users: RefCell<Vec<(String, Rc<Users>)>>,
}

impl Real<'_> {
    pub async fn new(bench: &Inside) -> Real<'_> {
        Real::with_arguments(bench, &[]).await
    }

    /// With more arguments for the operator.
    pub async fn with_arguments<'a>(bench: &'a Inside, more: &[&'static str]) -> Real<'a> {
        let arguments = [ARGUMENTS, more].concat();
        Real::with_operator(bench.client("admin").await, move || bench.start_aviary(&arguments))
    }

    /// With an operator that is started so.
    fn with_operator<'a>(client: Client, start_operator: impl Fn() -> Aviary + 'a) -> Real<'a> {
        let operator = RefCell::new(start_operator());
        Real { client, start_operator: Box::new(start_operator), operator, users: RefCell::default() }
    }

    /// Users of something that goes.
    pub fn dismiss_users(&self) {
        self.users.borrow_mut().clear();
    }

    /// Requests to a service, as a load tester beside a sidecar sends them: through a proxy that counts them, here the gateway.
    pub async fn load(&self, namespace: &str, service: &str, port: u64) -> Users {
        let host = host_name(namespace, service);
        let route = json!({
            "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
            "metadata": {"namespace": namespace, "name": "load-tester"},
            "spec": {
                "gateways": ["istio-system/public-gateway"], "hosts": [host],
                "http": [{"route": [{"destination": {"host": service, "port": {"number": port}}}]}],
            },
        });
        let (group, version, kind) = VIRTUAL_SERVICE;
        let routes = api(self.client.clone(), group, version, kind, Some(namespace));
        let params = PatchParams::apply("load-tester").force();
        routes.patch("load-tester", &params, &Patch::Apply(route)).await.unwrap();
        let cluster = format!("outbound|{port}||{service}.{namespace}.svc.cluster.local::");
        start_users(host, cluster, HeaderMap::new()).await
    }
}

fn host_name(namespace: &str, host: &str) -> String {
    format!("{host}.{namespace}.example.com")
}

fn header_map(headers: &Headers) -> HeaderMap {
    let header = |(name, value): (&String, &String)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    headers.iter().map(header).collect()
}

/// Whether Envoy has a pod for a cluster. What it is asked before, it answers itself with 503, and that counts as the cluster's.
async fn is_known_to_proxy(cluster: &str) -> bool {
    let answer = reqwest::get("http://127.0.0.1:15000/clusters").await.unwrap();
    let clusters = answer.text().await.unwrap();
    clusters.lines().any(|line| line.starts_with(cluster) && line.ends_with("::health_flags::healthy"))
}

/// Users of a host behind the gateway. They come to what is served: what the operator has just routed reaches the proxy a moment
/// later.
async fn start_users(host: String, cluster: String, headers: HeaderMap) -> Users {
    let options = Options::new(GATEWAY.parse().unwrap(), RATE).unwrap().timeout(USERS_PATIENCE);
    let options = options.max_connections(USERS_CONNECTIONS).host(&host).headers(headers);
    eventually("the proxy knows the pods", async || is_known_to_proxy(&cluster).await).await;
    let client = reqwest::Client::new();
    let served = async || {
        let answer = client.get(GATEWAY).header("host", &host).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    };
    eventually("users are served", served).await;
    Users::start(options).unwrap()
}

impl Host for Real<'_> {
    fn name(&self) -> &'static str {
        "real"
    }

    fn client(&self) -> Client {
        self.client.clone()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn kill_and_start_operator(&self) -> LocalBoxFuture<'_, ()> {
        let mut operator = self.operator.borrow_mut();
        operator.process.kill().unwrap();
        operator.process.wait().unwrap();
        *operator = (self.start_operator)();
        std::future::ready(()).boxed_local()
    }

    fn at_once(&self) -> usize {
        // Two cores for the control plane, the mesh and everything else. Two or three of these groups take as long as the ten
        // rounds of the longest scenario.
        12
    }

    fn is_chosen(&self, name: &str) -> bool {
        is_full_set() || std::env::var_os("AVIARY_SCENARIOS").is_some() || SAMPLE.contains(&name)
    }

    fn pass(&self, time: Duration) -> LocalBoxFuture<'_, ()> {
        tokio::time::sleep(time).boxed_local()
    }

    fn admit_users(&self, namespace: &str, host: &str, headers: &Headers) -> LocalBoxFuture<'_, ()> {
        let cluster = format!("outbound|80||{host}.{namespace}.svc.cluster.local::");
        let (host, headers) = (host_name(namespace, host), header_map(headers));
        async move {
            let users = start_users(host.clone(), cluster, headers).await;
            self.users.borrow_mut().push((host, Rc::new(users)));
        }
        .boxed_local()
    }

    fn requests_have_ended(&self, namespace: &str) -> LocalBoxFuture<'_, ()> {
        let host = host_name(namespace, "podinfo");
        async move {
            let of_host: Vec<_> = self
                .users
                .borrow()
                .iter()
                .filter(|(asked, _)| *asked == host)
                .map(|(_, users)| Rc::clone(users))
                .collect();
            for users in of_host {
                users.all_until_now().await;
            }
        }
        .boxed_local()
    }

    fn has_lost_requests(&self, namespace: &str) -> Option<bool> {
        let host = host_name(namespace, "podinfo");
        let users = self.users.borrow();
        let lost = users.iter().filter(|(asked, _)| *asked == host).map(|(_, users)| users.snapshot());
        let lost: Vec<_> = lost.filter(|report| report.failures() > 0).collect();
        lost.iter().for_each(|report| println!("{namespace}: {report}"));
        Some(!lost.is_empty())
    }

    fn answers_to(&self, namespace: &str, headers: &Headers) -> LocalBoxFuture<'_, BTreeSet<String>> {
        let (host, headers) = (host_name(namespace, "podinfo"), header_map(headers));
        async move {
            let client = reqwest::Client::new();
            let mut workloads = BTreeSet::new();
            for _ in 0..WATCHED {
                let request = client.get(GATEWAY).headers(headers.clone()).header("host", &host);
                let answer = request.send().await.unwrap();
                let pod = answer.headers().get("x-pod").and_then(|name| name.to_str().ok()).unwrap_or_default();
                // WORKLOAD-TEMPLATE-POD
                workloads.insert(pod.rsplitn(3, '-').nth(2).unwrap_or_default().to_owned());
            }
            workloads
        }
        .boxed_local()
    }
}
