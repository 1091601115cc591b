use kube::api::{Api, DynamicObject, ListParams, PostParams, WatchParams};
use kube::core::WatchEvent;
use serde_json::json;

use crate::support::{Refusal, config_map, object, resource, world};

fn names(objects: &[DynamicObject]) -> Vec<&str> {
    objects.iter().map(|object| object.metadata.name.as_deref().unwrap()).collect()
}

async fn fill(maps: &Api<DynamicObject>, count: usize) {
    for index in 0..count {
        maps.create(&PostParams::default(), &config_map(&format!("m{index}"))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn lists_select_by_labels_and_fields() {
    let world = world().await;
    let maps = world.config_maps();
    fill(&maps, 4).await;
    let select = async |params: ListParams| {
        let list = maps.list(&params).await.unwrap();
        names(&list.items).join(",")
    };
    let labels = |selector: &str| ListParams::default().labels(selector);
    assert_eq!(select(labels("name=m1")).await, "m1");
    assert_eq!(select(labels("name in (m0, m3)")).await, "m0,m3");
    assert_eq!(select(labels("name notin (m0,m3)")).await, "m1,m2");
    assert_eq!(select(labels("name!=m0,name")).await, "m1,m2,m3");
    assert_eq!(select(labels("!name")).await, "");
    let fields = |selector: &str| ListParams::default().fields(selector);
    assert_eq!(select(fields("metadata.name=m2")).await, "m2");
    assert_eq!(select(fields("metadata.name!=m2")).await, "m0,m1,m3");
    let refusal = maps.list(&fields("data.key=1")).await.refusal();
    assert_eq!(refusal.code, 400);
    let everywhere: Api<DynamicObject> = Api::all_with(world.client.clone(), &resource("", "v1", "ConfigMap"));
    let list = everywhere.list(&fields("metadata.namespace=test,metadata.name=m1")).await.unwrap();
    assert_eq!(names(&list.items), ["m1"]);
}

#[tokio::test(start_paused = true)]
async fn events_are_selected_by_what_they_are_about() {
    let world = world().await;
    let events = world.api("", "v1", "Event");
    for (name, about) in [("e1", "podinfo"), ("e2", "other")] {
        let event = object(json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "reason": "Synced", "type": "Normal",
            "involvedObject": {"kind": "Canary", "name": about, "namespace": "test"},
        }));
        events.create(&PostParams::default(), &event).await.unwrap();
    }
    let about_podinfo = ListParams::default().fields("involvedObject.name=podinfo,involvedObject.kind=Canary");
    let list = events.list(&about_podinfo).await.unwrap();
    assert_eq!(names(&list.items), ["e1"]);
}

#[tokio::test(start_paused = true)]
async fn pages_show_one_version() {
    let world = world().await;
    let maps = world.config_maps();
    fill(&maps, 5).await;
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(names(&first.items), ["m0", "m1"]);
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    maps.create(&PostParams::default(), &config_map("m11")).await.unwrap();
    maps.delete("m3", &kube::api::DeleteParams::default()).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    let second = maps.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(names(&second.items), ["m2", "m3"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let token = second.metadata.continue_.unwrap();
    let last = maps.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(names(&last.items), ["m4"]);
    assert_eq!(last.metadata.continue_, None);
}

#[tokio::test(start_paused = true)]
async fn lists_carry_a_version_that_a_watch_can_start_from() {
    let world = world().await;
    let maps = world.config_maps();
    fill(&maps, 1).await;
    let list = maps.list(&ListParams::default()).await.unwrap();
    let version = list.metadata.resource_version.unwrap();
    maps.create(&PostParams::default(), &config_map("later")).await.unwrap();
    let mut watch = Box::pin(maps.watch(&WatchParams::default(), &version).await.unwrap());
    let event = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    match event {
        WatchEvent::Added(object) => assert_eq!(object.metadata.name.as_deref(), Some("later")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_of_the_future_is_too_large() {
    let world = world().await;
    let refusal =
        world.request("GET", "/api/v1/namespaces/test/configmaps?resourceVersion=99999999", "", "").await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (504, "Timeout"));
    assert!(refusal.message.starts_with("Too large resource version"));
}

#[tokio::test(start_paused = true)]
async fn metadata_alone_can_be_asked_for() {
    let world = world().await;
    let maps = world.config_maps();
    fill(&maps, 1).await;
    let one = maps.get_metadata("m0").await.unwrap();
    assert_eq!(one.metadata.name.as_deref(), Some("m0"));
    let list = maps.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn versions_are_asked_for_by_the_servers_rules() {
    let world = world().await;
    let maps = world.config_maps();
    fill(&maps, 3).await;
    let path = "/api/v1/namespaces/test/configmaps";
    let old = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let page = maps.list(&ListParams::default().limit(1)).await.unwrap().metadata.continue_.unwrap();
    maps.delete("m1", &kube::api::DeleteParams::default()).await.unwrap();
    let list = async |query: &str| world.request("GET", &format!("{path}?{query}"), "", "").await;
    let count = async |query: &str| list(query).await.unwrap()["items"].as_array().unwrap().len();
    assert_eq!(count(&format!("resourceVersion={old}&resourceVersionMatch=Exact")).await, 3);
    assert_eq!(count(&format!("resourceVersion={old}&resourceVersionMatch=NotOlderThan")).await, 2);
    assert_eq!(count(&format!("resourceVersion={old}&limit=5")).await, 3, "a page is of the version asked for");
    assert_eq!(count(&format!("resourceVersion={old}")).await, 2);
    assert_eq!(count("resourceVersion=0&limit=5").await, 2);
    for (query, code, expected) in [
        ("resourceVersionMatch=Exact", 422, "forbidden unless resourceVersion is provided"),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422, "\"exact\" is forbidden for resourceVersion \"0\""),
        ("resourceVersionMatch=Newest&resourceVersion=1", 422, "Unsupported value: \"Newest\""),
        ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
        ("watch=true&sendInitialEvents=true", 422, "requires setting resourceVersionMatch to NotOlderThan"),
        ("watch=true&resourceVersionMatch=NotOlderThan", 422, "forbidden for watch unless sendInitialEvents"),
        (&format!("continue={page}&resourceVersion={old}"), 400, "not allowed when using continue"),
    ] {
        let refusal = list(query).await.refusal();
        assert_eq!(refusal.code, code, "{query}");
        assert!(refusal.message.contains(expected), "{query}: {}", refusal.message);
    }
}
