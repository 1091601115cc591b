//! Pods that no node takes.

use aviary_sim::controllers::PodDetail;
use aviary_sim::store::kinds;
use serde_json::{Value, json};

use crate::support::*;

/// The scheduler's whole message for a reason.
fn refusal(reason: &str) -> String {
    format!(
        "0/1 nodes are available: 1 node(s) {reason}. no new claims to deallocate, preemption: 0/1 nodes are available: \
         1 Preemption is not helpful for scheduling."
    )
}

/// The messages of the scheduler's warnings.
fn warnings(bench: &Bench) -> Vec<String> {
    let mut events = bench.store.list(&kinds::EVENT, Some(NAMESPACE));
    events.retain(|event| event["reason"] == "FailedScheduling");
    for event in &events {
        assert_eq!((&event["type"], &event["source"]["component"]), (&json!("Warning"), &json!("default-scheduler")));
    }
    events.iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

fn assert_pending(pod: &Value, message: &str) {
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["spec"].get("nodeName"), None);
    let scheduled = condition(pod, "PodScheduled");
    assert_eq!((&scheduled["status"], &scheduled["reason"]), (&json!("False"), &json!("Unschedulable")));
    assert_eq!(scheduled["message"], message);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_selector_or_affinity_no_node_meets_waits_and_says_why() {
    let terms = json!([{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]);
    let affinity =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    for (field, value) in [("nodeSelector", json!({"disk": "ssd"})), ("affinity", affinity)] {
        let bench = Bench::new(PodDetail::Objects);
        let mut object = deployment("podinfo", 1, "podinfo:1");
        object["spec"]["template"]["spec"][field] = value;
        bench.create(object);
        bench.at(30.0).await;
        let message = refusal("didn't match Pod's node affinity/selector");
        assert_pending(&bench.pods()[0], &message);
        assert_eq!(warnings(&bench), [message], "{field}: told once");

        let label = |node: &mut Value| node["metadata"]["labels"]["disk"] = "ssd".into();
        bench.store.update(&kinds::NODE, "", "node-1", label).unwrap();
        bench.until_complete("podinfo").await;
        assert!((33.0..33.1).contains(&bench.elapsed()), "{field}: it starts when it has a node: {}", bench.elapsed());
        assert_eq!(condition(&bench.pods()[0], "PodScheduled")["status"], "True");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_node_leaves_new_pods_pending_with_an_event() {
    let bench = Bench::new(PodDetail::Objects);
    let cordon = |cordoned: bool| {
        let change = |node: &mut Value| node["spec"]["unschedulable"] = cordoned.into();
        bench.store.update(&kinds::NODE, "", "node-1", change).unwrap();
    };
    bench.at(1.0).await;
    cordon(true);
    bench.create(deployment("podinfo", 1, "podinfo:1"));
    bench.at(20.0).await;
    assert_pending(&bench.pods()[0], &refusal("were unschedulable"));
    assert_eq!(warnings(&bench), [refusal("were unschedulable")]);
    cordon(false);
    bench.until_complete("podinfo").await;
    assert!((23.0..23.1).contains(&bench.elapsed()), "{}", bench.elapsed());
    let events = bench.store.list(&kinds::EVENT, Some(NAMESPACE));
    assert_eq!(events.iter().filter(|event| event["reason"] == "Scheduled").count(), 1);
}
