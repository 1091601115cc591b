//! Panics inside effects and inside what all canaries share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aviary_actors::{Clock, Controller, Metrics};
use aviary_providers::HttpRequest;
use aviary_sim::faults::{Action, Rule};
use futures::FutureExt;
use http::{Method, Request};
use kube::client::Body;
use serde_json::json;
use tower::{Service, service_fn};

use super::Panics;
use crate::support::{AGENT, World, in_virtual_time};

/// How often something still panics.
#[derive(Clone, Default)]
struct Fuse(Arc<AtomicU32>);

impl Fuse {
    fn set(&self, times: u32) {
        self.0.store(times, Ordering::Relaxed);
    }

    fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn burn(&self) {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(left.is_err(), "on purpose");
    }
}

/// Whatever is being done when it panics, the release goes on.
async fn release_through(world: &World, fuse: &Fuse, panics: u32) {
    world.set_image("podinfo", "podinfo:6.0.1");
    world.set_image("other", "podinfo:6.0.1");
    world.wait_until("weight 20", || world.weight_of("podinfo") == 20).await;
    fuse.set(panics);
    world.wait_for_phase("podinfo", "Succeeded").await;
    world.wait_until("the other", || world.phase("other") == "Succeeded").await;
    assert!(fuse.is_spent(), "something panicked");
    for name in ["podinfo", "other"] {
        let report = world.traffic.report("test", name);
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:#?}");
    }
}

/// Starts a controller whose client panics at these requests while the fuse lasts, and two canaries.
async fn begin_with_client(world: &mut World, fuse: &Fuse, is_meant: fn(&Request<Body>) -> bool) {
    let (fuse, server) = (fuse.clone(), world.cluster.api_server());
    let client = kube::Client::new(
        service_fn(move |mut request: Request<Body>| {
            let (fuse, mut server) = (fuse.clone(), server.clone());
            async move {
                if is_meant(&request) {
                    fuse.burn();
                }
                request.headers_mut().insert(http::header::USER_AGENT, http::HeaderValue::from_static(AGENT));
                server.call(request).await
            }
        }),
        "default",
    );
    world.deploy("podinfo").await;
    world.deploy("other").await;
    let clock = *world.cluster.clock();
    world.run(Controller::start(
        world.config.clone(),
        &client,
        Arc::new(world.services.clone()),
        Clock::from_fn(move || clock.now()),
        Metrics::new().unwrap(),
    ));
    world.wait_for_phase("podinfo", "Initialized").await;
    world.wait_for_phase("other", "Initialized").await;
    world.pass(Duration::from_secs(120)).await;
}

#[test]
fn a_write_that_panics_is_made_again() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let fuse = Fuse::default();
        let is_route = |request: &Request<Body>| {
            request.method() == Method::PATCH && request.uri().path().contains("virtualservices")
        };
        begin_with_client(&mut world, &fuse, is_route).await;
        release_through(&world, &fuse, 3).await;
    });
}

#[test]
fn an_event_that_cannot_be_written_is_lost_alone() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let fuse = Fuse::default();
        let is_event =
            |request: &Request<Body>| request.method() == Method::POST && request.uri().path().ends_with("/events");
        begin_with_client(&mut world, &fuse, is_event).await;
        release_through(&world, &fuse, 1).await;
        // The next is never answered.
        let hang = Rule::new(Action::Hang).client(AGENT).resource("events").times(1);
        world.cluster.faults().add(hang);
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Progressing").await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(world.metric("aviary_events_dropped_total"), Some(2.0));
        for name in ["podinfo", "other"] {
            let last = format!("Promotion completed! Scaling down {name}.test");
            assert_eq!(world.events(name).last(), Some(&last));
        }
    });
}

/// Nobody waits for ever for an answer that will not come.
#[test]
fn a_query_that_panics_is_asked_again() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let fuse = Fuse::default();
        let (burning, prometheus) = (fuse.clone(), world.prometheus.clone());
        let service = Arc::new(move |request: HttpRequest| {
            let (fuse, prometheus) = (burning.clone(), prometheus.clone());
            async move {
                fuse.burn();
                let path = request.url.trim_start_matches("http://prometheus:9090").to_owned();
                let answer = prometheus.handle(&request.method, &path, &request.body).await;
                let (status, body) = answer.map_err(|error| aviary_actors::transport::NoAnswer(error.to_string()))?;
                let body = body.into_bytes();
                Ok(aviary_actors::transport::HttpResponse { status: status.as_u16(), retry_after: None, body })
            }
            .boxed()
        });
        world.services = std::mem::take(&mut world.services).and("prometheus", service);
        world.config.providers.metrics_server = "http://prometheus:9090".to_owned();
        world.begin_two(&Panics::default()).await;
        release_through(&world, &fuse, 3).await;
        assert_eq!(world.count_events("podinfo", "Rolling back"), 0);
    });
}

/// The endpoint of one tenant brings the client down; its gate is asked again, and the other does not notice.
#[test]
fn a_webhook_that_panics_is_called_again() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let fuse = Fuse::default();
        let burning = fuse.clone();
        let service = Arc::new(move |_: HttpRequest| {
            // Not in the future that it returns, but before there is one.
            burning.burn();
            let answer = aviary_actors::transport::HttpResponse { status: 200, retry_after: None, body: Vec::new() };
            std::future::ready(Ok(answer)).boxed()
        });
        world.services = std::mem::take(&mut world.services).and("hooks.test", service);
        let panics = Panics::default();
        world.begin_two(&panics).await;
        let hook = json!({"name": "load", "type": "rollout", "url": "http://hooks.test/"});
        world.patch_canary("podinfo", json!({"analysis": {"webhooks": [hook]}})).await;
        release_through(&world, &fuse, 3).await;
    });
}
