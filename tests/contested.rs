//! Every two of the systems at one service: the older object goes on, the younger one does nothing, and both say so.

use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::{Value, json};

use crate::support::{World, canary, in_virtual_time};

const SYSTEMS: [&str; 4] = ["Canary", "Canary of 0.1", "Rollout", "BirdWatch"];

/// An object of this system that disposes of Deployment `podinfo`, or of the routes to Service `podinfo`.
fn object(system: &str, name: &str) -> Value {
    let mut object = match system {
        "Canary" => canary("test", "podinfo"),
        "Canary of 0.1" => crate::flagger_v1alpha1::of_the_readme(),
        "Rollout" => crate::steerer::guide(|object| object["kind"] == "Rollout").remove(0),
        _ => {
            let mut object = crate::birdwatch::of_the_readme();
            object["spec"]["service"] = json!("podinfo");
            object
        }
    };
    object["metadata"] = json!({"namespace": "test", "name": name});
    object
}

fn told(world: &World, name: &str) -> Vec<String> {
    let mut events = world.cluster.store().list(&kinds::EVENT, Some("test"));
    events.retain(|event| event["involvedObject"]["name"] == name);
    events.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn the_younger_one_yields(older: &str, younger: &str) {
    let mut world = World::new(1);
    for object in crate::steerer::guide(|object| object["kind"] != "Rollout") {
        world.create(object).await;
    }
    world.start();
    world.create(object(older, "first")).await;
    world.pass(Duration::from_secs(20)).await;
    world.create(object(younger, "second")).await;
    world.pass(Duration::from_secs(20)).await;
    let case = format!("a {younger} after a {older}");
    let (first, second) = (told(&world, "first"), told(&world, "second"));
    let kind = |system: &str| object(system, "any")["kind"].as_str().unwrap().to_lowercase();
    let [yields] = &second[..] else { panic!("{case}: {second:#?}") };
    let expected = format!("of {} first, too, which is older; this {} does nothing until ", kind(older), kind(younger));
    assert!(yields.contains(&expected), "{case}: {yields}");
    let keeps = first.iter().filter(|text| text.starts_with("Found more than one "));
    let keeps: Vec<&String> = keeps.filter(|text| text.contains("second does nothing")).collect();
    assert_eq!(keeps.len(), 1, "{case}: {first:#?}");
    assert!(!first.iter().any(|text| text.contains("which is older")), "{case}: {first:#?}");
}

#[test]
fn of_any_two_systems_at_one_service_the_younger_object_yields_and_both_say_so() {
    for older in SYSTEMS {
        for younger in SYSTEMS {
            in_virtual_time(the_younger_one_yields(older, younger));
        }
    }
}
