//! `aviary sandbox` and `aviary run` as processes, faster than real time; all scenarios side by side.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use kube::Client;
use serde_json::{Value, json};

use super::embedded::USERS;
use super::host::{Headers, Host};
use super::{run_all, run_all_with_kills};
use crate::real::{say_aloud, turn};
use crate::sandbox::Sandbox;
use crate::support::process::{Operator, PATIENCE};

/// An interval of 10 s takes 2.5 s, and the longest scenario half a minute. Debug builds of both processes on a busy machine of
/// two cores answer within that; with 20 they do not.
const SPEED: u32 = 4;

/// Requests per second of those whose way is asked for, for two seconds: the most that a load tester sends.
const WATCHED_USERS: f64 = 20_000.0;

/// Nobody reads what the operator says before it ends, and a pipe holds little.
const ARGUMENTS: &[&str] = &["-log-level=error", "-kubeconfig-qps=0"];

#[test]
fn on_the_embedded_cluster_over_http() {
    alone("on_the_embedded_cluster_over_http", async { run_all(&OverHttp::start().await).await });
}

#[test]
fn on_the_embedded_cluster_over_http_with_kills() {
    alone("on_the_embedded_cluster_over_http_with_kills", async { run_all_with_kills(&OverHttp::start().await).await });
}

/// All scenarios at once keep a small machine busy, and are told in real time: not beside a bench of real components.
fn alone(test: &str, story: impl Future<Output = ()>) {
    let _turn = turn();
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(story);
    say_aloud(&format!("TIME http scenarios::sandbox::{test} {:.0} s", began.elapsed().as_secs_f64()));
}

struct OverHttp {
    client: Client,
    operator: RefCell<Operator>,
    sandbox: Sandbox,
}

impl OverHttp {
    async fn start() -> OverHttp {
        let sandbox = Sandbox::start(&[&format!("--speed={SPEED}"), &format!("--load={USERS}")]);
        let client = sandbox.client().await;
        let operator = sandbox.operator(ARGUMENTS);
        operator.wait_ready().await;
        OverHttp { client, operator: RefCell::new(operator), sandbox }
    }

    /// Asks the load tester, which in a sandbox sends users' requests, for some.
    async fn send(&self, namespace: &str, host: &str, headers: &Headers, rate: f64, time: Duration) {
        let headers: String = headers.iter().map(|(name, value)| format!("-H '{name}: {value}' ")).collect();
        let seconds = time.as_secs();
        let command = format!("hey -z {seconds}s -c 1 -q {rate} {headers}http://{host}.{namespace}/");
        let payload = json!({"name": "podinfo", "namespace": namespace, "metadata": {"cmd": command}});
        let server = self.sandbox.server();
        let tester = format!("{server}/api/v1/namespaces/{namespace}/services/flagger-loadtester/proxy/");
        let answer = reqwest::Client::new().post(tester).body(payload.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 202);
    }

    /// Requests that each workload answered until the last scrape.
    async fn answered(&self, namespace: &str) -> BTreeMap<String, f64> {
        let query = format!(
            "sum by (destination_workload) (istio_requests_total{{reporter=\"destination\",destination_workload_namespace=\"{namespace}\"}})"
        );
        let url = reqwest::Url::parse_with_params(
            &format!("{}/api/v1/query", self.sandbox.prometheus()),
            [("query", query.as_str())],
        );
        let answer = reqwest::get(url.unwrap()).await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let read = |series: &Value| {
            let name = series["metric"]["destination_workload"].as_str().unwrap().to_owned();
            (name, series["value"][1].as_str().unwrap().parse().unwrap())
        };
        series.iter().map(read).collect()
    }
}

impl Host for OverHttp {
    fn name(&self) -> &'static str {
        "over HTTP"
    }

    fn client(&self) -> Client {
        self.client.clone()
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn kill_and_start_operator(&self) -> LocalBoxFuture<'_, ()> {
        // The one before is killed when it is dropped.
        drop(self.operator.replace(self.sandbox.operator(ARGUMENTS)));
        std::future::ready(()).boxed_local()
    }

    fn pass(&self, time: Duration) -> LocalBoxFuture<'_, ()> {
        tokio::time::sleep(time / SPEED).boxed_local()
    }

    fn admit_users(&self, namespace: &str, host: &str, headers: &Headers) -> LocalBoxFuture<'_, ()> {
        let (namespace, host, headers) = (namespace.to_owned(), host.to_owned(), headers.clone());
        async move {
            if !headers.is_empty() {
                self.send(&namespace, &host, &headers, USERS, Duration::from_secs(36_000)).await;
            }
        }
        .boxed_local()
    }

    /// The metrics count copies as well.
    fn has_lost_requests(&self, _: &str) -> Option<bool> {
        None
    }

    fn answers_to(&self, namespace: &str, headers: &Headers) -> LocalBoxFuture<'_, BTreeSet<String>> {
        let (namespace, mut headers) = (namespace.to_owned(), headers.clone());
        headers.insert("x-watched".to_owned(), "yes".to_owned());
        async move {
            let before = self.answered(&namespace).await;
            self.send(&namespace, "podinfo", &headers, WATCHED_USERS, Duration::from_secs(2)).await;
            // The next scrape, at most five seconds later.
            self.pass(Duration::from_secs(8)).await;
            let after = self.answered(&namespace).await;
            let more = |name: &String| after[name] - before.get(name).copied().unwrap_or_default();
            // All others together send some 2,000 meanwhile.
            after.keys().filter(|name| more(name) > WATCHED_USERS / 4.0).cloned().collect()
        }
        .boxed_local()
    }
}
