//! Checks that cannot be made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aviary_actors::transport::{HttpResponse, NoAnswer};
use aviary_providers::HttpRequest;
use aviary_sim::store::kinds;
use futures::FutureExt;
use serde_json::{Value, json};

use crate::support::{World, in_virtual_time};

const QUERY: &str = "sum(rate(istio_requests_total{destination_workload=\"{{ target }}\"}[{{ interval }}]))";

fn template(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "MetricTemplate",
        "metadata": {"namespace": "test", "name": "rate"},
        "spec": {"provider": {"type": "prometheus", "address": "http://prometheus:9090"}, "query": QUERY},
    });
    change(&mut object);
    object
}

/// With this template (or none) a bootstrap and every check round fail with a text that has these parts, told once; the
/// other canary is released meanwhile; and with a sound template the release goes through.
fn check_fails(object: Option<Value>, parts: &[&str], fix: impl AsyncFnOnce(&World)) {
    in_virtual_time(async {
        let mut world = World::new(1);
        if let Some(object) = object
            && let Err(error) = world.try_create(object.clone()).await
        {
            assert!(matches!(&error, kube::Error::Api(status) if status.code == 422), "{error}");
            world.loosen("metrictemplates.flagger.app");
            world.create(object).await;
        }
        world
            .begin_beside_another(|canary| {
                let analysis = &mut canary["spec"]["analysis"];
                analysis["threshold"] = json!(1000);
                analysis["metrics"] = json!([
                    {"name": "rate", "interval": "1m", "templateRef": {"name": "rate"}, "thresholdRange": {"min": 0}},
                ]);
            })
            .await;
        assert_eq!(world.phase("podinfo"), "Initialized", "reported, and not in the way");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("three failed checks", || world.status("podinfo")["failedChecks"] == 3).await;
        world.release_the_other().await;
        let events = world.events("podinfo");
        let told: Vec<&String> = events.iter().filter(|event| parts.iter().all(|part| event.contains(part))).collect();
        // Once while bootstrapping, where Flagger says so too if it is the backend; once for all rounds.
        let (bootstrap, rounds): (Vec<&String>, Vec<&String>) =
            told.into_iter().partition(|event| event.starts_with("Error checking metric providers: "));
        assert!(bootstrap.len() <= 1, "{events:#?}");
        assert_eq!(rounds.len(), 1, "{}", world.story());
        assert_eq!(world.status("podinfo")["canaryWeight"], 10);
        let calls = world.calls_in_ten_minutes().await;
        assert!(calls <= 2 * 61, "a status and an event for each round, not {calls} calls");

        fix(&world).await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.condition("podinfo", "Accepted"), None);
    });
}

async fn replace_template(world: &World) {
    if world.get(&kinds::METRIC_TEMPLATE, "rate").is_some() {
        world.delete(&kinds::METRIC_TEMPLATE, "rate").await;
    }
    world.create(template(|_| {})).await;
}

#[test]
fn a_missing_template() {
    let told = "Metric template rate.test error: metrictemplate.flagger.app \"rate\" not found";
    check_fails(None, &[told], replace_template);
}

#[test]
fn a_template_with_a_broken_query() {
    let broken = template(|object| object["spec"]["query"] = json!("sum({{ target "));
    check_fails(Some(broken), &["Metric template rate.test query render error: "], replace_template);
}

#[test]
fn a_template_variable_that_is_not_given() {
    let wants = template(|object| object["spec"]["query"] = json!("sum({reporter=\"{{ variables.reporter }}\"})"));
    check_fails(Some(wants), &["Metric template rate.test query render error: ", "reporter"], async |world: &World| {
        let metric = json!({
            "name": "rate", "interval": "1m", "templateRef": {"name": "rate"}, "thresholdRange": {"min": 0},
            "templateVariables": {"reporter": "destination"},
        });
        let query = "sum(rate(istio_requests_total{reporter=\"{{ variables.reporter }}\"}[1m]))";
        world.change(&kinds::METRIC_TEMPLATE, "rate", |object| object["spec"]["query"] = json!(query));
        world.patch_canary("podinfo", json!({"analysis": {"metrics": [metric]}})).await;
    });
}

#[test]
fn a_template_whose_secret_is_missing() {
    let wants = template(|object| object["spec"]["provider"]["secretRef"] = json!({"name": "login"}));
    let told = "Metric template rate.test secret login error: secrets \"login\" not found";
    check_fails(Some(wants), &[told], async |world: &World| {
        world
            .create(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "test", "name": "login"},
                "stringData": {"username": "u", "password": "p"},
            }))
            .await;
    });
}

#[test]
fn a_template_of_an_unknown_provider() {
    let unknown = template(|object| object["spec"]["provider"]["type"] = json!("tarot"));
    check_fails(Some(unknown), &["Metric template rate.test provider tarot error: "], replace_template);
}

/// A query that the backend refuses is the check's fault, not the backend's.
#[test]
fn a_query_that_the_backend_refuses() {
    let refused = template(|object| object["spec"]["query"] = json!("sum(rate(istio_requests_total[1m])"));
    check_fails(Some(refused), &["Metric query failed for rate: "], replace_template);
}

/// The monitoring is away: the canary holds and says so, and goes on by itself when it is back.
#[test]
fn an_unreachable_prometheus() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let is_back = Arc::new(AtomicBool::new(false));
        let (prometheus, switch) = (world.prometheus.clone(), is_back.clone());
        let service = Arc::new(move |request: HttpRequest| {
            let (prometheus, is_back) = (prometheus.clone(), switch.load(Ordering::Relaxed));
            async move {
                if !is_back {
                    return Err(NoAnswer("connection failed: Connection refused".to_owned()));
                }
                let path = request.url.trim_start_matches("http://nowhere:9090");
                let answer = prometheus.handle(&request.method, path, &request.body).await;
                let (status, body) = answer.map_err(|error| NoAnswer(error.to_string()))?;
                Ok(HttpResponse { status: status.as_u16(), retry_after: None, body: body.into_bytes() })
            }
            .boxed()
        });
        world.services = std::mem::take(&mut world.services).and("nowhere", service);
        world
            .begin_beside_another(|canary| {
                canary["spec"]["metricsServer"] = json!("http://nowhere:9090");
            })
            .await;
        world.assert_told_once(&["Error checking metric providers: ", "Connection refused"]);
        assert_eq!(world.phase("podinfo"), "Initialized");

        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("the condition", || world.condition("podinfo", "MetricsAvailable").is_some()).await;
        let before = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(540)).await;
        let calls = world.cluster.calls().since(&before).of_client(crate::support::AGENT);
        assert!(calls.writes() + calls.event_writes() <= 2, "nothing is written while it holds: {calls}");
        assert_eq!(world.status("podinfo")["canaryWeight"], 10);
        assert_eq!(world.status("podinfo")["failedChecks"], 0, "an outage is no verdict");
        world.assert_told_once(&[
            "Hold podinfo.test at canary weight 10, metrics are unavailable",
            "Connection refused",
        ]);
        assert_eq!(world.condition("podinfo", "MetricsAvailable").expect("there")["status"], "False");

        is_back.store(true, Ordering::Relaxed);
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        world.assert_told_once(&["Metrics are available again"]);
        assert_eq!(world.condition("podinfo", "MetricsAvailable"), None);
    });
}

/// The other's release is judged by its own server meanwhile.
#[test]
fn an_unreachable_prometheus_of_one_canary_is_nobody_elses_problem() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world
            .begin_beside_another(|canary| {
                canary["spec"]["metricsServer"] = json!("http://nowhere:9090");
            })
            .await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("the condition", || world.condition("podinfo", "MetricsAvailable").is_some()).await;
        world.release_the_other().await;
        assert_eq!(world.status("podinfo")["canaryWeight"], 10);
        assert_eq!(world.condition("other", "MetricsAvailable"), None);
    });
}
