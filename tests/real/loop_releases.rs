//! Aviary → VirtualService → istiod → Envoy → pods → Prometheus → Aviary, with users all the time.
//!
//! A sample runs with the other tests; `AVIARY_REAL_FULL=1` makes ten good releases in a row, and more of the others.

use std::time::Duration;

use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::loop_app::{App, Scene, canary_of, host};
use super::loop_evidence::{Logs, Routes, Shares, Waits};
use super::{Inside, create_through, deployment, eventually, get, in_bench, is_full_set, now};

#[test]
fn users_lose_nothing_but_what_the_rule_costs() {
    in_bench("real::loop_releases::users_lose_nothing_but_what_the_rule_costs", async |bench: Inside| {
        let is_full = is_full_set();
        let _network = bench.network().await;
        let _aviary = bench.start_aviary(&["--mesh-provider", "istio"]);
        let client = bench.client("admin").await;
        let scene = Scene { client, routes: Routes::follow(), logs: Logs::of(&bench), waits: Waits::follow() };
        // Side by side, since most of a release is waiting.
        tokio::join!(good_releases(&scene, is_full), bad_releases(&scene, is_full), taken_over(&scene, is_full));
    });
}

async fn good_releases(scene: &Scene, is_full: bool) {
    let app = App::new(scene, "good", 200.0, &[25, 75], 2).await;
    app.lost_nothing().await;
    for release in 1..=if is_full { 10 } else { 2 } {
        app.good_release(&format!("1.{release}.0"), &[25, 75]).await;
    }
    app.lost_nothing().await;
    print!("{}", app.end().await);
}

async fn bad_releases(scene: &Scene, is_full: bool) {
    let app = App::new(scene, "bad", 100.0, &[20, 40], 2).await;
    app.lost_nothing().await;
    for round in 1..=if is_full { 3 } else { 1 } {
        app.bad_release(&format!("{round}.1.0-err10"), 20, 0.1, 2).await;
        app.bad_release(&format!("{round}.2.0-err100"), 20, 1.0, 2).await;
    }
    print!("{}", app.end().await);
}

/// A Deployment that serves behind its owner's Service and VirtualService gets a Canary, and loses it.
async fn taken_over(scene: &Scene, is_full: bool) {
    let name = "taken";
    create_through(scene.client.clone(), deployment("test", name, "taken:1.0.0")).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "test", "name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    });
    create_through(scene.client.clone(), service).await;
    let spec = json!({
        "hosts": [host(name)], "gateways": ["istio-system/public-gateway"],
        "http": [{"route": [{"destination": {"host": name}}]}],
    });
    let routes = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"namespace": "test", "name": name},
        "spec": spec,
    });
    create_through(scene.client.clone(), routes).await;
    let app = App::of_users(scene, name, 100.0).await;
    let mut version = 0;
    // In the middle of a release, and between two.
    for in_release in [true, false].into_iter().take(if is_full { 2 } else { 1 }) {
        let mut object = canary_of(name, &[50], 2);
        object["spec"]["revertOnDeletion"] = json!(true);
        let began = now();
        create_through(scene.client.clone(), object).await;
        app.is_initialized().await;
        app.in_force(&Shares::from([(format!("{name}-primary"), 100)]), began).await;
        app.lost_nothing().await;
        if in_release {
            version += 1;
            app.set_version(&format!("1.{version}.0")).await;
            app.step(50, began).await;
            app.pass(Duration::from_secs(3)).await;
        }
        let began = now();
        app.canaries().delete(name, &DeleteParams::default()).await.unwrap();
        eventually("the canary is gone", async || app.phase().await.is_none()).await;
        app.in_force(&Shares::from([(name.to_owned(), 100)]), began).await;
        app.are_pods_of(name, Some(&format!("{name}:1.{version}.0"))).await;
        app.lost_nothing().await;
        let present: Option<Value> = get(&app.virtual_services(), name).await;
        assert_eq!(present.unwrap()["spec"], spec, "its owner's routes are back");
    }
    print!("{}", app.end().await);
}
