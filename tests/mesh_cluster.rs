//! A mesh whose control plane is in another cluster than the workloads (`-kubeconfig-service-mesh`): its objects are written and
//! watched there, and nothing else is.

use std::sync::Arc;
use std::time::Duration;

use aviary::embedded;
use aviary::kubernetes::mesh;
use aviary_actors::{Clock, Controller, Metrics};
use aviary_sim::cluster::Cluster;
use aviary_sim::store::{GroupKind, kinds};
use serde_json::{Value, json};

use crate::support::{AGENT, World, canary, checks, create_through, deployment, in_virtual_time};

const MESH_KINDS: [&GroupKind; 2] = [&kinds::VIRTUAL_SERVICE, &kinds::DESTINATION_RULE];

/// The cluster of the mesh, beside a world that is the workloads'.
struct Mesh(Cluster);

impl Mesh {
    fn new() -> Mesh {
        let cluster = Cluster::new(embedded::cluster_options(2));
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}});
        cluster.store().create(&kinds::NAMESPACE, namespace).unwrap();
        Mesh(cluster)
    }

    /// The controller, as `aviary run` starts it with both kubeconfigs.
    fn start_controller(&self, world: &mut World) {
        let mut config = world.config.clone();
        config.providers.mesh_is_elsewhere = true;
        let client = mesh::joined(world.cluster.client(AGENT), self.0.client(AGENT));
        let (clock, services) = (*world.cluster.clock(), world.services.clone());
        let clock = Clock::from_fn(move || clock.now());
        world.run(Controller::start(config, &client, Arc::new(services), clock, Metrics::new().unwrap()));
    }

    fn names(&self, kind: &GroupKind) -> Vec<String> {
        let objects = self.0.store().list(kind, Some("test"));
        objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    fn routes(&self) -> Value {
        (*self.0.store().get(&kinds::VIRTUAL_SERVICE, "test", "podinfo").expect("exists")).clone()
    }

    fn weights(&self) -> Vec<Value> {
        let routes = self.routes();
        let sides = routes["spec"]["http"][0]["route"].as_array().cloned().unwrap_or_default();
        sides.iter().map(|side| side["weight"].clone()).collect()
    }
}

/// No sidecar is here to count requests, so nothing is asked about them.
fn unmeasured(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = canary("test", "podinfo");
    object["spec"]["analysis"]["metrics"] = json!([]);
    change(&mut object);
    object
}

async fn begin(change: impl FnOnce(&mut Value), users: Option<Value>) -> (World, Mesh) {
    let (mut world, mesh) = (World::new(1), Mesh::new());
    if let Some(routes) = users {
        create_through(mesh.0.client("kubectl"), routes).await;
    }
    world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
    world.create(unmeasured(change)).await;
    mesh.start_controller(&mut world);
    world.wait_for_phase("podinfo", "Initialized").await;
    world.pass(Duration::from_secs(60)).await;
    (world, mesh)
}

#[test]
fn a_release_moves_the_routes_in_the_meshs_cluster_and_nothing_else_there() {
    in_virtual_time(async {
        let (mut world, mesh) = begin(|_| {}, None).await;
        assert_eq!(mesh.names(&kinds::VIRTUAL_SERVICE), ["podinfo"]);
        assert_eq!(mesh.names(&kinds::DESTINATION_RULE), ["podinfo-canary", "podinfo-primary"]);
        for kind in MESH_KINDS {
            assert!(world.cluster.store().list(kind, None).is_empty(), "{kind} is not in the cluster of the workloads");
        }
        // A garbage collector that knows no canaries would take what belongs to one for orphaned.
        assert_eq!(mesh.routes()["metadata"]["ownerReferences"], Value::Null);
        for kind in [&kinds::SERVICE, &kinds::DEPLOYMENT, &kinds::CANARY, &kinds::EVENT] {
            assert!(mesh.0.store().list(kind, Some("test")).is_empty(), "{kind} is not in the cluster of the mesh");
        }

        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("weight 20", || world.status("podinfo")["canaryWeight"] == 20).await;
        assert_eq!(mesh.weights(), [json!(80), json!(20)]);
        world.kill();
        mesh.start_controller(&mut world);
        world.wait_until("weight 30", || world.status("podinfo")["canaryWeight"] == 30).await;
        assert_eq!(mesh.weights(), [json!(70), json!(30)]);
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(mesh.weights(), [json!(100), json!(0)]);
        world.pass(Duration::from_secs(60)).await;

        // What is edited there is seen.
        mesh.0
            .store()
            .update(&kinds::VIRTUAL_SERVICE, "test", "podinfo", |routes| {
                routes["spec"]["http"][0]["route"][0]["weight"] = json!(1);
                routes["spec"]["http"][0]["route"][1]["weight"] = json!(99);
            })
            .unwrap();
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(mesh.weights(), [json!(100), json!(0)]);
        checks::assert_calls_are_granted(&mesh.0, &[AGENT]);
    });
}

/// As in Flagger: nothing there goes by itself.
#[test]
fn routes_in_the_meshs_cluster_outlive_their_canary() {
    in_virtual_time(async {
        let (world, mesh) = begin(|_| {}, None).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until("the primary goes", || world.get(&kinds::DEPLOYMENT, "podinfo-primary").is_none()).await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(mesh.names(&kinds::VIRTUAL_SERVICE), ["podinfo"]);
        // And serve the next one of this name.
        world.change(&kinds::DEPLOYMENT, "podinfo", |target| target["spec"]["replicas"] = json!(2));
        world.create(unmeasured(|_| {})).await;
        world.wait_for_phase("podinfo", "Initialized").await;
        assert_eq!(mesh.weights(), [json!(100), json!(0)]);
        assert_eq!(
            mesh.routes()["metadata"]["annotations"]["flagger.kubernetes.io/original-configuration"],
            Value::Null
        );
    });
}

#[test]
fn users_routes_in_the_meshs_cluster_are_given_back() {
    in_virtual_time(async {
        let spec = json!({
            "hosts": ["podinfo"], "gateways": ["mesh"],
            "http": [{"timeout": "5s", "route": [{"destination": {"host": "podinfo"}}]}],
        });
        let users = json!({
            "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
            "metadata": {"namespace": "test", "name": "podinfo"}, "spec": spec,
        });
        let (world, mesh) = begin(|canary| canary["spec"]["revertOnDeletion"] = json!(true), Some(users)).await;
        assert_ne!(mesh.routes()["spec"], spec, "they are taken over");
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until("it is gone", || world.get(&kinds::CANARY, "podinfo").is_none()).await;
        assert_eq!(mesh.routes()["spec"], spec);
    });
}
