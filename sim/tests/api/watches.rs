use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, WatchParams};
use kube::core::WatchEvent;
use kube::runtime::watcher;
use serde_json::json;

use crate::support::{config_map, version_of, world};

async fn collect(api: &Api<DynamicObject>, params: &WatchParams, version: &str, count: usize) -> Vec<String> {
    let stream = api.watch(params, version).await.unwrap();
    stream
        .take(count)
        .map(|event| match event.unwrap() {
            WatchEvent::Added(object) => format!("added {}", object.metadata.name.unwrap()),
            WatchEvent::Modified(object) => format!("modified {}", object.metadata.name.unwrap()),
            WatchEvent::Deleted(object) => format!("deleted {}", object.metadata.name.unwrap()),
            WatchEvent::Bookmark(bookmark) => {
                let ends = bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end");
                format!("bookmark{}", if ends { " end" } else { "" })
            }
            WatchEvent::Error(status) => format!("error {} {}", status.code, status.reason),
        })
        .collect()
        .await
}

async fn change(api: &Api<DynamicObject>, name: &str, patch: serde_json::Value) {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_version_misses_nothing() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    change(&maps, "a", json!({"data": {"key": "2"}})).await;
    maps.create(&PostParams::default(), &config_map("b")).await.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let params = WatchParams::default().timeout(5);
    let seen = collect(&maps, &params, &version_of(&created), 3).await;
    assert_eq!(seen, ["modified a", "added b", "deleted a"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_any_version_begins_with_what_is_there() {
    let world = world().await;
    let maps = world.config_maps();
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    // Which a busy real server may tell after the bookmark with which it announces the end.
    let params = WatchParams::default().timeout(5).disable_bookmarks();
    assert_eq!(collect(&maps, &params, "0", 1).await, ["added a"]);
}

#[tokio::test(start_paused = true)]
async fn objects_enter_and_leave_a_selection() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    change(&maps, "a", json!({"metadata": {"labels": {"in": "yes"}}})).await;
    change(&maps, "a", json!({"data": {"key": "2"}})).await;
    change(&maps, "a", json!({"metadata": {"labels": {"in": null}}})).await;
    change(&maps, "a", json!({"data": {"key": "3"}})).await;
    let params = WatchParams::default().labels("in=yes").timeout(5).disable_bookmarks();
    let seen = collect(&maps, &params, &version_of(&created), 9).await;
    assert_eq!(seen, ["added a", "modified a", "deleted a"]);
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_a_marked_bookmark() {
    let world = world().await;
    let maps = world.config_maps();
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let params = WatchParams::default().initial_events().timeout(5);
    assert_eq!(collect(&maps, &params, "0", 2).await, ["added a", "bookmark end"]);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_once_a_minute_and_carry_the_clusters_version() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let secrets = world.api("", "v1", "Secret");
    let mut stream = Box::pin(secrets.watch(&WatchParams::default(), &version_of(&created)).await.unwrap());
    change(&maps, "a", json!({"data": {"key": "2"}})).await;
    let latest = version_of(&maps.get("a").await.unwrap());
    let event = tokio::time::timeout(Duration::from_secs(90), stream.next()).await;
    match event.unwrap().unwrap().unwrap() {
        WatchEvent::Bookmark(bookmark) => assert_eq!(bookmark.metadata.resource_version, latest),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_at_its_timeout() {
    let world = world().await;
    let maps = world.config_maps();
    let version = version_of(&maps.create(&PostParams::default(), &config_map("a")).await.unwrap());
    let started = tokio::time::Instant::now();
    let params = WatchParams::default().timeout(7).disable_bookmarks();
    assert_eq!(collect(&maps, &params, &version, 1).await, Vec::<String>::new());
    let lasted = started.elapsed();
    assert!(lasted >= Duration::from_secs(7) && lasted < Duration::from_secs(9), "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_its_version_before_it_ends() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let outside = WatchParams::default().labels("no=such").timeout(7);
    let mut events = Box::pin(maps.watch(&outside, &version_of(&created)).await.unwrap());
    change(&maps, "a", json!({"data": {"key": "2"}})).await;
    let latest = maps.get("a").await.unwrap();
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = events.next().await else { panic!("no bookmark") };
    let number = |version: &str| version.parse::<u64>().unwrap();
    assert!(number(&bookmark.metadata.resource_version) >= number(&version_of(&latest)));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_every_state_through_many_reconnects() {
    let world = world().await;
    let maps = world.config_maps();
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    // Other parts of a real cluster have maps, too.
    let config = watcher::Config::default().fields("metadata.name=a").timeout(2);
    let mut events = Box::pin(watcher(maps.clone(), config));
    // A server that is slow may refuse a watch, which the watcher then asks for again; of a broken one there is no end.
    let mut refusals = 0;
    let writer = async {
        for round in 2..20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            change(&maps, "a", json!({"data": {"key": round.to_string()}})).await;
        }
    };
    let reader = async {
        let mut seen = Vec::new();
        while seen.last().map(String::as_str) != Some("19") {
            match events.next().await.unwrap() {
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    seen.push(object.data["data"]["key"].as_str().unwrap().to_owned());
                }
                Ok(_) => {}
                Err(error) => {
                    refusals += 1;
                    assert!(refusals < 5, "{error}");
                }
            }
        }
        // What is listed anew after a refusal was seen before.
        seen.dedup();
        seen
    };
    let (seen, ()) = tokio::join!(reader, writer);
    let expected: Vec<String> = (1..20).map(|round| round.to_string()).collect();
    assert_eq!(seen, expected);
}
