use aviary_sim::calls::Verb;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use serde_json::json;

use crate::support::{api, bare_cluster, config_map, config_maps, event};

#[tokio::test(start_paused = true)]
async fn calls_are_counted_by_client_verb_resource_and_subresource() {
    let cluster = bare_cluster(1);
    let client = cluster.client("aviary/1.0");
    let maps = config_maps(&client);
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let before = cluster.calls().snapshot();
    maps.get("a").await.unwrap();
    maps.list(&ListParams::default()).await.unwrap();
    let _watch = maps.watch(&WatchParams::default(), "0").await.unwrap();
    let merge = Patch::Merge(json!({"data": {"key": "2"}}));
    maps.patch("a", &PatchParams::default(), &merge).await.unwrap();
    api(&client, "", "v1", "Event").create(&PostParams::default(), &event("e")).await.unwrap();
    maps.get("missing").await.unwrap_err();
    config_maps(&cluster.client("other")).delete("a", &DeleteParams::default()).await.unwrap();
    let namespaces = kube::Api::<kube::api::DynamicObject>::all_with(
        client.clone(),
        &crate::support::resource("", "v1", "Namespace"),
    );
    namespaces
        .patch_status("default", &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": "Active"}})))
        .await
        .unwrap();

    let since = cluster.calls().since(&before);
    let mine = since.of_client("aviary/1.0");
    assert_eq!(mine.count(Verb::Get, "configmaps"), 2, "failures count");
    assert_eq!(mine.count(Verb::List, "configmaps"), 1);
    assert_eq!(mine.count(Verb::Watch, "configmaps"), 1);
    assert_eq!(mine.count(Verb::Create, "configmaps"), 0, "before the snapshot");
    assert_eq!(mine.reads(), 3);
    assert_eq!(mine.writes(), 2, "{mine}");
    assert_eq!(mine.event_writes(), 1);
    assert_eq!(mine.sum(|key| key.subresource == "status"), 1);
    assert_eq!(since.count(Verb::Delete, "configmaps"), 1);
    assert_eq!(mine.count(Verb::Delete, "configmaps"), 0);
    assert_eq!(cluster.calls().total_writes(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_log_keeps_order_time_and_outcome() {
    let cluster = bare_cluster(1);
    let maps = config_maps(&cluster.client("aviary"));
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    maps.get("b").await.unwrap_err();
    let entries = cluster.calls().entries();
    let lines: Vec<String> = entries
        .iter()
        .map(|entry| {
            format!(
                "{} {} {}/{} {}",
                entry.call.key.verb, entry.call.key.resource, entry.call.namespace, entry.call.name, entry.code
            )
        })
        .collect();
    assert_eq!(lines, ["create configmaps default/ 201", "get configmaps default/b 404"]);
    let apart = entries[1].time.duration_since(entries[0].time);
    assert_eq!(apart.as_secs(), 5);
}
