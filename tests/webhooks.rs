//! Webhooks and alerts: real actors, and an endpoint in process that answers as told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aviary_actors::transport::HttpResponse;
use aviary_providers::HttpRequest;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;
use futures::FutureExt;
use serde_json::{Value, json};

use crate::support::{AGENT, World, canary, deployment, in_virtual_time};

/// An endpoint that answers 200 unless told otherwise, and remembers what it was asked.
#[derive(Clone, Default)]
struct Endpoint {
    answers: Arc<Mutex<BTreeMap<String, u16>>>,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Endpoint {
    fn answer(&self, path: &str, status: u16) {
        self.answers.lock().unwrap().insert(path.to_owned(), status);
    }

    fn calls(&self, path: &str) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(called, _)| called == path).map(|(_, body)| body.clone()).collect()
    }

    fn join(&self, world: &mut World, name: &str) {
        let endpoint = self.clone();
        let service = Arc::new(move |request: HttpRequest| {
            let path = request.url.rsplit('/').next().unwrap_or_default().to_owned();
            let status = endpoint.answers.lock().unwrap().get(&path).copied().unwrap_or(200);
            let body = serde_json::from_slice(&request.body).unwrap_or_default();
            endpoint.calls.lock().unwrap().push((path, body));
            std::future::ready(Ok(HttpResponse { status, retry_after: None, body: b"secret".to_vec() })).boxed()
        });
        world.services = std::mem::take(&mut world.services).and(name, service);
    }
}

fn message(call: &Value) -> String {
    call["metadata"]["eventMessage"].as_str().unwrap().to_owned()
}

fn hook(kind: &str) -> Value {
    json!({"name": format!("my-{kind}"), "type": kind, "url": format!("http://hooks.test/{kind}"), "metadata": {"team": "a"}})
}

async fn start_with_hooks(world: &mut World, endpoint: &Endpoint, hooks: &[&str], change: impl FnOnce(&mut Value)) {
    endpoint.join(world, "hooks.test");
    let mut object = canary("test", "podinfo");
    object["spec"]["analysis"]["webhooks"] = hooks.iter().map(|kind| hook(kind)).collect();
    change(&mut object);
    world.initialize(object).await;
}

#[test]
fn every_hook_is_called_when_its_time_comes() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let endpoint = Endpoint::default();
        endpoint.answer("rollback", 500);
        let hooks = [
            "confirm-rollout",
            "pre-rollout",
            "rollout",
            "confirm-traffic-increase",
            "confirm-promotion",
            "post-rollout",
            "rollback",
            "event",
        ];
        start_with_hooks(&mut world, &endpoint, &hooks, |canary| {
            canary["spec"]["analysis"]["stepWeight"] = json!(100);
            canary["spec"]["analysis"]["maxWeight"] = json!(100);
            canary["spec"]["analysis"]["stepWeightPromotion"] = json!(50);
        })
        .await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;

        // Event hooks hear every event, in order, with the phase that Flagger gives it; Kubernetes counts the second of two
        // equal ones.
        let heard = endpoint.calls("event");
        let told: Vec<String> = heard.iter().map(message).collect();
        let first = told.iter().position(|event| event.starts_with("Initialization done!")).unwrap();
        let with_phase = |call: &Value| format!("{}: {}", call["phase"].as_str().unwrap(), message(call));
        assert_eq!(
            heard[first..].iter().map(with_phase).collect::<Vec<_>>(),
            [
                "Initialized: Initialization done! podinfo.test",
                "Initialized: Confirm-rollout check my-confirm-rollout passed",
                "Progressing: New revision detected! Scaling up podinfo.test",
                "Progressing: Rollback hook my-rollback not signaling a rollback",
                "Progressing: Starting canary analysis for podinfo.test",
                "Progressing: Pre-rollout check my-pre-rollout passed",
                "Progressing: Confirm-traffic-increase check my-confirm-traffic-increase passed",
                "Progressing: Advance podinfo.test canary weight 100",
                "Progressing: Confirm-traffic-increase check my-confirm-traffic-increase passed",
                "Progressing: Confirm-promotion check my-confirm-promotion passed",
                "Progressing: Copying podinfo.test template spec to podinfo-primary.test",
                "Promoting: Advance podinfo.test primary weight 50",
                "Promoting: Advance podinfo.test primary weight 100",
                "Succeeded: Post-rollout check my-post-rollout passed",
                "Succeeded: Promotion completed! Scaling down podinfo.test",
            ]
        );
        // The first revision has a checksum when it is told, every other one once the status has it.
        let checksums: Vec<&Value> = heard[first..first + 4].iter().map(|call| &call["checksum"]).collect();
        assert_eq!((checksums[0], checksums[1]), (checksums[1], checksums[2]));
        assert_ne!(checksums[2], checksums[3]);
        let counts: Vec<usize> = hooks[..6].iter().map(|kind| endpoint.calls(kind).len()).collect();
        assert_eq!(counts, [1, 1, 1, 2, 1, 1]);
        let confirm = &endpoint.calls("confirm-rollout")[0];
        assert_eq!(confirm["phase"], "Initialized");
        assert_eq!((&confirm["name"], &confirm["metadata"]["team"]), (&json!("podinfo"), &json!("a")));
        assert_eq!(endpoint.calls("post-rollout")[0]["phase"], "Succeeded");
        let recorded: BTreeSet<String> = world.events("podinfo").into_iter().collect();
        assert_eq!(recorded, told.into_iter().collect());
    });
}

#[test]
fn a_closed_gate_holds_tells_once_and_is_asked_again_each_interval() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let endpoint = Endpoint::default();
        let gates = ["confirm-rollout", "confirm-traffic-increase", "confirm-promotion"];
        gates.iter().for_each(|gate| endpoint.answer(gate, 403));
        start_with_hooks(&mut world, &endpoint, &gates, |_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");

        world.wait_for_phase("podinfo", "Waiting").await;
        world.pass(Duration::from_secs(95)).await;
        assert_eq!(world.phase("podinfo"), "Waiting");
        let asked = endpoint.calls("confirm-rollout").len();
        assert!((9..=11).contains(&asked), "asked {asked} times in 95 s");
        endpoint.answer("confirm-rollout", 200);
        world.wait_for_phase("podinfo", "Progressing").await;

        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.status("podinfo")["canaryWeight"], 0, "no increase without approval");
        endpoint.answer("confirm-traffic-increase", 200);
        world.wait_for_phase("podinfo", "WaitingPromotion").await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.status("podinfo")["canaryWeight"], 50);
        endpoint.answer("confirm-promotion", 200);
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;

        let events = world.events("podinfo");
        for text in [
            "Halt podinfo.test advancement waiting for approval my-confirm-rollout",
            "Halt podinfo.test advancement waiting for traffic increase approval my-confirm-traffic-increase",
            "Halt podinfo.test advancement waiting for promotion approval my-confirm-promotion",
        ] {
            assert_eq!(events.iter().filter(|event| *event == text).count(), 1, "{text}\n{}", world.story());
        }
        assert!(!world.story().contains("secret"), "bodies of endpoints never reach an event");
    });
}

#[test]
fn a_rollback_hook_rolls_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let endpoint = Endpoint::default();
        endpoint.answer("rollback", 404);
        start_with_hooks(&mut world, &endpoint, &["rollback"], |_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("half way", || world.status("podinfo")["canaryWeight"] == 20).await;
        endpoint.answer("rollback", 200);
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;
        let events = world.events("podinfo");
        assert_eq!(
            events[events.len() - 3..],
            [
                "Rollback check my-rollback passed",
                "Rolling back podinfo.test manual webhook invoked",
                "Canary failed! Scaling down podinfo.test",
            ]
        );
    });
}

#[test]
fn event_hooks_are_told_that_a_canary_failed_with_the_phase_failed() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let endpoint = Endpoint::default();
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour { error_ratio: 0.2, ..Behaviour::default() });
        start_with_hooks(&mut world, &endpoint, &["event"], |_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;
        let heard = endpoint.calls("event");
        let last: Vec<_> = heard[heard.len() - 2..].iter().map(|call| (call["phase"].clone(), message(call))).collect();
        assert_eq!(
            last,
            [
                (json!("Progressing"), "Rolling back podinfo.test failed checks threshold reached 3".to_owned()),
                (json!("Failed"), "Canary failed! Scaling down podinfo.test".to_owned()),
            ]
        );
    });
}

/// What a hook was told, it was told: it may be somebody's pipeline.
#[test]
fn a_post_rollout_hook_is_called_once_however_often_its_status_is_refused() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let endpoint = Endpoint::default();
        start_with_hooks(&mut world, &endpoint, &["post-rollout"], |_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Finalising").await;
        let refused = Rule::new(Action::error(500)).client(AGENT).writes().resource("canaries").subresource("status");
        let refused = world.cluster.faults().add(refused);
        world.wait_until("the hook is called", || !endpoint.calls("post-rollout").is_empty()).await;
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(world.phase("podinfo"), "Finalising");
        world.cluster.faults().remove(refused);
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(endpoint.calls("post-rollout").len(), 1, "{}", world.story());
        assert_eq!(world.count_events("podinfo", "Post-rollout check my-post-rollout passed"), 1);

        // The next release is another one.
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Progressing").await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(endpoint.calls("post-rollout").len(), 2, "{}", world.story());
    });
}

#[test]
fn a_slow_endpoint_of_one_namespace_delays_no_other() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let never = Arc::new(|_: HttpRequest| std::future::pending().boxed());
        world.services = std::mem::take(&mut world.services).and("stuck.test", never);
        let mut stuck = canary("test", "stuck");
        stuck["spec"]["analysis"]["webhooks"] =
            json!([{"name": "gate", "type": "confirm-rollout", "url": "http://stuck.test/"}]);
        world.create(deployment("test", "stuck", "podinfo:6.0.0")).await;
        world.create(stuck).await;
        world.deploy("podinfo").await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.wait_for_phase("stuck", "Initialized").await;
        world.pass(Duration::from_secs(120)).await;
        world.set_image("stuck", "podinfo:6.0.1");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_ne!(world.phase("stuck"), "Progressing");
    });
}

#[test]
fn alerts_go_where_the_canary_says_with_the_default_severity() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let chat = Endpoint::default();
        chat.join(&mut world, "chat.test");
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour { error_ratio: 0.2, ..Behaviour::default() });
        world
            .create(json!({"apiVersion": "flagger.app/v1beta1", "kind": "AlertProvider",
                "metadata": {"namespace": "test", "name": "on-call"},
                "spec": {"type": "slack", "channel": "releases", "address": "http://chat.test/slack"}}))
            .await;
        start_with_hooks(&mut world, &Endpoint::default(), &[], |canary| {
            canary["spec"]["analysis"]["alerts"] = json!([
                {"name": "all", "providerRef": {"name": "on-call"}},
                {"name": "missing", "severity": "error", "providerRef": {"name": "nobody"}},
            ]);
        })
        .await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;
        let texts: Vec<_> = chat.calls("slack").iter().map(|call| call["attachments"][0]["text"].clone()).collect();
        assert_eq!(
            texts,
            [
                json!("New Deployment detected, initialization completed."),
                json!("New revision detected, progressing canary analysis."),
                json!("Failed checks threshold reached 3"),
            ]
        );
        assert!(world.get(&kinds::CANARY, "podinfo").is_some());
    });
}

/// A hook may take half an hour; the canary does not wait for it to see what matters.
#[test]
fn a_hook_that_does_not_answer_holds_up_no_newer_revision_and_no_shutdown() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let never = Arc::new(|_: HttpRequest| std::future::pending().boxed());
        world.services = std::mem::take(&mut world.services).and("stuck.test", never);
        start_with_hooks(&mut world, &Endpoint::default(), &[], |canary| {
            canary["spec"]["analysis"]["webhooks"] =
                json!([{"name": "slow", "type": "rollout", "url": "http://stuck.test/", "timeout": "30m"}]);
        })
        .await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("the first weight", || world.status("podinfo")["canaryWeight"] == 10).await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.status("podinfo")["canaryWeight"], 10, "the hook has not answered");

        world.set_image("podinfo", "podinfo:6.0.2");
        world.pass(Duration::from_millis(100)).await;
        let restarted = "New revision detected! Restarting analysis for podinfo.test".to_owned();
        assert!(world.events("podinfo").contains(&restarted), "{}", world.story());
        assert_eq!(world.status("podinfo")["canaryWeight"], 0);

        world.wait_until("the first weight again", || world.status("podinfo")["canaryWeight"] == 10).await;
        world.pass(Duration::from_secs(60)).await;
        assert!(world.stop().await, "nothing is in flight that must be finished");
    });
}

/// Whatever happens meanwhile, a hook that takes its time is called once, also beside a rollback hook that wants to be asked
/// again before every other question.
#[test]
fn a_slow_hook_is_not_called_again_because_of_a_rollback_hook() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let calls = Arc::new(Mutex::new(0));
        let counted = calls.clone();
        let slow = Arc::new(move |_: HttpRequest| {
            *counted.lock().unwrap() += 1;
            async {
                tokio::time::sleep(Duration::from_secs(180)).await;
                Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() })
            }
            .boxed()
        });
        world.services = std::mem::take(&mut world.services).and("slow.test", slow);
        let endpoint = Endpoint::default();
        endpoint.answer("rollback", 404);
        start_with_hooks(&mut world, &endpoint, &["rollback"], |canary| {
            let test = json!({"name": "test", "type": "pre-rollout", "url": "http://slow.test/", "timeout": "10m"});
            canary["spec"]["analysis"]["webhooks"].as_array_mut().unwrap().push(test);
        })
        .await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(*calls.lock().unwrap(), 1, "{}", world.story());
        for nudge in 0..11 {
            world.pass(Duration::from_secs(15)).await;
            world.change(&kinds::DEPLOYMENT, "podinfo", |target| {
                target["spec"]["replicas"] = json!(2 + nudge % 2);
            });
        }
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(*calls.lock().unwrap(), 1, "{}", world.story());
    });
}
