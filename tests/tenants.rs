//! What goes wrong in one namespace is no matter of another's.

use std::sync::Arc;
use std::time::Duration;

use aviary_actors::transport::{HttpResponse, NoAnswer};
use aviary_providers::HttpRequest;
use aviary_sim::controllers::PodDetail;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds;
use futures::FutureExt;
use serde_json::{Value, json};

use crate::support::{AGENT, World, canary, deployment, in_virtual_time};

/// More than there are slots of the router, or workers of anything else.
const CANARIES_OF_THE_NOISY: usize = 100;

fn add_namespace(world: &World, name: &str) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    world.cluster.store().create(&kinds::NAMESPACE, namespace).unwrap();
}

/// `podinfo` of namespace `test`, ready for a release, and namespace `noisy` in which these requests are never answered any
/// more and many canaries come up.
async fn beside_a_namespace_that_hangs(rule: impl FnOnce(Rule) -> Rule) -> World {
    let mut world = World::with_pods(1, PodDetail::CountsOnly);
    world.load_heavily();
    world.initialize(canary("test", "podinfo")).await;
    add_namespace(&world, "noisy");
    world.cluster.faults().add(rule(Rule::new(Action::Hang).client(AGENT).namespace("noisy")));
    for number in 0..CANARIES_OF_THE_NOISY {
        let name = format!("app-{number}");
        world.create(deployment("noisy", &name, "podinfo:6.0.0")).await;
        world.create(canary("noisy", &name)).await;
    }
    world.pass(Duration::from_secs(10)).await;
    world
}

#[test]
fn writes_of_a_namespace_that_hang_delay_no_release_of_another() {
    in_virtual_time(async {
        let world = beside_a_namespace_that_hangs(Rule::writes).await;
        let in_flight = world.metric("aviary_router_in_flight").expect("always there");
        assert!(in_flight > 0.0, "nothing hangs");
        let released = world.cluster.clock().now();
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Progressing").await;
        let took = world.cluster.clock().now().duration_since(released).as_secs_f64();
        assert!(took < 1.0, "{took} s while {in_flight} writes hang");
        // Half a minute each, if it waited for them.
        world.wait_for_phase("podinfo", "Succeeded").await;
        let took = world.cluster.clock().now().duration_since(released).as_secs_f64();
        assert!(took < 90.0, "{took} s\n{}", world.story());
        assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0);
    });
}

#[test]
fn events_of_a_namespace_that_hang_delay_no_event_of_another() {
    in_virtual_time(async {
        let world = beside_a_namespace_that_hangs(|rule| rule.writes().resource("events")).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Progressing").await;
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(
            world.count_events("podinfo", "New revision detected! Scaling up podinfo.test"),
            1,
            "{}",
            world.story()
        );
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(1)).await;
        let last = world.events("podinfo").pop();
        assert_eq!(last.as_deref(), Some("Promotion completed! Scaling down podinfo.test"), "{}", world.story());
    });
}

/// The controller's metrics server, which has enough of the queries that hold this text.
fn refuse_queries(world: &mut World, text: &'static str) {
    let prometheus = world.prometheus.clone();
    let service = Arc::new(move |request: HttpRequest| {
        let prometheus = prometheus.clone();
        async move {
            if request.url.contains(text) {
                return Ok(HttpResponse { status: 429, retry_after: None, body: Vec::new() });
            }
            let path = request.url.trim_start_matches("http://prometheus:9090").to_owned();
            let answer = prometheus.handle(&request.method, &path, &request.body).await;
            let (status, body) = answer.map_err(|error| NoAnswer(error.to_string()))?;
            Ok(HttpResponse { status: status.as_u16(), retry_after: None, body: body.into_bytes() })
        }
        .boxed()
    });
    world.services = std::mem::take(&mut world.services).and("prometheus", service);
    world.config.providers.metrics_server = "http://prometheus:9090".to_owned();
}

/// Enough of them in one round to be taken for an outage, and canaries enough that there is always one that has just asked.
#[test]
fn queries_of_a_namespace_that_are_refused_hold_no_release_of_another() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.load_heavily();
        refuse_queries(&mut world, "expensive");
        add_namespace(&world, "noisy");
        for number in 0..5 {
            let name = format!("app-{number}");
            let mut object = canary("noisy", &name);
            let metric = |number| json!({"name": format!("m-{number}"), "interval": "1m", "query": format!("expensive{number}")});
            object["spec"]["analysis"]["metrics"] = (0..6).map(metric).collect::<Value>();
            world.create(deployment("noisy", &name, "podinfo:6.0.0")).await;
            world.create(object).await;
        }
        world.initialize(canary("test", "podinfo")).await;
        for number in 0..5 {
            let deployment = ("noisy", format!("app-{number}"));
            let release = |workload: &mut Value| {
                workload["spec"]["template"]["spec"]["containers"][0]["image"] = json!("podinfo:6.0.1");
            };
            world.cluster.store().update(&kinds::DEPLOYMENT, deployment.0, &deployment.1, release).unwrap();
            world.pass(Duration::from_secs(2)).await;
        }
        world.pass(Duration::from_secs(20)).await;
        let noisy = world.cluster.store().get(&kinds::CANARY, "noisy", "app-0").unwrap();
        assert!(noisy["status"]["conditions"].to_string().contains("MetricsUnavailable"), "{:#}", noisy["status"]);

        let released = world.cluster.clock().now();
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Progressing").await;
        world
            .wait_until("the end", || {
                world.phase("podinfo") != "Progressing" || world.condition("podinfo", "MetricsAvailable").is_some()
            })
            .await;
        assert_eq!(world.condition("podinfo", "MetricsAvailable"), None, "held for another's queries");
        world.wait_for_phase("podinfo", "Succeeded").await;
        let took = world.cluster.clock().now().duration_since(released).as_secs();
        assert!(took < 90, "{took} s\n{}", world.story());
    });
}
