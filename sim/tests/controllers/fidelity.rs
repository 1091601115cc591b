//! What Kubernetes itself says of the same Deployment.
//!
//! `kubernetes-1.36.3.txt` is what a real control plane showed at each stage (`tests/real/up`, then the commands that the
//! stages below stand for, with `kubectl`), with ReplicaSets named by the order of their creation. How often a set was
//! changed on the way (`observedGeneration`) is left out: it depends on how fast pods were.

use std::fmt::Write as _;

use aviary_sim::controllers::PodDetail;
use aviary_sim::store::kinds;
use serde_json::{Value, json};

use crate::support::*;

const RECORDED: &str = include_str!("kubernetes-1.36.3.txt");

/// What is seen of the Deployment and its sets, a line each.
fn show(bench: &Bench, stage: &str, names: &mut Vec<String>) -> String {
    let deployment = bench.deployment("podinfo");
    let mut sets = bench.store.list(&kinds::REPLICA_SET, Some(NAMESPACE));
    sets.sort_by_key(|set| set["metadata"]["creationTimestamp"].as_str().unwrap().to_owned());
    for set in &sets {
        let name = set["metadata"]["name"].as_str().unwrap().to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let letter = |name: &str| {
        let position = names.iter().position(|known| known == name).unwrap();
        char::from(b'A' + u8::try_from(position).unwrap())
    };
    let mut status = deployment["status"].clone();
    let conditions = status.as_object_mut().unwrap().remove("conditions").unwrap();
    let revision = revision(&deployment);
    let mut shown = format!("== {stage}\n");
    writeln!(shown, "status {status} generation {} revision {revision}", deployment["metadata"]["generation"]).unwrap();
    for condition in conditions.as_array().unwrap() {
        let field = |name: &str| condition[name].as_str().unwrap();
        let mut message = field("message").to_owned();
        for name in names.iter() {
            message = message.replace(name.as_str(), &letter(name).to_string());
        }
        writeln!(shown, "{} {} {} {message}", field("type"), field("status"), field("reason")).unwrap();
    }
    for set in &sets {
        let annotations: Value = set["metadata"]["annotations"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.split_once('/').unwrap().1.to_owned(), value.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let mut status = set["status"].clone();
        status.as_object_mut().unwrap().remove("observedGeneration");
        let name = set["metadata"]["name"].as_str().unwrap();
        writeln!(shown, "set {} {} {annotations} {status}", letter(name), set["spec"]["replicas"]).unwrap();
    }
    shown
}

#[tokio::test(start_paused = true)]
async fn a_deployment_goes_through_the_stages_of_kubernetes() {
    let bench = Bench::new(PodDetail::Objects);
    let mut names = Vec::new();
    let mut seen = String::new();
    let mut podinfo = deployment("podinfo", 4, "podinfo:1");
    podinfo["spec"]["progressDeadlineSeconds"] = 5.into();
    podinfo["spec"]["revisionHistoryLimit"] = 2.into();
    bench.create(podinfo);
    // Long enough for pods to start, to end, and for the deadline.
    let mut time = 0.0;
    let mut settle = async |stage: &str| {
        time += 60.0;
        bench.at(time).await;
        seen += &show(&bench, stage, &mut names);
    };
    settle("created").await;
    bench.set_image("podinfo", "podinfo:2");
    settle("updated").await;
    let before = bench.deployment("podinfo")["spec"]["template"].clone();
    bench.set_image("podinfo", "podinfo:3-noready");
    settle("stuck").await;
    bench.change("podinfo", |object| object["spec"]["template"] = before);
    settle("undone").await;
    bench.change("podinfo", |object| object["spec"]["paused"] = true.into());
    bench.set_image("podinfo", "podinfo:4");
    bench.scale("podinfo", 2);
    settle("paused").await;
    bench.change("podinfo", |object| {
        object["spec"].as_object_mut().unwrap().remove("paused");
    });
    settle("resumed").await;
    bench.scale("podinfo", 0);
    settle("zero").await;
    bench.change("podinfo", |object| object["spec"]["strategy"] = json!({"type": "Recreate"}));
    bench.scale("podinfo", 2);
    bench.at(450.0).await;
    bench.set_image("podinfo", "podinfo:5");
    settle("recreated").await;
    for (recorded, seen) in RECORDED.split("== ").zip(seen.split("== ")) {
        assert_eq!(seen, recorded);
    }
    assert_eq!(seen.lines().count(), RECORDED.lines().count());
}
