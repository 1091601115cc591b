//! Flags whose effect is on canaries: what they change from end to end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aviary_actors::transport::{HttpResponse, Network, Transport};
use aviary_providers::HttpRequest;
use aviary_sim::store::kinds;
use futures::FutureExt;
use serde_json::{Value, json};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{AGENT, World, canary, deployment, in_virtual_time};

impl World {
    /// Settings as the command line makes them.
    fn take_flags(&mut self, flags: &[&str]) {
        let argv = ["flagger"].iter().chain(flags).map(std::ffi::OsString::from);
        let Ok(cli) = aviary::args::Cli::parse_from(argv, |_| None) else { panic!("{flags:?}") };
        let aviary::args::Command::Run(run) = cli.command else { panic!("{flags:?}") };
        self.config = aviary::settings::controller_config(&run);
    }
}

fn configured(mut target: Value) -> Value {
    target["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    target
}

fn config_map(value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "test", "name": "settings"},
        "data": {"key": value},
    })
}

/// With rights in these namespaces alone (`aviary rbac --namespace=…` writes Roles, and no ClusterRole).
#[test]
fn only_the_named_namespaces_are_looked_at() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.take_flags(&["-namespace=test,second"]);
        for name in ["second", "third"] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            world.cluster.store().create(&kinds::NAMESPACE, namespace).unwrap();
            world.create(deployment(name, "podinfo", "podinfo:6.0.0")).await;
            world.create(canary(name, "podinfo")).await;
        }
        world.deploy("podinfo").await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(120)).await;
        let status = |namespace: &str| {
            let canary = world.cluster.store().get(&kinds::CANARY, namespace, "podinfo").unwrap();
            canary["status"]["phase"].clone()
        };
        assert_eq!((status("second"), status("third")), (json!("Initialized"), Value::Null));
        let calls = world.cluster.calls().entries();
        let own: Vec<_> = calls.iter().filter(|entry| entry.call.key.client == AGENT).collect();
        assert!(own.len() > 20, "{}", own.len());
        let outside: Vec<_> =
            own.iter().filter(|entry| !["test", "second"].contains(&entry.call.namespace.as_str())).collect();
        assert!(outside.is_empty(), "{outside:#?}");
    });
}

#[test]
fn references_across_namespaces_are_refused_at_every_step() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.take_flags(&["-no-cross-namespace-refs"]);
        world.deploy("podinfo").await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(120)).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("half-way", || world.status("podinfo")["canaryWeight"] == 20).await;

        // Flagger looks at the first version of the object only (Q2).
        let metrics = json!([{"name": "m", "interval": "1m", "templateRef": {"name": "t", "namespace": "secret"},
            "thresholdRange": {"min": 1}}]);
        world.patch_canary("podinfo", json!({"analysis": {"metrics": metrics}})).await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.status("podinfo")["canaryWeight"], 20, "it stands still");
        let refusal = world.condition("podinfo", "Accepted").expect("it is refused")["message"].to_string();
        assert!(
            refusal.contains("can't access metric template t.secret, cross-namespace references are blocked"),
            "{refusal}"
        );

        let alerts = json!([{"name": "a", "providerRef": {"name": "p", "namespace": "secret"}}]);
        world.patch_canary("podinfo", json!({"analysis": {"metrics": null, "alerts": alerts}})).await;
        world.pass(Duration::from_secs(60)).await;
        let refusal = world.condition("podinfo", "Accepted").expect("it is refused")["message"].to_string();
        assert!(refusal.contains("can't access alert provider p.secret"), "{refusal}");

        world.patch_canary("podinfo", json!({"analysis": {"alerts": null}})).await;
        world.wait_for_phase("podinfo", "Succeeded").await;
    });
}

#[test]
fn without_config_tracking_configs_are_neither_copied_nor_released() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.take_flags(&["-enable-config-tracking=false"]);
        world.create(config_map("old")).await;
        world.create(configured(deployment("test", "podinfo", "podinfo:6.0.0"))).await;
        world.create(canary("test", "podinfo")).await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.change(&kinds::CONFIG_MAP, "settings", |object| object["data"]["key"] = json!("new"));
        world.pass(Duration::from_secs(120)).await;
        assert_eq!(world.phase("podinfo"), "Initialized");
        assert!(world.get(&kinds::CONFIG_MAP, "settings-primary").is_none());
        let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap();
        let env = &primary["spec"]["template"]["spec"]["containers"][0]["envFrom"][0];
        assert_eq!(env["configMapRef"]["name"], "settings");
        assert!(world.status("podinfo").get("trackedConfigs").is_none(), "{}", world.status("podinfo"));
    });
}

/// A controller with the other setting takes over in the middle of a run, and ends it.
fn tracking_is_switched_in_a_run(from: &'static str, to: &'static str, uses_config: bool) {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.take_flags(&[from]);
        world.create(config_map("old")).await;
        let target = deployment("test", "podinfo", "podinfo:6.0.0");
        world.create(if uses_config { configured(target) } else { target }).await;
        world.create(canary("test", "podinfo")).await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(60)).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Progressing").await;
        world.stop().await;
        world.take_flags(&[to]);
        world.start();
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(120)).await;
        assert_eq!(world.phase("podinfo"), "Succeeded", "{}", world.story());
        assert_eq!(world.count_events("podinfo", "Restarting analysis"), 0, "{}", world.story());
        let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap();
        let container = &primary["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "podinfo:6.0.1");
        if uses_config {
            assert_eq!(container["envFrom"][0]["configMapRef"]["name"], "settings", "{to}");
        }
    });
}

#[test]
fn a_run_ends_although_config_tracking_was_switched_on() {
    tracking_is_switched_in_a_run("-enable-config-tracking=false", "-enable-config-tracking=true", false);
}

#[test]
fn a_run_ends_although_config_tracking_was_switched_off() {
    tracking_is_switched_in_a_run("-enable-config-tracking=true", "-enable-config-tracking=false", true);
}

#[test]
fn selector_labels_and_label_prefixes_are_followed() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.take_flags(&["-selector-labels=workload", "-include-label-prefix=team,example.com/"]);
        let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
        target["metadata"]["labels"] = json!({"team": "a", "example.com/tier": "web", "other": "x"});
        target["spec"]["selector"]["matchLabels"] = json!({"workload": "podinfo"});
        target["spec"]["template"]["metadata"]["labels"] = json!({"workload": "podinfo"});
        world.create(target).await;
        world.create(canary("test", "podinfo")).await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap();
        assert_eq!(primary["spec"]["selector"]["matchLabels"], json!({"workload": "podinfo-primary"}));
        let labels = &primary["metadata"]["labels"];
        assert_eq!((&labels["team"], &labels["example.com/tier"]), (&json!("a"), &json!("web")), "{labels}");
        assert!(labels.get("other").is_none(), "{labels}");
        let service = world.get(&kinds::SERVICE, "podinfo").unwrap();
        assert_eq!(service["spec"]["selector"], json!({"workload": "podinfo-primary"}));
    });
}

/// `-event-webhook` hears of canaries without event hooks of their own, also of those that are refused.
#[test]
fn the_event_webhook_hears_what_no_hook_of_the_canary_does() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.take_flags(&["-event-webhook=http://events.test/all"]);
        let calls: Arc<Mutex<Vec<(String, Duration, Value)>>> = Arc::default();
        let heard = calls.clone();
        let service = Arc::new(move |request: HttpRequest| {
            let path = request.url.rsplit('/').next().unwrap().to_owned();
            let body = serde_json::from_slice(&request.body).unwrap();
            heard.lock().unwrap().push((path, request.timeout, body));
            std::future::ready(Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() })).boxed()
        });
        world.services = std::mem::take(&mut world.services).and("events.test", service);
        world.deploy("podinfo").await;
        world.create(deployment("test", "own", "podinfo:6.0.0")).await;
        let mut own = canary("test", "own");
        own["spec"]["analysis"]["webhooks"] = json!([{"name": "e", "type": "event", "url": "http://events.test/own"}]);
        world.create(own).await;
        let mut refused = canary("test", "refused");
        refused["spec"]["provider"] = json!("linkerd");
        world.create(refused).await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.wait_for_phase("own", "Initialized").await;
        world.pass(Duration::from_secs(30)).await;

        let of = |path: &str, name: &str| -> Vec<Value> {
            let calls = calls.lock().unwrap();
            calls
                .iter()
                .filter(|(called, _, body)| called == path && body["name"] == name)
                .map(|call| call.2.clone())
                .collect()
        };
        let (all, own) = (of("all", "podinfo"), of("own", "own"));
        assert_eq!(of("all", "own"), Vec::<Value>::new());
        let message = |call: &Value| call["metadata"]["eventMessage"].as_str().unwrap().to_owned();
        assert_eq!(all.iter().map(message).collect::<Vec<_>>(), world.events("podinfo"));
        assert_eq!(own.len(), world.events("own").len());
        let last = all.last().unwrap();
        let at = last["metadata"]["timestamp"].as_str().unwrap().parse::<i64>().unwrap();
        assert!(at > 1_000_000_000_000, "milliseconds: {at}");
        let expected = json!({
            "name": "podinfo", "namespace": "test", "phase": "Initialized", "checksum": "5676f8c74",
            "metadata": {"eventMessage": "Initialization done! podinfo.test", "eventType": "Normal", "timestamp": at.to_string()},
        });
        assert_eq!(*last, expected);
        let refused = of("all", "refused");
        assert_eq!((refused.len(), &refused[0]["metadata"]["eventType"]), (1, &json!("Warning")), "{refused:?}");
        assert!(
            calls.lock().unwrap().iter().filter(|call| call.0 == "all").all(|call| call.1 == Duration::from_secs(10))
        );
    });
}

#[tokio::test]
async fn a_request_goes_through_its_proxy() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = proxy.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let read = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&head[..read]).into_owned()
    });
    let mut request = HttpRequest::post_json("http://chat.invalid/hook".to_owned(), &json!({}));
    request.proxy = Some(format!("http://{address}"));
    assert_eq!(Network::default().send(request).await.unwrap().status, 204);
    let head = served.await.unwrap();
    assert!(head.starts_with("POST http://chat.invalid/hook HTTP/1.1\r\n"), "{head}");
}
