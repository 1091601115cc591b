//! Least privilege: what `aviary rbac` grants is enough (no call of any test here may be refused), and nothing of it is idle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Method;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::audit::Call;
use super::way::Way;
use super::{
    Inside, api, canary, create_through, deployment, eventually, get, in_bench, scaled_objects, set_image, set_image_in,
};
use crate::support::daemon_set;

/// Namespace of the Lease.
const ELECTIONS: &str = "kube-system";

#[test]
fn the_granted_permissions_are_enough_and_none_is_unused() {
    in_bench("real::permissions::the_granted_permissions_are_enough_and_none_is_unused", async |bench: Inside| {
        let client = bench.client("admin").await;
        let audit = bench.audit();
        bench.grant("operator", &["--enable-leader-election"]);
        let rival = Rival::new(client.clone());
        let way = Way::start(&bench, "operator", move |method, path| rival.clone().comes_first(method, path)).await;
        let (_, account) = way.kubeconfig(&bench, "operator");
        let arguments = ["--mesh-provider", "istio", "--enable-leader-election", "--shortest-interval=2s"];
        let aviary = bench.start_aviary_as(&account, &arguments);
        a_life_with_everything(&client).await;
        eventually("the event of the election", async || audit.calls().iter().any(is_election_event)).await;
        blocking_owner_references(&bench, &client).await;
        drop(aviary);
        let unused = unused(&rights(&client).await, &audit.calls());
        assert!(unused.is_empty(), "aviary rbac grants what no call needed:\n{}", unused.join("\n"));

        some_namespaces(&bench, &client).await;
    });
}

fn is_election_event(call: &Call) -> bool {
    call.namespace == ELECTIONS && call.resource == "events"
}

/// One verb of what an account may do.
#[derive(Debug)]
struct Right {
    /// `None` for the whole cluster.
    namespace: Option<String>,
    group: String,
    /// As a call has it: with its subresource, or the path of what is no resource.
    resource: String,
    verb: String,
}

/// What the API server was told that the account `operator` may do, by whatever roles.
async fn rights(client: &Client) -> Vec<Right> {
    let objects = |kind: &str| api(client.clone(), "rbac.authorization.k8s.io", "v1", kind, None);
    let mut rights = Vec::new();
    for (bindings, kind) in [("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")] {
        let bindings = objects(bindings).list(&ListParams::default()).await.unwrap();
        let roles = objects(kind).list(&ListParams::default()).await.unwrap();
        for binding in bindings {
            let subjects = binding.data["subjects"].as_array().cloned().unwrap_or_default();
            if !subjects.iter().any(|subject| subject["name"] == "operator") {
                continue;
            }
            assert_eq!(binding.data["roleRef"]["kind"], kind, "{binding:?}");
            let is_its_role = |role: &&DynamicObject| {
                role.metadata.name.as_deref() == binding.data["roleRef"]["name"].as_str()
                    && role.metadata.namespace == binding.metadata.namespace
            };
            let role = roles.items.iter().find(is_its_role).expect("the role of a binding");
            for rule in role.data["rules"].as_array().unwrap() {
                rights.extend(rights_of(role.metadata.namespace.as_ref(), rule));
            }
        }
    }
    assert!(rights.len() > 50, "{rights:?}");
    rights
}

fn rights_of(namespace: Option<&String>, rule: &Value) -> Vec<Right> {
    let all = |field: &str| -> Vec<String> {
        let texts = rule[field].as_array().into_iter().flatten();
        texts.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let no_group = vec![String::new()];
    let (groups, resources) = match all("nonResourceURLs") {
        paths if paths.is_empty() => (all("apiGroups"), all("resources")),
        paths => (no_group, paths),
    };
    let mut rights = Vec::new();
    for group in &groups {
        for resource in &resources {
            rights.extend(all("verbs").into_iter().map(|verb| Right {
                namespace: namespace.cloned(),
                group: group.clone(),
                resource: resource.clone(),
                verb,
            }));
        }
    }
    rights
}

/// Each verb that nobody has used. What is granted for the finalizers of canaries is not asked for by a call of its own:
/// [`blocking_owner_references`].
fn unused(rights: &[Right], calls: &[Call]) -> Vec<String> {
    let is_used = |right: &&Right| {
        calls.iter().any(|call| {
            // What is granted in the cluster is not needed for the election, which has a role of its own.
            let is_where_granted = match &right.namespace {
                Some(namespace) => call.namespace == *namespace,
                None => call.namespace != ELECTIONS,
            };
            is_where_granted
                && (&call.verb, &call.group, &call.resource) == (&right.verb, &right.group, &right.resource)
        })
    };
    // TrafficSplits are written by `real::crossover`, under the same rights.
    let elsewhere = ["canaries/finalizers", "trafficsplits"];
    let asked_for = rights.iter().filter(|right| !elsewhere.contains(&right.resource.as_str()));
    asked_for.filter(|right| !is_used(right)).map(|right| format!("{right:?}")).collect()
}

/// One canary that has everything, until it is deleted.
async fn a_life_with_everything(client: &Client) {
    let create = async |object: Value| create_through(client.clone(), object).await;
    let metadata = |name: &str| json!({"namespace": "test", "name": name});
    create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("settings"), "data": {"a": "0"}}))
        .await;
    create(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("passwords"), "stringData": {"a": "0"}}))
        .await;
    let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
    target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "passwords"}}]);
    create(target).await;
    let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}});
    create(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata("podinfo"),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "minReplicas": 2, "maxReplicas": 4, "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }))
    .await;
    let mut object = canary("test", "podinfo");
    object["spec"]["revertOnDeletion"] = json!(true);
    object["spec"]["autoscalerRef"] =
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
    object["spec"]["service"]["trafficPolicy"] = json!({"tls": {"mode": "DISABLE"}});
    object["spec"]["analysis"] =
        json!({"interval": "2s", "threshold": 1, "maxWeight": 50, "stepWeight": 50, "metrics": []});
    create(object).await;
    let phase = async |phase: &str| phase_of(client, "test").await == phase;
    eventually("initialized", async || phase("Initialized").await).await;

    // Everything of the primary changes, and every service.
    change(client, "", "v1", "ConfigMap", "settings", json!({"data": {"a": "1"}})).await;
    change(client, "", "v1", "Secret", "passwords", json!({"stringData": {"a": "1"}})).await;
    let scaler = json!({"spec": {"maxReplicas": 5}});
    change(client, "autoscaling", "v2", "HorizontalPodAutoscaler", "podinfo", scaler).await;
    let service = json!({"spec": {"service": {"port": 9899, "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}}});
    change(client, "flagger.app", "v1beta1", "Canary", "podinfo", service).await;
    set_image(client, "podinfo", "podinfo:6.1.0").await;
    // From Initialized there is no way there but a release.
    eventually("Succeeded", async || phase("Succeeded").await).await;

    // Where nobody asks, this metric has no value, and the release fails. What has been told before is counted in the event.
    let metric = json!({"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}});
    let analysis = json!({"spec": {"analysis": {"metrics": [metric]}}});
    change(client, "flagger.app", "v1beta1", "Canary", "podinfo", analysis).await;
    set_image(client, "podinfo", "podinfo:6.2.0").await;
    eventually("Failed", async || phase("Failed").await).await;
    let canaries = api(client.clone(), "flagger.app", "v1beta1", "Canary", Some("test"));
    create(daemon_set("test", "agent", "podinfo:6.0.0")).await;
    let mut object = canary("test", "agent");
    object["spec"]["targetRef"]["kind"] = json!("DaemonSet");
    create(object).await;
    let agent = async || get(&canaries, "agent").await.unwrap()["status"]["phase"] == "Initialized";
    eventually("the canary of a DaemonSet is initialized", agent).await;
    scaled_by_keda(client).await;
    of_other_systems(client).await;
    canaries.delete("podinfo", &DeleteParams::default()).await.unwrap();
    eventually("the canary is gone", async || get(&canaries, "podinfo").await.is_none()).await;
}

/// A Rollout that begins, and a BirdWatch that is deleted when its version is released.
async fn of_other_systems(client: &Client) {
    for object in super::rollouts::objects() {
        let text =
            object.to_string().replace("podinfo", "rolled").replace("stefanprodan/rolled", "stefanprodan/podinfo");
        create_through(client.clone(), serde_json::from_str(&text).unwrap()).await;
    }
    super::birdwatch::deploy(client, "aleph", "4.0.0").await;
    let mut object = super::birdwatch::birdwatch("aleph", "rollback");
    object["spec"]["metric"] = json!("vector(0)");
    object["spec"]["delete_on_success"] = json!(true);
    create_through(client.clone(), object).await;
    let rollouts = api(client.clone(), "apps.weave.works", "v1beta1", "Rollout", Some("test"));
    let state = async || get(&rollouts, "rolled").await.unwrap()["status"]["state"].clone();
    eventually("the rollout has a state", async || state().await.is_string()).await;
    let birdwatches = api(client.clone(), "otomato.link", "v1alpha1", "BirdWatch", Some("test"));
    eventually("the version is released", async || get(&birdwatches, "aleph").await.is_none()).await;
}

/// A canary whose autoscaler is KEDA's. Nobody scales here; its primary gets a copy, and its target's is paused.
async fn scaled_by_keda(client: &Client) {
    let create = async |object: Value| create_through(client.clone(), object).await;
    let scaled_objects = scaled_objects(client).await;
    create(deployment("test", "queue", "podinfo:6.0.0")).await;
    create(json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"namespace": "test", "name": "queue"},
        "spec": {"scaleTargetRef": {"name": "queue"}, "minReplicaCount": 1, "triggers": []},
    }))
    .await;
    let mut object = canary("test", "queue");
    object["spec"]["autoscalerRef"] =
        json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "queue"});
    create(object).await;
    let is_paused = async |name: &str| {
        let object = get(&scaled_objects, name).await;
        object.map(|object| !object["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"].is_null())
    };
    eventually("the primary has a copy", async || is_paused("queue-primary").await == Some(false)).await;
    eventually("the target's is paused", async || is_paused("queue").await == Some(true)).await;
}

async fn phase_of(client: &Client, namespace: &str) -> Value {
    let canaries = api(client.clone(), "flagger.app", "v1beta1", "Canary", Some(namespace));
    get(&canaries, "podinfo").await.unwrap()["status"]["phase"].clone()
}

async fn change(client: &Client, group: &str, version: &str, kind: &str, name: &str, patch: Value) {
    let api = api(client.clone(), group, version, kind, Some("test"));
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Somebody who is faster: when the controller first writes to an object of a kind, that object is changed before the write
/// arrives. So each kind is read after a conflict once, and at no other time.
#[derive(Clone)]
struct Rival {
    client: Client,
    met: Arc<Mutex<BTreeSet<String>>>,
}

impl Rival {
    fn new(client: Client) -> Rival {
        Rival { client, met: Arc::default() }
    }

    async fn comes_first(self, method: Method, path: String) {
        let Some(written) = Written::of(&method, &path) else { return };
        if !self.met.lock().insert(written.kind.to_owned()) {
            return;
        }
        let mut change = json!({"metadata": {"annotations": {"example.com/rival": "was here"}}});
        // What is decided on the generation of a workload, and not on its version, does not mind an annotation.
        if ["deployments", "daemonsets"].contains(&written.kind) {
            change["spec"] = json!({"revisionHistoryLimit": 7});
        }
        let request = http::Request::patch(written.object).header("content-type", "application/merge-patch+json");
        let request = request.body(change.to_string().into_bytes()).unwrap();
        self.client.request_text(request).await.unwrap();
    }
}

/// An object of a namespace that a request changes.
struct Written<'a> {
    /// Plural.
    kind: &'a str,
    /// The path, without a subresource.
    object: &'a str,
}

impl Written<'_> {
    /// `None` for whatever else is asked.
    fn of<'a>(method: &Method, path: &'a str) -> Option<Written<'a>> {
        if ![Method::PATCH, Method::PUT].contains(method) {
            return None;
        }
        let (_, rest) = path.split_once("/namespaces/")?;
        let mut parts = rest.split('/');
        let (_namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        let subresource: usize = parts.map(|part| part.len() + 1).sum();
        // The Lease has no rival, and events are nobody's.
        let is_one = !name.is_empty() && !["leases", "events"].contains(&kind);
        is_one.then(|| Written { kind, object: &path[..path.len() - subresource] })
    }
}

/// The bench has the admission plugin OwnerReferencesPermissionEnforcement, which wants a permission for owner references like
/// those of all that Aviary creates.
async fn blocking_owner_references(bench: &Inside, admin: &Client) {
    bench.grant("lesser", &[]);
    let roles = api(admin.clone(), "rbac.authorization.k8s.io", "v1", "ClusterRole", None);
    let mut role = get(&roles, "lesser").await.unwrap();
    role["rules"].as_array_mut().unwrap().retain(|rule| rule["resources"] != json!(["canaries/finalizers"]));
    let lesser = json!({"rules": role["rules"]});
    roles.patch("lesser", &PatchParams::default(), &Patch::Merge(lesser)).await.unwrap();
    // The plugin asks who may, and not whether the owner is there.
    let owned: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "test", "name": "owned", "ownerReferences": [{
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "podinfo", "uid": "u",
            "controller": true, "blockOwnerDeletion": true,
        }]},
    }))
    .unwrap();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let created_by = async |account: &str| {
        let client = bench.client_as(&format!("system:serviceaccount:aviary-system:{account}")).await;
        let configs: Api<DynamicObject> = api(client, "", "v1", "ConfigMap", Some("test"));
        configs.create(&dry_run, &owned).await
    };
    created_by("operator").await.unwrap();
    eventually(
        "without the permission it is refused",
        async || matches!(created_by("lesser").await, Err(kube::Error::Api(status)) if status.code == 403),
    )
    .await;
}

/// With rights in two namespaces and nowhere else.
async fn some_namespaces(bench: &Inside, client: &Client) {
    let namespaces = ["team-a", "team-b"];
    for namespace in namespaces {
        create_through(
            client.clone(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        )
        .await;
    }
    bench.grant("limited", &["--namespace=team-a,team-b", "--enable-leader-election"]);
    let audit = bench.audit();
    let _aviary = bench.start_aviary_as("limited", &["-namespace", "team-a,team-b", "-enable-leader-election"]);
    // Nobody looks at the first of them, where a Deployment is from before.
    for namespace in ["test", "team-a", "team-b"] {
        if namespaces.contains(&namespace) {
            create_through(client.clone(), deployment(namespace, "podinfo", "podinfo:6.0.0")).await;
        }
        let mut object = canary(namespace, "podinfo");
        object["spec"]["skipAnalysis"] = json!(true);
        create_through(client.clone(), object).await;
    }
    for namespace in namespaces {
        eventually(namespace, async || phase_of(client, namespace).await == "Initialized").await;
    }
    for namespace in namespaces {
        set_image_in(client, namespace, "podinfo", "podinfo:6.0.1").await;
    }
    for namespace in namespaces {
        eventually(namespace, async || phase_of(client, namespace).await == "Succeeded").await;
    }
    assert_eq!(phase_of(client, "test").await, Value::Null);
    let elsewhere = |call: &Call| !namespaces.contains(&call.namespace.as_str());
    assert_eq!(audit.count(elsewhere), BTreeMap::from([("get /version".to_owned(), 1)]));
}
