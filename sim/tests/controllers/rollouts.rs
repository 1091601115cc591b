//! Deployments: how their sets grow, shrink and are told of.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_sim::controllers::PodDetail;
use aviary_sim::store::{ChangeType, kinds};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_new_deployment_becomes_available_after_the_start_delay_with_the_words_of_kubernetes() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.create(deployment("podinfo", 2, "podinfo:1"));
        let starting = bench.until("podinfo", "started", |object| number(object, "replicas") == 2).await;
        assert!(bench.elapsed() < 0.1, "{detail:?}");
        assert_eq!(number(&starting, "unavailableReplicas"), 2);
        assert_eq!(starting["status"].get("readyReplicas"), None, "zero counts are left out");
        assert_eq!(reason(&starting, "Progressing"), "ReplicaSetUpdated");
        let available = condition(&starting, "Available");
        assert_eq!(available["status"], "False");
        assert_eq!(available["reason"], "MinimumReplicasUnavailable");
        assert_eq!(available["message"], "Deployment does not have minimum availability.");

        let done = bench.until_complete("podinfo").await;
        assert!((3.0..3.1).contains(&bench.elapsed()), "{detail:?} {}", bench.elapsed());
        let progressing = condition(&done, "Progressing");
        assert_eq!(progressing["reason"], "NewReplicaSetAvailable");
        let message = progressing["message"].as_str().unwrap();
        assert!(message.starts_with("ReplicaSet \"podinfo-"), "{message}");
        assert!(message.ends_with("\" has successfully progressed."), "{message}");
        assert_eq!(progressing["lastUpdateTime"], "2026-01-01T00:00:03Z");
        assert_eq!(progressing["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(condition(&done, "Available")["message"], "Deployment has minimum availability.");
        assert_eq!(revision(&done), "1");
        assert_eq!(done["metadata"]["generation"], 1, "status and annotations do not count");
        assert_eq!(bench.images("podinfo"), [("podinfo:1".to_owned(), 2)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_keeps_its_bounds_and_ends_with_the_new_version_alone() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.create(deployment("podinfo", 8, "podinfo:1"));
        bench.until_complete("podinfo").await;
        let mut events = bench.store.subscribe();
        bench.set_image("podinfo", "podinfo:2");
        let done = bench.until_complete("podinfo").await;
        let states = states(&mut events);
        assert!(states.len() > 3, "{detail:?}: a walk, not a jump");
        for state in &states {
            // 25 % of 8 are 2 pods either way.
            assert!(number(state, "availableReplicas") >= 6, "{detail:?} {:#}", state["status"]);
            assert!(number(state, "replicas") <= 10, "{detail:?} {:#}", state["status"]);
            assert_eq!(reason(state, "Available"), "MinimumReplicasAvailable");
        }
        assert!(states.iter().any(|state| (1..8).contains(&number(state, "updatedReplicas"))));
        assert!(states.iter().any(|state| reason(state, "Progressing") == "ReplicaSetUpdated"));
        assert_eq!(reason(&done, "Progressing"), "NewReplicaSetAvailable");
        assert_eq!(revision(&done), "2");
        assert_eq!(bench.images("podinfo"), [("podinfo:2".to_owned(), 8)]);
    }
}

#[tokio::test(start_paused = true)]
async fn pods_stand_behind_every_count_of_a_rolling_update() {
    let bench = Bench::new(PodDetail::Objects);
    bench.create(deployment("podinfo", 4, "podinfo:1"));
    bench.until_complete("podinfo").await;
    let mut events = bench.store.subscribe();
    bench.set_image("podinfo", "podinfo:2");
    let mut ready: BTreeMap<String, bool> = bench.pods().iter().map(|pod| (pod_name(pod), is_ready(pod))).collect();
    bench.until_complete("podinfo").await;
    while let Ok(event) = events.try_recv() {
        if event.kind == kinds::POD {
            let serves = event.change != ChangeType::Deleted && is_ready(event.object());
            ready.insert(pod_name(event.object()), serves);
            let serving = ready.values().filter(|ready| **ready).count();
            assert!((3..=5).contains(&serving), "{serving} pods serve");
        }
    }
    let sets = bench.store.list(&kinds::REPLICA_SET, Some(NAMESPACE));
    let sizes: Vec<(i64, i64)> =
        sets.iter().map(|set| (set["spec"]["replicas"].as_i64().unwrap(), number(set, "replicas"))).collect();
    assert!(sizes == [(0, 0), (4, 4)] || sizes == [(4, 4), (0, 0)], "{sizes:?}");
    let pods = bench.pods();
    assert_eq!(pods.len(), 4, "old pods are gone");
    for pod in &pods {
        let owner = &pod["metadata"]["ownerReferences"][0];
        let name = pod_name(pod);
        assert_eq!((owner["kind"].as_str(), owner["controller"].as_bool()), (Some("ReplicaSet"), Some(true)));
        assert_eq!(name.rsplit_once('-').unwrap().0, owner["name"].as_str().unwrap());
        assert_eq!(name.rsplit_once('-').unwrap().1.len(), 5);
        assert_eq!(pod["status"]["phase"], "Running");
        assert_eq!(pod["status"]["containerStatuses"][0]["image"], "podinfo:2");
        assert!(
            owner["name"].as_str().unwrap().ends_with(pod["metadata"]["labels"]["pod-template-hash"].as_str().unwrap())
        );
    }
    let addresses: std::collections::BTreeSet<_> = pods.iter().map(|pod| pod["status"]["podIP"].to_string()).collect();
    assert_eq!(addresses.len(), 4);
}

/// The last status at every moment of virtual time, without the names that differ by nothing but the level of detail.
async fn timeline(detail: PodDetail) -> Vec<(u128, String)> {
    let bench = Bench::new(detail);
    let mut events = bench.store.subscribe();
    let mut object = deployment("podinfo", 5, "podinfo:1");
    object["spec"]["minReadySeconds"] = 2.into();
    object["spec"]["progressDeadlineSeconds"] = 20.into();
    let script = async {
        bench.create(object);
        bench.at(10.5).await;
        bench.set_image("podinfo", "podinfo:2");
        bench.at(14.5).await;
        bench.scale("podinfo", 9);
        bench.at(60.0).await;
        bench.set_image("podinfo", "podinfo:3-crash");
        bench.at(100.0).await;
        bench.set_image("podinfo", "podinfo:2");
        bench.at(130.0).await;
        bench.scale("podinfo", 0);
        bench.at(140.0).await;
        bench.scale("podinfo", 3);
        bench.at(160.0).await;
    };
    let mut last: BTreeMap<u128, String> = BTreeMap::new();
    let record = async {
        while let Some(event) = events.recv().await {
            if event.kind == kinds::DEPLOYMENT {
                let key = bench.began.elapsed().as_millis();
                last.insert(key, format!("{} {}", revision_or_none(event.object()), event.object()["status"]));
            }
        }
    };
    tokio::select! { () = script => {}, () = record => {} }
    last.into_iter().collect()
}

fn revision_or_none(object: &Value) -> String {
    object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].to_string()
}

#[tokio::test(start_paused = true)]
async fn both_levels_of_detail_show_the_same_statuses_at_the_same_times() {
    let objects = timeline(PodDetail::Objects).await;
    let counts = timeline(PodDetail::CountsOnly).await;
    assert!(objects.len() > 20, "{}", objects.len());
    for (left, right) in objects.iter().zip(&counts) {
        assert_eq!(left, right);
    }
    assert_eq!(objects.len(), counts.len());
}

#[tokio::test(start_paused = true)]
async fn the_same_run_gives_the_same_history() {
    let mut histories = Vec::new();
    for _ in 0..2 {
        let bench = Bench::new(PodDetail::Objects);
        let mut events = bench.store.subscribe();
        bench.create(deployment("a", 3, "app:1"));
        bench.create(deployment("b", 2, "app:1"));
        bench.at(5.0).await;
        bench.set_image("a", "app:2");
        bench.scale("b", 4);
        bench.at(60.0).await;
        let mut history = Vec::new();
        while let Ok(event) = events.try_recv() {
            history.push((event.resource_version, event.change, event.object().to_string()));
        }
        histories.push(history);
    }
    assert!(histories[0].len() > 50);
    assert!(histories[0] == histories[1]);
}

#[tokio::test(start_paused = true)]
async fn a_crashing_version_exceeds_its_deadline_while_the_old_pods_serve() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        let mut object = deployment("podinfo", 2, "podinfo:1");
        object["spec"]["progressDeadlineSeconds"] = 60.into();
        bench.create(object);
        bench.until_complete("podinfo").await;
        bench.at(100.0).await;
        bench.set_image("podinfo", "podinfo:2-crash");

        // The last progress is the new pod's appearance at 100 s; Kubernetes looks one second after the deadline.
        bench.at(160.9).await;
        assert_eq!(reason(&bench.deployment("podinfo"), "Progressing"), "ReplicaSetUpdated", "{detail:?}");
        bench.at(161.1).await;
        let stuck = bench.deployment("podinfo");
        let progressing = condition(&stuck, "Progressing");
        assert_eq!(progressing["status"], "False");
        assert_eq!(progressing["reason"], "ProgressDeadlineExceeded");
        assert!(progressing["message"].as_str().unwrap().ends_with("\" has timed out progressing."));
        assert_eq!(progressing["lastUpdateTime"], "2026-01-01T00:02:41Z");
        assert_eq!(reason(&stuck, "Available"), "MinimumReplicasAvailable");
        assert_eq!((number(&stuck, "updatedReplicas"), number(&stuck, "availableReplicas")), (1, 2));
        assert_eq!((number(&stuck, "replicas"), number(&stuck, "unavailableReplicas")), (3, 1));
        assert_eq!(bench.images("podinfo"), [("podinfo:1".to_owned(), 2)]);

        if detail == PodDetail::Objects {
            let pods = bench.pods();
            let crashing = pods.iter().find(|pod| !is_ready(pod)).unwrap();
            let container = &crashing["status"]["containerStatuses"][0];
            assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
            assert_eq!(container["restartCount"], 3, "restarted at 3, 13 and 33 s");
        }

        bench.set_image("podinfo", "podinfo:1");
        let back = bench.until_complete("podinfo").await;
        assert_eq!(reason(&back, "Progressing"), "NewReplicaSetAvailable");
        assert_eq!(revision(&back), "3", "the old template has the newest revision");
        assert_eq!(bench.images("podinfo"), [("podinfo:1".to_owned(), 2)]);
    }
}

#[tokio::test(start_paused = true)]
async fn scaling_to_zero_and_back_starts_no_rollout() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.create(deployment("podinfo", 3, "podinfo:1"));
        bench.until_complete("podinfo").await;
        let mut events = bench.store.subscribe();
        bench.scale("podinfo", 0);
        let zero = bench.until_complete("podinfo").await;
        assert_eq!(reason(&zero, "Available"), "MinimumReplicasAvailable");
        assert!(bench.images("podinfo").is_empty());
        assert!(bench.pods().is_empty());

        bench.scale("podinfo", 2);
        let starting = bench.until("podinfo", "scaled up", |object| number(object, "replicas") == 2).await;
        assert_eq!(reason(&starting, "Available"), "MinimumReplicasUnavailable");
        let done = bench.until_complete("podinfo").await;
        assert_eq!(revision(&done), "1");
        for state in states(&mut events) {
            assert_eq!(reason(&state, "Progressing"), "NewReplicaSetAvailable", "{detail:?}");
        }

        // A template that changes at zero replicas completes at once, and its later crash is no lack of progress.
        bench.scale("podinfo", 0);
        bench.until_complete("podinfo").await;
        bench.set_image("podinfo", "podinfo:2-crash");
        let changed = bench.until("podinfo", "observed", is_observed).await;
        assert_eq!((revision(&changed), reason(&changed, "Progressing").as_str()), ("2", "NewReplicaSetAvailable"));
        bench.scale("podinfo", 1);
        sleep(Duration::from_secs(1000)).await;
        let crashing = bench.deployment("podinfo");
        assert_eq!(reason(&crashing, "Progressing"), "NewReplicaSetAvailable");
        assert_eq!(reason(&crashing, "Available"), "MinimumReplicasUnavailable");
    }
}

#[tokio::test(start_paused = true)]
async fn recreate_waits_until_the_last_old_pod_is_gone() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        let mut object = deployment("podinfo", 2, "podinfo:1");
        object["spec"]["strategy"] = json!({"type": "Recreate"});
        bench.create(object);
        bench.until_complete("podinfo").await;
        let mut events = bench.store.subscribe();
        bench.at(10.0).await;
        bench.set_image("podinfo", "podinfo:2");
        let gone =
            bench.until("podinfo", "down", |object| is_observed(object) && number(object, "replicas") == 0).await;
        assert_eq!(number(&gone, "terminatingReplicas"), 2);
        assert_eq!(reason(&gone, "Available"), "MinimumReplicasUnavailable");
        bench.until("podinfo", "up again", |object| number(object, "updatedReplicas") == 2).await;
        assert!((11.0..11.1).contains(&bench.elapsed()), "{detail:?} {}", bench.elapsed());
        bench.until_complete("podinfo").await;
        assert!((14.0..14.1).contains(&bench.elapsed()), "{detail:?} {}", bench.elapsed());
        let mut images: BTreeMap<String, String> = BTreeMap::new();
        while let Ok(event) = events.try_recv() {
            if event.kind == kinds::POD {
                let name = pod_name(event.object());
                match event.change {
                    ChangeType::Deleted => images.remove(&name),
                    _ => images.insert(name, event.object()["spec"]["containers"][0]["image"].to_string()),
                };
                let distinct: std::collections::BTreeSet<_> = images.values().collect();
                assert!(distinct.len() <= 1, "two versions side by side");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_counts_as_available_only_after_min_ready_seconds() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        let mut object = deployment("podinfo", 1, "podinfo:1");
        object["spec"]["minReadySeconds"] = 30.into();
        bench.create(object);
        let ready = bench.until("podinfo", "ready", |object| number(object, "readyReplicas") == 1).await;
        assert_eq!(number(&ready, "availableReplicas"), 0, "{detail:?}");
        bench.until_complete("podinfo").await;
        assert!((33.0..33.1).contains(&bench.elapsed()), "{detail:?} {}", bench.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.create(deployment("podinfo", 2, "podinfo:1"));
        bench.until_complete("podinfo").await;
        bench.change("podinfo", |object| {
            object["spec"]["paused"] = true.into();
            object["spec"]["template"]["spec"]["containers"][0]["image"] = "podinfo:2".into();
            object["spec"]["replicas"] = 3.into();
        });
        sleep(Duration::from_secs(60)).await;
        let paused = bench.deployment("podinfo");
        assert_eq!(reason(&paused, "Progressing"), "DeploymentPaused");
        assert_eq!(condition(&paused, "Progressing")["status"], "Unknown");
        assert_eq!((number(&paused, "replicas"), number(&paused, "updatedReplicas")), (3, 0));
        assert_eq!(bench.images("podinfo"), [("podinfo:1".to_owned(), 3)]);
        bench.change("podinfo", |object| object["spec"]["paused"] = false.into());
        bench.until_complete("podinfo").await;
        assert_eq!(bench.images("podinfo"), [("podinfo:2".to_owned(), 3)]);
    }
}

#[tokio::test(start_paused = true)]
async fn history_is_cut_to_its_limit_and_old_templates_are_found_again() {
    let bench = Bench::new(PodDetail::Objects);
    let mut object = deployment("podinfo", 1, "podinfo:0");
    object["spec"]["revisionHistoryLimit"] = 2.into();
    bench.create(object);
    bench.until_complete("podinfo").await;
    for version in 1..=4 {
        bench.set_image("podinfo", &format!("podinfo:{version}"));
        bench.until_complete("podinfo").await;
    }
    sleep(Duration::from_secs(10)).await;
    let images = || -> BTreeMap<String, (String, String)> {
        let sets = bench.store.list(&kinds::REPLICA_SET, Some(NAMESPACE));
        let image =
            |set: &Value| set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        let about = |set: &Value| (pod_name(set), revision(set).to_owned());
        sets.iter().map(|set| (image(set), about(set))).collect()
    };
    let kept = images();
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["podinfo:2", "podinfo:3", "podinfo:4"]);

    bench.set_image("podinfo", "podinfo:2");
    let back = bench.until_complete("podinfo").await;
    assert_eq!(revision(&back), "6");
    let after = images();
    assert_eq!(after.len(), 3);
    assert_eq!(after["podinfo:2"].0, kept["podinfo:2"].0, "the same set");
    assert_eq!(after["podinfo:2"].1, "6");
}

#[tokio::test(start_paused = true)]
async fn a_change_cause_that_is_given_later_reaches_the_present_set_alone() {
    let bench = Bench::new(PodDetail::Objects);
    bench.create(deployment("podinfo", 1, "podinfo:1"));
    bench.until_complete("podinfo").await;
    bench.set_image("podinfo", "podinfo:2");
    bench.until_complete("podinfo").await;
    bench.change("podinfo", |object| {
        let annotations = &mut object["metadata"]["annotations"];
        annotations["kubernetes.io/change-cause"] = "a better image".into();
        annotations["kubectl.kubernetes.io/last-applied-configuration"] = "{}".into();
    });
    sleep(Duration::from_secs(1)).await;
    let sets = bench.store.list(&kinds::REPLICA_SET, Some(NAMESPACE));
    let causes: BTreeMap<&str, Option<&str>> = sets
        .iter()
        .map(|set| (revision(set), set["metadata"]["annotations"]["kubernetes.io/change-cause"].as_str()))
        .collect();
    assert_eq!(causes, BTreeMap::from([("1", None), ("2", Some("a better image"))]));
    assert!(!sets.iter().any(|set| set.to_string().contains("last-applied-configuration")));
}
