//! The life of pods and what is told of it.

use std::time::Duration;

use aviary_sim::controllers::{PodBehaviour, PodDetail, PodOutcome};
use aviary_sim::store::kinds;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn pods_that_are_deleted_leave_service_at_once_and_are_replaced() {
    let bench = Bench::new(PodDetail::Objects);
    bench.create(deployment("podinfo", 2, "podinfo:1"));
    bench.until_complete("podinfo").await;
    bench.at(10.0).await;
    let victim = pod_name(&bench.pods()[0]);
    // As the API server marks it.
    let mark = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:40Z".into();
    bench.store.update(&kinds::POD, NAMESPACE, &victim, mark).unwrap();
    bench.until("podinfo", "short of a pod", |object| number(object, "readyReplicas") == 1).await;
    assert!(bench.elapsed() < 10.1);
    assert_eq!(bench.images("podinfo"), [("podinfo:1".to_owned(), 1)]);
    assert_eq!(bench.pods().len(), 3, "the replacement starts while the old pod terminates");
    bench.at(11.1).await;
    assert!(bench.pods().iter().all(|pod| pod_name(pod) != victim));
    bench.until_complete("podinfo").await;
    assert!((13.0..13.1).contains(&bench.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn behaviours_can_change_while_pods_run() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.behaviours.set(
            "podinfo:slow",
            PodBehaviour { start_delay: Some(Duration::from_secs(20)), outcome: PodOutcome::Ready },
        );
        bench.create(deployment("podinfo", 2, "podinfo:slow"));
        bench.until_complete("podinfo").await;
        assert!((20.0..20.1).contains(&bench.elapsed()), "{detail:?} {}", bench.elapsed());

        bench.behaviours.set("podinfo:slow", PodBehaviour::new(PodOutcome::NeverReady));
        bench.until("podinfo", "down", |object| number(object, "readyReplicas") == 0).await;
        assert!(bench.images("podinfo").is_empty());
        assert_eq!(reason(&bench.deployment("podinfo"), "Available"), "MinimumReplicasUnavailable");
        bench.behaviours.reset("podinfo:slow");
        bench.until_complete("podinfo").await;
        assert_eq!(bench.images("podinfo"), [("podinfo:slow".to_owned(), 2)]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_pulled_keeps_its_pod_pending() {
    let bench = Bench::new(PodDetail::Objects);
    bench.behaviours.set("missing", PodBehaviour::new(PodOutcome::ImagePullError));
    bench.create(deployment("podinfo", 1, "missing:1"));
    let waiting = || {
        let pods = bench.pods();
        assert_eq!(pods[0]["status"]["phase"], "Pending");
        pods[0]["status"]["containerStatuses"][0]["state"]["waiting"].clone()
    };
    sleep(Duration::from_secs(5)).await;
    let error = "rpc error: code = NotFound desc = failed to pull and unpack image \"missing:1\": failed to resolve \
                 reference \"missing:1\": missing:1: not found";
    assert_eq!(waiting(), json!({"reason": "ErrImagePull", "message": error}));
    sleep(Duration::from_secs(25)).await;
    let message = format!("Back-off pulling image \"missing:1\": ErrImagePull: {error}");
    assert_eq!(waiting(), json!({"reason": "ImagePullBackOff", "message": message}));
    assert_eq!(
        pod_events(&bench),
        [
            "Normal Scheduled".to_owned(),
            "Normal Pulling".to_owned(),
            "Warning Failed".to_owned(),
            "Warning Failed".to_owned(),
            "Normal BackOff".to_owned(),
            "Warning Failed".to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn everything_of_a_deleted_deployment_goes() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.create(deployment("podinfo", 2, "podinfo:1"));
        bench.until_complete("podinfo").await;
        bench.store.delete(&kinds::DEPLOYMENT, NAMESPACE, "podinfo").unwrap();
        sleep(Duration::from_secs(2)).await;
        assert!(bench.images("podinfo").is_empty());
        assert!(bench.pods().is_empty());
        assert!(bench.store.list(&kinds::REPLICA_SET, None).is_empty());

        // One of the same name starts from nothing.
        bench.create(deployment("podinfo", 1, "podinfo:1"));
        let done = bench.until_complete("podinfo").await;
        assert_eq!(revision(&done), "1");
        assert_eq!(bench.images("podinfo"), [("podinfo:1".to_owned(), 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn events_tell_what_the_controllers_did() {
    let bench = Bench::new(PodDetail::Objects);
    bench.create(deployment("podinfo", 1, "podinfo:1"));
    bench.until_complete("podinfo").await;
    let events = bench.store.list(&kinds::EVENT, Some(NAMESPACE));
    let scaled = events.iter().find(|event| event["reason"] == "ScalingReplicaSet").unwrap();
    assert_eq!(scaled["involvedObject"]["kind"], "Deployment");
    let message = scaled["message"].as_str().unwrap();
    assert!(message.starts_with("Scaled up replica set podinfo-") && message.ends_with(" from 0 to 1"), "{message}");
    assert!(events.iter().any(|event| event["reason"] == "SuccessfulCreate"));
}

/// Type and reason of the events of pods, in the order in which they were stored.
fn pod_events(bench: &Bench) -> Vec<String> {
    let mut events = bench.store.list(&kinds::EVENT, Some(NAMESPACE));
    events.retain(|event| event["involvedObject"]["kind"] == "Pod");
    events.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap());
    let line = |event: &Value| format!("{} {}", event["type"].as_str().unwrap(), event["reason"].as_str().unwrap());
    events.iter().map(|event| line(event)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_told_of_from_its_node_to_its_end() {
    let bench = Bench::new(PodDetail::Objects);
    bench.create(deployment("podinfo", 1, "podinfo:1"));
    bench.until_complete("podinfo").await;
    let started = ["Normal Scheduled", "Normal Pulled", "Normal Created", "Normal Started"];
    assert_eq!(pod_events(&bench), started);
    let events = bench.store.list(&kinds::EVENT, Some(NAMESPACE));
    let event = |reason: &str| events.iter().find(|event| event["reason"] == reason).unwrap();
    assert_eq!(event("Scheduled")["source"]["component"], "default-scheduler");
    let message = event("Scheduled")["message"].as_str().unwrap();
    assert!(message.starts_with("Successfully assigned test/podinfo-") && message.ends_with(" to node-1"), "{message}");
    assert_eq!(event("Started")["source"], json!({"component": "kubelet", "host": "node-1"}));
    assert_eq!(event("Started")["involvedObject"]["fieldPath"], "spec.containers{app}");
    bench.scale("podinfo", 0);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(pod_events(&bench)[4..], ["Normal Killing"]);
}

#[tokio::test(start_paused = true)]
async fn crashes_and_failed_probes_are_told_as_warnings() {
    let bench = Bench::new(PodDetail::Objects);
    bench.create(deployment("podinfo", 1, "podinfo:crash"));
    bench.at(20.0).await;
    // Started at 3 s, restarted after 10 s more: the same again raises the counts.
    let told = ["Normal Scheduled", "Normal Pulled", "Normal Created", "Normal Started", "Warning BackOff"];
    assert_eq!(pod_events(&bench), told);
    let events = bench.store.list(&kinds::EVENT, Some(NAMESPACE));
    let back_off = events.iter().find(|event| event["reason"] == "BackOff").unwrap();
    assert_eq!(back_off["count"], 2);
    assert_eq!(back_off["firstTimestamp"], "2026-01-01T00:00:03Z");
    assert_eq!(back_off["lastTimestamp"], "2026-01-01T00:00:13Z");
    let bench = Bench::new(PodDetail::Objects);
    bench.create(deployment("podinfo", 1, "podinfo:noready"));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(pod_events(&bench)[4..], ["Warning Unhealthy"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_killed_at_the_end_of_its_grace_period() {
    let clock = aviary_sim::clock::Clock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let store = aviary_sim::store::Store::new(clock, 7);
    let options = aviary_sim::controllers::ControllerOptions {
        termination_delay: Duration::from_secs(60),
        ..aviary_sim::controllers::ControllerOptions::default()
    };
    let _workloads = aviary_sim::controllers::start(store.clone(), clock, options);
    let mut podinfo = deployment("podinfo", 1, "podinfo:1");
    podinfo["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5.into();
    store.create(&kinds::DEPLOYMENT, podinfo).unwrap();
    sleep(Duration::from_secs(10)).await;
    store.update(&kinds::DEPLOYMENT, NAMESPACE, "podinfo", |object| object["spec"]["replicas"] = 0.into()).unwrap();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(store.list(&kinds::POD, None).len(), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(store.list(&kinds::POD, None).len(), 0);
}
