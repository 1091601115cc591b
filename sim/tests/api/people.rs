//! What people ask for beside objects: rights, logs, evictions, streams.

use aviary_sim::{Cluster, ClusterOptions};
use serde_json::{Value, json};

use crate::support::{Refusal, deployment, value, world};

async fn post(world: &crate::support::World, path: &str, body: &Value) -> Value {
    world.request("POST", path, "application/json", &body.to_string()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn everything_is_allowed_and_the_client_learns_its_name() {
    let world = world().await;
    let spec = json!({"resourceAttributes": {"verb": "create", "resource": "pods"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = post(&world, path, &json!({"spec": spec})).await;
    assert_eq!((&review["status"]["allowed"], &review["spec"]), (&json!(true), &spec));
    let path = "/apis/authorization.k8s.io/v1/namespaces/test/localsubjectaccessreviews";
    let spec = json!({"user": "ann", "groups": ["system:masters"], "resourceAttributes": {"namespace": "test", "verb": "create", "resource": "pods"}});
    assert_eq!(
        post(&world, path, &json!({"metadata": {"namespace": "test"}, "spec": spec})).await["status"]["allowed"],
        true
    );
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = post(&world, path, &json!({"spec": {"namespace": "test"}})).await;
    let may_all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    assert!(rules["status"]["resourceRules"].as_array().unwrap().contains(&may_all), "{rules}");
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let who = post(&world, path, &json!({})).await;
    let name = if crate::bench::inside().is_some() { "admin" } else { "embedded-cluster-user" };
    assert_eq!(who["status"]["userInfo"]["username"], name);
    assert_eq!(world.request("GET", path, "", "").await.refusal().code, 405);
    let wrong = json!({"kind": "Pod"}).to_string();
    assert_eq!(world.request("POST", path, "application/json", &wrong).await.refusal().code, 400);
}

struct Running {
    cluster: Cluster,
    client: kube::Client,
    pod: String,
}

/// A cluster with controllers and a Deployment of two pods that are ready.
async fn running() -> Running {
    running_for(10).await
}

/// The same, so many seconds after its creation; a pod takes three to start.
async fn running_for(seconds: u64) -> Running {
    let cluster = Cluster::new(ClusterOptions::default());
    let client = cluster.client("tests");
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let mut object = value(&deployment("web", "ghcr.io/example/podinfo:6.0.1"));
    object["spec"]["replicas"] = json!(2);
    let request = http::Request::post(path).header("Content-Type", "application/json");
    client.request::<Value>(request.body(object.to_string().into_bytes()).unwrap()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    let pods = cluster.store().list(&aviary_sim::store::kinds::POD, Some("default"));
    let pod = pods[0]["metadata"]["name"].as_str().unwrap().to_owned();
    Running { cluster, client, pod }
}

impl Running {
    async fn text(&self, method: &str, path: &str, body: &str) -> Result<String, kube::Error> {
        let path = format!("/api/v1/namespaces/default/pods/{}/{path}", self.pod);
        let request = http::Request::builder().method(method).uri(path).header("Content-Type", "application/json");
        self.client.request_text(request.body(body.as_bytes().to_vec()).unwrap()).await
    }

    fn pods(&self) -> Vec<std::sync::Arc<Value>> {
        self.cluster.store().list(&aviary_sim::store::kinds::POD, Some("default"))
    }
}

#[tokio::test(start_paused = true)]
async fn logs_tell_what_started_and_that_nothing_runs() {
    let running = running().await;
    let line = "podinfo 6.0.1 started (embedded cluster: containers do not run)\n";
    assert_eq!(running.text("GET", "log", "").await.unwrap(), line);
    assert_eq!(running.text("GET", "log?container=app&tailLines=1&follow=true", "").await.unwrap(), line);
    assert_eq!(running.text("GET", "log?tailLines=0", "").await.unwrap(), "");
    assert_eq!(running.text("GET", "log?sinceSeconds=1", "").await.unwrap(), "");
    assert!(running.text("GET", "log?timestamps=true", "").await.unwrap().starts_with("2026-01-01T00:00:0"));
    let refusal = running.text("GET", "log?container=none", "").await.refusal();
    assert_eq!(refusal.message, format!("container none is not valid for pod {}", running.pod));
    let refusal = running.text("GET", "log?previous=true", "").await.refusal();
    assert_eq!(refusal.message, format!("previous terminated container \"app\" in pod \"{}\" not found", running.pod));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_waits_has_no_log() {
    let running = running_for(1).await;
    let refusal = running.text("GET", "log", "").await.refusal();
    let expected = format!("container \"app\" in pod \"{}\" is waiting to start: ContainerCreating", running.pod);
    assert_eq!((refusal.code, refusal.message), (400, expected));
}

#[tokio::test(start_paused = true)]
async fn streams_into_containers_are_refused_in_words() {
    let running = running().await;
    for (path, what) in [("exec?command=ls", "exec"), ("attach", "attach"), ("portforward?ports=80", "port-forward")] {
        let refusal = running.text("POST", path, "").await.refusal();
        let expected = format!("{what} is not possible: the embedded cluster has pods, but runs no containers");
        assert_eq!((refusal.code, refusal.message), (501, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn an_eviction_is_a_deletion_that_budgets_may_refuse() {
    let running = running().await;
    let budget = |max: i64| {
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "maxUnavailable": max},
        })
    };
    let kind = aviary_sim::store::kinds::POD_DISRUPTION_BUDGET;
    running.cluster.store().create(&kind, budget(0)).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let status = running.cluster.store().get(&kind, "default", "web").unwrap()["status"].clone();
    assert_eq!((&status["expectedPods"], &status["desiredHealthy"]), (&json!(2), &json!(2)));

    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": running.pod}}).to_string();
    let refusal = running.text("POST", "eviction", &eviction).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (429, "TooManyRequests"));
    let cause = &refusal.details.unwrap().causes[0];
    assert_eq!(cause.message, "The disruption budget web needs 2 healthy pods and has 2 currently");

    running.cluster.store().delete(&kind, "default", "web").unwrap();
    running.cluster.store().create(&kind, budget(1)).unwrap();
    let answer: Value = serde_json::from_str(&running.text("POST", "eviction", &eviction).await.unwrap()).unwrap();
    assert_eq!((&answer["status"], &answer["code"]), (&json!("Success"), &json!(201)));
    let evicted = running.pods().iter().find(|pod| pod["metadata"]["name"] == running.pod.as_str()).cloned().unwrap();
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_node_takes_no_more_pods() {
    let running = running().await;
    let kinds_node = aviary_sim::store::kinds::NODE;
    let cordon = |unschedulable: bool| {
        running.cluster.store().update(&kinds_node, "", "node-1", |node| {
            node["spec"]["unschedulable"] = json!(unschedulable);
        })
    };
    cordon(true).unwrap();
    running.cluster.store().delete(&aviary_sim::store::kinds::POD, "default", &running.pod).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    let phases = |running: &Running| -> Vec<String> {
        let mut phases: Vec<String> =
            running.pods().iter().map(|pod| pod["status"]["phase"].as_str().unwrap().to_owned()).collect();
        phases.sort();
        phases
    };
    assert_eq!(phases(&running), ["Pending", "Running"]);
    cordon(false).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    assert_eq!(phases(&running), ["Running", "Running"]);
}

#[tokio::test(start_paused = true)]
async fn every_namespace_has_its_account_and_gets_it_back() {
    use aviary_sim::store::kinds::{CONFIG_MAP, NAMESPACE, SERVICE_ACCOUNT};
    let running = running().await;
    let store = running.cluster.store();
    store.create(&NAMESPACE, json!({"metadata": {"name": "new"}, "status": {"phase": "Active"}})).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(store.get(&SERVICE_ACCOUNT, "new", "default").is_some());
    store.delete(&CONFIG_MAP, "new", "kube-root-ca.crt").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(store.get(&CONFIG_MAP, "new", "kube-root-ca.crt").is_some());
    store.delete(&NAMESPACE, "", "new").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(store.list(&CONFIG_MAP, Some("new")).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_completes_when_its_pods_have_succeeded() {
    use aviary_sim::store::kinds::{JOB, POD};
    let running = running().await;
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
        "spec": {"completions": 3, "parallelism": 2, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}},
    });
    let request =
        http::Request::post("/apis/batch/v1/namespaces/default/jobs").header("Content-Type", "application/json");
    let created: Value = running.client.request(request.body(job.to_string().into_bytes()).unwrap()).await.unwrap();
    assert_eq!(created["spec"]["backoffLimit"], 6);
    assert_eq!(created["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/job-name"], "once");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let status = || running.cluster.store().get(&JOB, "default", "once").unwrap()["status"].clone();
    assert_eq!(status()["active"], 2);
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    let finished = status();
    assert_eq!((&finished["succeeded"], finished.get("active")), (&json!(3), None));
    assert_eq!(finished["conditions"][1]["type"], "Complete");
    let pods = running.cluster.store().list(&POD, Some("default"));
    assert_eq!(pods.iter().filter(|pod| pod["status"]["phase"] == "Succeeded").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_keeps_the_names_of_its_pods() {
    use aviary_sim::store::kinds::{POD, STATEFUL_SET};
    let running = running().await;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": {
            "metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "db:1"}]}}},
    });
    let request =
        http::Request::post("/apis/apps/v1/namespaces/default/statefulsets").header("Content-Type", "application/json");
    running.client.request::<Value>(request.body(set.to_string().into_bytes()).unwrap()).await.unwrap();
    let pods = || -> Vec<(String, String)> {
        let pods = running.cluster.store().list(&POD, Some("default"));
        pods.iter()
            .filter(|pod| pod["metadata"]["labels"]["app"] == "db")
            .map(|pod| (&pod["metadata"]["name"], &pod["spec"]["containers"][0]["image"]))
            .map(|(name, image)| (name.as_str().unwrap().to_owned(), image.as_str().unwrap().to_owned()))
            .collect()
    };
    let pod = |name: &str, image: &str| (name.to_owned(), image.to_owned());
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(pods(), [pod("db-0", "db:1")], "one after another");
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    assert_eq!(pods(), [pod("db-0", "db:1"), pod("db-1", "db:1")]);
    running
        .cluster
        .store()
        .update(&STATEFUL_SET, "default", "db", |set| {
            set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("db:2");
        })
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let status = || running.cluster.store().get(&STATEFUL_SET, "default", "db").unwrap()["status"].clone();
    assert_ne!(status()["currentRevision"], status()["updateRevision"]);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(pods(), [pod("db-0", "db:2"), pod("db-1", "db:2")]);
    assert_eq!(status()["currentRevision"], status()["updateRevision"]);
    running.cluster.store().update(&STATEFUL_SET, "default", "db", |set| set["spec"]["replicas"] = json!(1)).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    assert_eq!(pods(), [pod("db-0", "db:2")]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_there_keeps_its_spec() {
    let running = running().await;
    let path = format!("/api/v1/namespaces/default/pods/{}", running.pod);
    let patch = async |spec: Value| {
        let request = http::Request::patch(&path).header("Content-Type", "application/strategic-merge-patch+json");
        let body = json!({"spec": spec}).to_string().into_bytes();
        running.client.request::<Value>(request.body(body).unwrap()).await
    };
    // Its node was given to it, which is no change of its own.
    let pod = running.pods()[0].clone();
    assert_eq!((&pod["metadata"]["generation"], &pod["spec"]["nodeName"]), (&json!(1), &json!("node-1")));
    let name = pod["spec"]["containers"][0]["name"].clone();
    for change in [
        json!({"nodeName": "node-2"}),
        json!({"restartPolicy": "Never"}),
        json!({"containers": [{"name": name, "env": [{"name": "A", "value": "b"}]}]}),
    ] {
        let refusal = patch(change).await.refusal();
        assert_eq!(refusal.code, 422);
        let wanted = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,";
        assert!(refusal.message.contains(wanted), "{}", refusal.message);
    }
    let refusal = patch(json!({"containers": [{"name": "more", "image": "more:1"}]})).await.refusal();
    assert!(refusal.message.ends_with("spec.containers: Forbidden: pod updates may not add or remove containers"));
    let refusal = patch(json!({"tolerations": null})).await.refusal();
    assert!(refusal.message.contains("existing toleration can not be modified"), "{}", refusal.message);
    patch(json!({"activeDeadlineSeconds": 500})).await.unwrap();
    let refusal = patch(json!({"activeDeadlineSeconds": 600})).await.refusal();
    assert!(refusal.message.ends_with("must be less than or equal to previous value"), "{}", refusal.message);
    let changed = patch(json!({"containers": [{"name": name, "image": "other:2"}]})).await.unwrap();
    assert_eq!(changed["metadata"]["generation"], 3);
}

#[tokio::test(start_paused = true)]
async fn fields_that_are_left_out_when_false_are_found_as_false() {
    let running = running().await;
    let names = async |path: &str| {
        let list: Value = running.client.request(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(names("/api/v1/nodes?fieldSelector=spec.unschedulable%3Dfalse").await, 1);
    assert_eq!(names("/api/v1/nodes?fieldSelector=spec.unschedulable%3Dtrue").await, 0);
    assert_eq!(names("/api/v1/pods?fieldSelector=spec.hostNetwork%3Dfalse").await, 2);
}
