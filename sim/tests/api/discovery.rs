use kube::discovery::Discovery;

use crate::support::{Refusal, world};

#[tokio::test(start_paused = true)]
async fn discovery_finds_built_in_and_custom_resources() {
    let world = world().await;
    world.widgets().await;
    let discovery = Discovery::new(world.client.clone()).run().await.unwrap();
    let find = |group: &str, version: &str, kind: &str| {
        discovery
            .resolve_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind))
            .unwrap_or_else(|| panic!("{kind} not found"))
    };
    assert_eq!(find("", "v1", "ConfigMap").0.plural, "configmaps");
    assert_eq!(find("apps", "v1", "Deployment").0.plural, "deployments");
    let (widgets, capabilities) = find("example.com", "v1", "Widget");
    assert_eq!(widgets.plural, "widgets");
    let subresources: Vec<&str> =
        capabilities.subresources.iter().map(|(resource, _)| resource.plural.as_str()).collect();
    assert_eq!(subresources, ["status", "scale"]);
}

#[tokio::test(start_paused = true)]
async fn the_server_names_its_version() {
    let world = world().await;
    let version = world.client.apiserver_version().await.unwrap();
    assert!(version.git_version.starts_with("v1."), "{version:?}");
    for path in ["/healthz", "/livez", "/readyz"] {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        assert_eq!(world.client.request_text(request).await.unwrap(), "ok");
    }
    let refusal = world.request("GET", "/nonsense", "", "").await.refusal();
    assert_eq!(refusal.code, 404);
}
