use kube::discovery::Discovery;

use crate::bench;
use crate::support::{Refusal, widget_definition_in, world};

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

#[tokio::test(start_paused = true)]
async fn health_is_told_check_by_check() {
    let world = world().await;
    let text = async |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        world.client.request_text(request).await.unwrap()
    };
    assert_eq!(text("/healthz/ping").await, "ok");
    for (path, end) in [("/readyz?verbose", "readyz check passed\n"), ("/livez?verbose=1", "livez check passed\n")] {
        let told = text(path).await;
        assert!(told.starts_with("[+]ping ok\n") && told.ends_with(end), "{path}: {told}");
        // A real server has dozens of others.
        assert!(bench::inside().is_some() || told.lines().count() == 2, "{path}: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_counts_requests_and_objects() {
    let world = world().await;
    let metrics = async || {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        world.client.request_text(request).await.unwrap()
    };
    let line = "apiserver_storage_objects{resource=\"configmaps\"} 1";
    assert!(!metrics().await.lines().any(|found| found == line));
    world.config_maps().create(&Default::default(), &crate::support::config_map("a")).await.unwrap();
    let text = metrics().await;
    assert!(text.lines().any(|found| found == line), "{text}");
    let counted = "apiserver_request_total{resource=\"configmaps\",subresource=\"\",verb=\"CREATE\"} 1";
    assert!(text.lines().any(|found| found == counted), "{text}");
}

/// kubectl asks for the document in protobuf when it is to create a kind that no version 3 document has.
#[tokio::test(start_paused = true)]
async fn the_older_openapi_document_points_at_the_newer_ones() {
    use http_body_util::BodyExt;
    let world = world().await;
    for (accept, media_type) in [
        ("application/json", "application/json"),
        (
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        ),
    ] {
        let request =
            http::Request::get("/openapi/v2").header("Accept", accept).body(kube::client::Body::empty()).unwrap();
        let response = world.client.send(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["Content-Type"].to_str().unwrap()),
            (200, media_type)
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("described in /openapi/v3"));
    }
}

/// Body, media type and entity tag of an aggregated document; the body is empty for 304.
async fn aggregated(world: &crate::support::World, path: &str, tag: &str) -> (u16, serde_json::Value, String, String) {
    use http_body_util::BodyExt;
    let request = http::Request::get(path)
        .header("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
        .header("If-None-Match", tag)
        .body(kube::client::Body::empty())
        .unwrap();
    let response = world.client.send(request).await.unwrap();
    let header = |name: &str| response.headers().get(name).map_or("", |text| text.to_str().unwrap()).to_owned();
    let (status, media_type, tag) = (response.status().as_u16(), header("Content-Type"), header("ETag"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default(), media_type, tag)
}

#[tokio::test(start_paused = true)]
async fn one_document_tells_of_every_group() {
    let world = world().await;
    let (_, before, media_type, tag) = aggregated(&world, "/apis", "").await;
    assert_eq!(media_type, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert_eq!(before["apiVersion"], "apidiscovery.k8s.io/v2");
    let names: Vec<&str> =
        before["items"].as_array().unwrap().iter().map(|group| group["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names[..4], ["apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io"]);
    let autoscaling = &before["items"][names.iter().position(|name| *name == "autoscaling").unwrap()];
    assert_eq!(
        (&autoscaling["versions"][0]["version"], &autoscaling["versions"][1]["version"]),
        (&"v2".into(), &"v1".into())
    );

    assert_eq!(aggregated(&world, "/apis", &tag).await.0, 304);
    let group = "discovery.example.com";
    world.define(widget_definition_in(group)).await;
    world.until_served(&world.api(group, "v1", "Widget")).await;
    let find = |document: &serde_json::Value| {
        document["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == group).cloned()
    };
    world.until(async || find(&aggregated(&world, "/apis", "").await.1).is_some()).await;
    let (status, after, _, new_tag) = aggregated(&world, "/apis", &tag).await;
    assert_eq!(status, 200);
    assert_ne!(tag, new_tag);
    let widgets = find(&after).unwrap();
    let resource = &widgets["versions"][0]["resources"][0];
    assert_eq!((&resource["resource"], &resource["shortNames"][0]), (&"widgets".into(), &"wd".into()));
    let subresources: Vec<&str> =
        resource["subresources"].as_array().unwrap().iter().map(|sub| sub["subresource"].as_str().unwrap()).collect();
    assert_eq!(subresources, ["status", "scale"]);

    let (_, core, ..) = aggregated(&world, "/api", "").await;
    let pods = core["items"][0]["versions"][0]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["resource"] == "pods")
        .unwrap();
    assert_eq!(pods["categories"], serde_json::json!(["all"]));
    assert!(pods["subresources"].as_array().unwrap().iter().any(|sub| sub["subresource"] == "eviction"));
}
