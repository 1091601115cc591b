//! Autoscalers.

use std::time::Duration;

use aviary_sim::cluster::{Cluster, ClusterOptions};
use aviary_sim::controllers::{ControllerOptions, PodDetail};
use aviary_sim::store::kinds;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn an_autoscaler_stays_in_its_bounds_and_rests_at_zero() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.store.create(&kinds::HPA, autoscaler(2, 10)).unwrap();
        bench.create(deployment("podinfo", 1, "podinfo:1"));
        let raised = bench.until_complete("podinfo").await;
        assert_eq!(raised["spec"]["replicas"], 2, "{detail:?}: minReplicas, without any usage");

        bench.at(100.0).await;
        bench.utilisation.set_utilisation(NAMESPACE, "podinfo", 120);
        // 2 pods at 120 % of a 50 % target: 5 are wanted, and twice as many or four may come in one period.
        bench.at(101.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 4, "{detail:?}");
        bench.at(114.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 4, "not before the next period");
        bench.at(116.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 8, "twice as many");
        bench.at(146.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 10, "maxReplicas");
        let status = bench.store.get(&kinds::HPA, NAMESPACE, "podinfo").unwrap();
        assert_eq!(status["status"]["desiredReplicas"], 10);
        assert_eq!(reason(&status, "ScalingLimited"), "TooManyReplicas");
        assert_eq!(reason(&status, "ScalingActive"), "ValidMetricFound");

        bench.at(200.0).await;
        bench.utilisation.set_utilisation(NAMESPACE, "podinfo", 5);
        bench.at(300.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 10, "scaling down is stabilised");
        bench.at(540.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 2, "minReplicas");

        bench.scale("podinfo", 0);
        bench.at(600.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 0);
        let status = bench.store.get(&kinds::HPA, NAMESPACE, "podinfo").unwrap();
        assert_eq!(reason(&status, "ScalingActive"), "ScalingDisabled");
        bench.scale("podinfo", 20);
        bench.at(601.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 10, "maxReplicas for a size set by hand");
    }
}

/// A cluster in which a request costs 5 ms of CPU, with Deployment and Service `podinfo` of which each pod asks for 100m.
fn loaded_cluster(pods: PodDetail, requests: &Value) -> Cluster {
    let options = ControllerOptions { pods, ..ControllerOptions::default() };
    options.utilisation.set_cost_per_request(Duration::from_millis(5));
    let cluster = Cluster::new(ClusterOptions { controllers: Some(options), ..ClusterOptions::default() });
    let store = cluster.store();
    store.create(&kinds::NAMESPACE, json!({"metadata": {"name": NAMESPACE}})).unwrap();
    let mut podinfo = deployment("podinfo", 2, "podinfo:1");
    podinfo["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": requests});
    store.create(&kinds::DEPLOYMENT, podinfo).unwrap();
    let service =
        json!({"metadata": {"name": "podinfo", "namespace": NAMESPACE}, "spec": {"selector": {"app": "podinfo"}}});
    store.create(&kinds::SERVICE, service).unwrap();
    store.create(&kinds::HPA, autoscaler(2, 10)).unwrap();
    cluster
}

fn replicas(cluster: &Cluster) -> Value {
    cluster.store().get(&kinds::DEPLOYMENT, NAMESPACE, "podinfo").unwrap()["spec"]["replicas"].clone()
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_follows_the_load_of_the_users() {
    for detail in BOTH {
        let cluster = loaded_cluster(detail, &json!({"cpu": "100m"}));
        cluster.traffic().set_load(NAMESPACE, "podinfo", 20.0);
        sleep(Duration::from_secs(60)).await;
        // 20 requests of 5 ms are 100m: half of what the two pods ask for, which is the target.
        assert_eq!(replicas(&cluster), 2, "{detail:?}");
        let at = cluster.clock().now() + Duration::from_secs(60);
        cluster.traffic().set_load_at(at, NAMESPACE, "podinfo", 60.0);
        sleep(Duration::from_secs(59)).await;
        assert_eq!(replicas(&cluster), 2, "{detail:?}: not yet");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(replicas(&cluster), 6, "{detail:?}: 300m, 50m for each pod");
        let status = cluster.store().get(&kinds::HPA, NAMESPACE, "podinfo").unwrap();
        let current = &status["status"]["currentMetrics"][0]["resource"]["current"];
        assert_eq!(*current, json!({"averageUtilization": 50, "averageValue": "50m"}), "{detail:?}");
        // As long as nothing changes nothing is looked at.
        let before = cluster.store().revision();
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(cluster.store().revision(), before, "{detail:?}");
        cluster.traffic().set_load(NAMESPACE, "podinfo", 0.0);
        sleep(Duration::from_secs(120)).await;
        assert_eq!(replicas(&cluster), 6, "{detail:?}: stabilised");
        sleep(Duration::from_secs(240)).await;
        assert_eq!(replicas(&cluster), 2, "{detail:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_says_what_it_misses_once() {
    let cluster = loaded_cluster(PodDetail::Objects, &json!({"memory": "1Gi"}));
    cluster.traffic().set_load(NAMESPACE, "podinfo", 50.0);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(replicas(&cluster), 2);
    let autoscaler = cluster.store().get(&kinds::HPA, NAMESPACE, "podinfo").unwrap();
    let active = condition(&autoscaler, "ScalingActive");
    assert_eq!((&active["status"], &active["reason"]), (&json!("False"), &json!("FailedGetResourceMetric")));
    assert_eq!(
        active["message"],
        "the HPA was unable to compute the replica count: failed to get cpu utilization: missing request for cpu in \
         container app of Pod podinfo"
    );
    let events = cluster.store().list(&kinds::EVENT, Some(NAMESPACE));
    let told = |event: &Value| event["message"].as_str().unwrap().contains("missing request for cpu");
    let failures = events.iter().filter(|event| event["reason"] == "FailedComputeMetricsReplicas" && told(event));
    assert_eq!(failures.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_without_metrics_says_so() {
    let bench = Bench::new(PodDetail::Objects);
    bench.store.create(&kinds::HPA, autoscaler(2, 10)).unwrap();
    bench.create(deployment("podinfo", 3, "podinfo:1"));
    bench.until_complete("podinfo").await;
    let autoscaler = || bench.store.get(&kinds::HPA, NAMESPACE, "podinfo").unwrap();
    let status = autoscaler()["status"].clone();
    assert_eq!((&status["currentReplicas"], &status["desiredReplicas"]), (&json!(3), &json!(0)));
    assert_eq!(status["currentMetrics"], json!([{"type": ""}]));
    assert_eq!(reason(&autoscaler(), "AbleToScale"), "SucceededGetScale");
    assert_eq!(
        condition(&autoscaler(), "ScalingActive")["message"],
        "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for \
         resource cpu: no metrics returned from resource metrics API"
    );
    let reasons = || {
        let mut events = bench.store.list(&kinds::EVENT, Some(NAMESPACE));
        events.retain(|event| event["involvedObject"]["kind"] == "HorizontalPodAutoscaler");
        events.iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let told = reasons();
    assert_eq!(told.iter().filter(|reason| *reason == "FailedGetResourceMetric").count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|reason| *reason == "FailedComputeMetricsReplicas").count(), 1, "{told:?}");
    bench.utilisation.set_utilisation(NAMESPACE, "podinfo", 50);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(reason(&autoscaler(), "ScalingActive"), "ValidMetricFound");
    assert_eq!(autoscaler()["status"]["desiredReplicas"], 3);
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_of_nothing_shows_no_metric() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.store.create(&kinds::HPA, autoscaler(1, 10)).unwrap();
        bench.create(deployment("podinfo", 2, "podinfo:1"));
        bench.utilisation.set_utilisation(NAMESPACE, "podinfo", 50);
        bench.until_complete("podinfo").await;
        bench.at(30.0).await;
        let status = || bench.store.get(&kinds::HPA, NAMESPACE, "podinfo").unwrap();
        assert_eq!(status()["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"], 50);
        bench.scale("podinfo", 0);
        bench.at(60.0).await;
        let status = status();
        assert_eq!(status["status"].get("currentMetrics"), None, "{detail:?}");
        assert_eq!(status["status"]["currentReplicas"], 0);
        let active = condition(&status, "ScalingActive");
        assert_eq!((&active["status"], &active["reason"]), (&json!("False"), &json!("ScalingDisabled")));
    }
}
