//! The workload controllers on virtual time, written against the store alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aviary_sim::clock::Clock;
use aviary_sim::controllers::{
    self, ControllerOptions, PodBehaviour, PodBehaviours, PodDetail, PodOutcome, Utilisation, WorkloadKind, Workloads,
};
use aviary_sim::store::{ChangeType, Store, StoreEvent, kinds};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

const NAMESPACE: &str = "test";
const BOTH: [PodDetail; 2] = [PodDetail::Objects, PodDetail::CountsOnly];

struct Bench {
    store: Store,
    workloads: Arc<Workloads>,
    behaviours: PodBehaviours,
    utilisation: Utilisation,
    began: Instant,
}

impl Bench {
    fn new(pods: PodDetail) -> Self {
        let clock = Clock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let store = Store::new(clock, 7);
        let options = ControllerOptions { pods, ..ControllerOptions::default() };
        let (behaviours, utilisation) = (options.behaviours.clone(), options.utilisation.clone());
        let workloads = controllers::start(store.clone(), clock, options);
        Self { store, workloads, behaviours, utilisation, began: Instant::now() }
    }

    fn create(&self, deployment: Value) {
        self.store.create(&kinds::DEPLOYMENT, deployment).unwrap();
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.store.update(&kinds::DEPLOYMENT, NAMESPACE, name, change).unwrap();
    }

    fn set_image(&self, name: &str, image: &str) {
        self.change(name, |object| object["spec"]["template"]["spec"]["containers"][0]["image"] = image.into());
    }

    fn scale(&self, name: &str, replicas: i64) {
        self.change(name, |object| object["spec"]["replicas"] = replicas.into());
    }

    fn deployment(&self, name: &str) -> Arc<Value> {
        self.store.get(&kinds::DEPLOYMENT, NAMESPACE, name).unwrap()
    }

    /// Waits until a Deployment satisfies a condition; an hour of virtual time is for ever.
    async fn until(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Arc<Value> {
        let mut events = self.store.subscribe();
        let reached = async {
            loop {
                let object = self.deployment(name);
                if condition(&object) {
                    return object;
                }
                events.recv().await.unwrap();
            }
        };
        match timeout(Duration::from_secs(3600), reached).await {
            Ok(object) => object,
            Err(_) => panic!("never {what}: {:#}", self.deployment(name)["status"]),
        }
    }

    async fn until_complete(&self, name: &str) -> Arc<Value> {
        self.until(name, "complete", is_complete).await
    }

    async fn at(&self, seconds: f64) {
        sleep_until(self.began + Duration::from_secs_f64(seconds)).await;
    }

    fn elapsed(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn images(&self, name: &str) -> Vec<(String, u32)> {
        let versions = self.workloads.ready(NAMESPACE, name);
        versions.into_iter().map(|version| (version.image.to_string(), version.ready)).collect()
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        self.store.list(&kinds::POD, Some(NAMESPACE))
    }
}

fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": image, "ports": [{"name": "http", "containerPort": 9898}]}]},
            },
        },
    })
}

fn number(object: &Value, field: &str) -> i64 {
    object["status"][field].as_i64().unwrap_or(0)
}

fn is_observed(object: &Value) -> bool {
    object["metadata"]["generation"] == object["status"]["observedGeneration"]
}

fn is_complete(object: &Value) -> bool {
    let wanted = object["spec"]["replicas"].as_i64().unwrap();
    is_observed(object)
        && ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|field| number(object, field) == wanted)
        && number(object, "terminatingReplicas") == 0
}

fn condition<'a>(object: &'a Value, condition_type: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == condition_type).unwrap()
}

fn reason(object: &Value, condition_type: &str) -> String {
    condition(object, condition_type)["reason"].as_str().unwrap().to_owned()
}

fn revision(object: &Value) -> &str {
    object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap()
}

/// Every state of one Deployment that was stored, in order.
fn states(events: &mut tokio::sync::mpsc::UnboundedReceiver<StoreEvent>) -> Vec<Arc<Value>> {
    let mut states = Vec::new();
    while let Ok(event) = events.try_recv() {
        if event.kind == kinds::DEPLOYMENT && event.change != ChangeType::Deleted {
            states.push(event.object);
        }
    }
    states
}

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
            let serves = event.change != ChangeType::Deleted && is_ready(&event.object);
            ready.insert(pod_name(&event.object), serves);
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

fn pod_name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

fn is_ready(pod: &Value) -> bool {
    pod["metadata"].get("deletionTimestamp").is_none()
        && pod["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })
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
                last.insert(key, format!("{} {}", revision_or_none(&event.object), event.object["status"]));
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
            history.push((event.resource_version, event.change, event.object.to_string()));
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
                let name = pod_name(&event.object);
                match event.change {
                    ChangeType::Deleted => images.remove(&name),
                    _ => images.insert(name, event.object["spec"]["containers"][0]["image"].to_string()),
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
    sleep(Duration::from_secs(30)).await;
    let pods = bench.pods();
    assert_eq!(pods[0]["status"]["phase"], "Pending");
    let waiting = &pods[0]["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["reason"], "ImagePullBackOff");
    assert_eq!(waiting["message"], "Back-off pulling image \"missing:1\"");
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
async fn endpoints_follow_the_readiness_of_the_selected_pods() {
    let bench = Bench::new(PodDetail::Objects);
    let service = json!({
        "metadata": {"name": "podinfo", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    });
    bench.store.create(&kinds::SERVICE, service).unwrap();
    bench.create(deployment("podinfo", 2, "podinfo:1"));
    bench.create(deployment("other", 1, "podinfo:1"));
    bench.at(1.0).await;
    let conditions = || -> Vec<bool> {
        let slices = bench.store.list(&kinds::ENDPOINT_SLICE, Some(NAMESPACE));
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0]["metadata"]["labels"]["kubernetes.io/service-name"], "podinfo");
        let endpoints = slices[0]["endpoints"].as_array().unwrap();
        endpoints.iter().map(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap()).collect()
    };
    assert_eq!(conditions(), [false, false]);
    bench.at(4.0).await;
    assert_eq!(conditions(), [true, true]);
    let endpoints = bench.store.get(&kinds::ENDPOINTS, NAMESPACE, "podinfo").unwrap();
    let subset = &endpoints["subsets"][0];
    assert_eq!(subset["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(subset["ports"][0]["port"], 9898, "the port that the pods name");
    bench.scale("podinfo", 0);
    bench.at(4.5).await;
    assert_eq!(conditions(), [false, false], "terminating pods take no new requests");
    bench.at(6.0).await;
    assert!(conditions().is_empty());
    bench.store.delete(&kinds::SERVICE, NAMESPACE, "podinfo").unwrap();
    bench.at(7.0).await;
    assert!(bench.store.list(&kinds::ENDPOINT_SLICE, None).is_empty());
    assert!(bench.store.list(&kinds::ENDPOINTS, None).is_empty());
}

fn autoscaler(min: i64, max: i64) -> Value {
    json!({
        "metadata": {"name": "podinfo", "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "minReplicas": min, "maxReplicas": max,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    })
}

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
        // 2 pods at 120 % of a 50 % target: 5 are wanted, and 2 + 4 may come in one period.
        bench.at(101.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 5, "{detail:?}");
        bench.at(114.0).await;
        assert_eq!(bench.deployment("podinfo")["spec"]["replicas"], 5, "not before the next period");
        bench.at(116.0).await;
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

fn daemon_set() -> Value {
    json!({
        "metadata": {"name": "agent", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "agent", "image": "agent:1"}]},
            },
        },
    })
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_runs_once_and_a_selector_without_node_empties_it() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        let created = bench.store.create(&kinds::DAEMON_SET, daemon_set()).unwrap();
        assert_eq!(created["metadata"]["generation"], 1);
        let get = || bench.store.get(&kinds::DAEMON_SET, NAMESPACE, "agent").unwrap();
        let image = || {
            let versions = bench.workloads.ready_of(WorkloadKind::DaemonSet, NAMESPACE, "agent");
            versions.iter().map(|version| (version.image.to_string(), version.ready)).collect::<Vec<_>>()
        };
        bench.at(1.0).await;
        let starting = get();
        let status = |object: &Value| {
            [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "updatedNumberScheduled",
                "numberReady",
                "numberAvailable",
            ]
            .map(|field| number(object, field))
        };
        assert_eq!(status(&starting), [1, 1, 1, 0, 0], "{detail:?}");
        assert_eq!(number(&starting, "numberUnavailable"), 1);
        bench.at(4.0).await;
        assert_eq!(status(&get()), [1, 1, 1, 1, 1], "{detail:?}");
        assert_eq!(image(), [("agent:1".to_owned(), 1)]);

        let update = |change: &dyn Fn(&mut Value)| {
            bench
                .store
                .update(&kinds::DAEMON_SET, NAMESPACE, "agent", |object| {
                    change(&mut object["spec"]["template"]["spec"])
                })
                .unwrap();
        };
        update(&|spec| spec["containers"][0]["image"] = "agent:2".into());
        bench.at(4.5).await;
        assert_eq!(status(&get()), [1, 0, 0, 0, 0], "{detail:?}: the old pod leaves first");
        assert!(is_observed(&get()));
        bench.at(8.5).await;
        assert_eq!(status(&get()), [1, 1, 1, 1, 1], "{detail:?}");
        assert_eq!(image(), [("agent:2".to_owned(), 1)]);

        update(&|spec| spec["nodeSelector"] = json!({"flagger.app/scale-to-zero": "true"}));
        bench.at(10.0).await;
        assert_eq!(status(&get()), [0, 0, 0, 0, 0], "{detail:?}");
        assert!(image().is_empty());
        assert!(bench.pods().is_empty());
        update(&|spec| {
            spec.as_object_mut().unwrap().remove("nodeSelector");
        });
        bench.at(14.0).await;
        assert_eq!(status(&get()), [1, 1, 1, 1, 1], "{detail:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_cluster_stays_silent_for_a_day() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.create(deployment("podinfo", 3, "podinfo:1"));
        bench.create(deployment("zero", 0, "podinfo:1"));
        bench.store.create(&kinds::DAEMON_SET, daemon_set()).unwrap();
        bench.store.create(&kinds::HPA, autoscaler(1, 5)).unwrap();
        bench.until_complete("podinfo").await;
        bench.set_image("podinfo", "podinfo:2");
        bench.until_complete("podinfo").await;
        sleep(Duration::from_secs(60)).await;
        let before = bench.store.revision();
        let table = bench.workloads.subscribe();
        sleep(Duration::from_secs(24 * 3600)).await;
        assert_eq!(bench.store.revision(), before, "{detail:?}");
        assert!(!table.has_changed().unwrap());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controllers_keep_up_with_writers_on_other_threads() {
    for pods in BOTH {
        let clock = Clock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let store = Store::new(clock, 7);
        let short = Duration::from_millis(1);
        let options =
            ControllerOptions { pods, start_delay: short, termination_delay: short, ..ControllerOptions::default() };
        let workloads = controllers::start(store.clone(), clock, options);
        let writers: Vec<_> = (0..20)
            .map(|index| {
                let store = store.clone();
                tokio::spawn(async move {
                    let name = format!("app-{index}");
                    store.create(&kinds::DEPLOYMENT, deployment(&name, 2, "app:0")).unwrap();
                    for version in 1..=20 {
                        let change = |object: &mut Value| {
                            object["spec"]["template"]["spec"]["containers"][0]["image"] =
                                format!("app:{version}").into();
                            object["spec"]["replicas"] = (version % 4).into();
                        };
                        store.update(&kinds::DEPLOYMENT, NAMESPACE, &name, change).unwrap();
                        tokio::task::yield_now().await;
                    }
                    store
                        .update(&kinds::DEPLOYMENT, NAMESPACE, &name, |object| object["spec"]["replicas"] = 3.into())
                        .unwrap();
                })
            })
            .collect();
        let mut events = store.subscribe();
        for writer in writers {
            writer.await.unwrap();
        }
        let all_complete = || store.list(&kinds::DEPLOYMENT, None).iter().all(|object| is_complete(object));
        let settled = async {
            while !all_complete() {
                events.recv().await.unwrap();
            }
        };
        timeout(Duration::from_secs(60), settled).await.expect("all rollouts end");
        for index in 0..20 {
            let versions = workloads.ready(NAMESPACE, &format!("app-{index}"));
            assert_eq!(
                versions.iter().map(|version| (&*version.image, version.ready)).collect::<Vec<_>>(),
                [("app:20", 3)]
            );
        }
    }
}
