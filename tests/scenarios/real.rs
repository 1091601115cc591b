//! Real components: Kubernetes, istiod, Envoy and Prometheus, with pods that answer and users who ask; all scenarios side by
//! side.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use aviary_loadtest::users::{Options, Users};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use kube::Client;

use super::host::{Headers, Host};
use super::run_all;
use crate::real::{Inside, in_bench};

/// Port 80 of the Gateway `istio-system/public-gateway`.
const GATEWAY: &str = "http://10.99.0.1:18080/";
/// Requests per second of a scenario's users: five of them for a canary with 25 %, of which some fall into every scrape of a
/// second, and not more than a small machine bears from twenty scenarios.
const RATE: f64 = 20.0;
/// Requests whose answers tell where users are led.
const WATCHED: usize = 30;

#[test]
fn on_real_components() {
    in_bench("scenarios::real::on_real_components", async |bench: Inside| {
        let _network = bench.network().await;
        let _aviary = bench.start_aviary(&["--mesh-provider", "istio"]);
        let client = bench.client("admin").await;
        run_all(&Real { client, users: RefCell::default() }).await;
    });
}

struct Real {
    client: Client,
    /// By the host that they ask; they do until they are dropped.
    users: RefCell<Vec<(String, Users)>>,
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

impl Host for Real {
    fn name(&self) -> &'static str {
        "real"
    }

    fn client(&self) -> Client {
        self.client.clone()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn pass(&self, time: Duration) -> LocalBoxFuture<'_, ()> {
        tokio::time::sleep(time).boxed_local()
    }

    fn admit_users(&self, namespace: &str, host: &str, headers: &Headers) -> LocalBoxFuture<'_, ()> {
        let options = Options::new(GATEWAY.parse().unwrap(), RATE).unwrap();
        let host = host_name(namespace, host);
        let users = Users::start(options.host(&host).headers(header_map(headers))).unwrap();
        self.users.borrow_mut().push((host, users));
        std::future::ready(()).boxed_local()
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
