#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::kinds::{CANARY, CONFIG_MAP, DEPLOYMENT, NAMESPACE, REPLICA_SET, VIRTUAL_SERVICE};
use super::*;

fn store() -> Store {
    Store::new(Clock::new("2026-01-01T00:00:00Z".parse().unwrap()), 7)
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "test"}, "data": {"a": "1"}})
}

fn owned_by(name: &str, owners: &[&Value]) -> Value {
    let references: Vec<Value> = owners
        .iter()
        .map(|owner| json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner["metadata"]["uid"]}))
        .collect();
    json!({"metadata": {"name": name, "namespace": "test", "ownerReferences": references}})
}

#[test]
fn create_fills_metadata_and_versions_rise() {
    let store = store();
    let first = store.create(&CONFIG_MAP, config_map("a")).unwrap();
    let second = store.create(&DEPLOYMENT, json!({"metadata": {"generateName": "d-", "namespace": "test"}})).unwrap();
    assert_eq!(first["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(first["kind"], "ConfigMap");
    assert!(first["metadata"].get("generation").is_none());
    assert_eq!(second["metadata"]["generation"], 1);
    assert_eq!(second["metadata"]["name"].as_str().unwrap().len(), 7);
    let version = |object: &Value| -> u64 { object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap() };
    assert_eq!(version(&second), version(&first) + 1);
    assert_eq!(store.create(&CONFIG_MAP, config_map("a")).unwrap_err().code(), 409);
}

#[test]
fn update_bumps_generation_for_spec_only_and_ignores_no_change() {
    let store = store();
    store.create(&CANARY, json!({"metadata": {"name": "c", "namespace": "test"}, "spec": {"a": 1}})).unwrap();
    let mut events = store.subscribe();
    let same = store.update(&CANARY, "test", "c", |_| ()).unwrap();
    assert!(events.try_recv().is_err(), "no change, no event");
    let status = store.update(&CANARY, "test", "c", |object| object["status"] = json!({"phase": "x"})).unwrap();
    assert_eq!(status["metadata"]["generation"], 1);
    assert_ne!(status["metadata"]["resourceVersion"], same["metadata"]["resourceVersion"]);
    let spec = store.update(&CANARY, "test", "c", |object| object["spec"]["a"] = json!(2)).unwrap();
    assert_eq!(spec["metadata"]["generation"], 2);
    assert_eq!(events.try_recv().unwrap().object(), &status);
    assert_eq!(events.try_recv().unwrap().change, ChangeType::Modified);
}

#[test]
fn finalizers_hold_an_object_until_they_are_removed() {
    let store = store();
    let mut object = config_map("held");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    store.create(&CONFIG_MAP, object).unwrap();
    store.delete(&CONFIG_MAP, "test", "held").unwrap();
    let held = store.get(&CONFIG_MAP, "test", "held").unwrap();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    store.update(&CONFIG_MAP, "test", "held", |object| object["metadata"]["finalizers"] = json!([])).unwrap();
    assert!(store.get(&CONFIG_MAP, "test", "held").is_none());
}

#[test]
fn dependents_go_when_their_last_owner_goes() {
    let store = store();
    let a = store.create(&CONFIG_MAP, config_map("a")).unwrap();
    let b = store.create(&CONFIG_MAP, config_map("b")).unwrap();
    let set = store.create(&REPLICA_SET, owned_by("set", &[&a, &b])).unwrap();
    store.create(&CONFIG_MAP, owned_by("leaf", &[&set])).unwrap();
    store.delete(&CONFIG_MAP, "test", "a").unwrap();
    let kept = store.get(&REPLICA_SET, "test", "set").unwrap();
    assert_eq!(kept["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    store.delete(&CONFIG_MAP, "test", "b").unwrap();
    assert!(store.get(&REPLICA_SET, "test", "set").is_none());
    assert!(store.get(&CONFIG_MAP, "test", "leaf").is_none());
}

#[test]
fn a_namespace_goes_with_its_contents_and_waits_for_finalizers() {
    let store = store();
    store.create(&NAMESPACE, json!({"metadata": {"name": "test"}})).unwrap();
    store.create(&CONFIG_MAP, config_map("plain")).unwrap();
    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    store.create(&CONFIG_MAP, held).unwrap();
    store.delete(&NAMESPACE, "", "test").unwrap();
    assert!(store.get(&CONFIG_MAP, "test", "plain").is_none());
    assert_eq!(store.get(&NAMESPACE, "", "test").unwrap()["status"]["phase"], "Terminating");
    store.update(&CONFIG_MAP, "test", "held", |object| object["metadata"]["finalizers"] = json!([])).unwrap();
    assert!(store.get(&NAMESPACE, "", "test").is_none());
}

#[test]
fn an_older_list_is_reconstructed_and_compaction_forgets_it() {
    let store = store();
    store.create(&CONFIG_MAP, config_map("a")).unwrap();
    let before = store.revision();
    store.update(&CONFIG_MAP, "test", "a", |object| object["data"]["a"] = json!("2")).unwrap();
    store.create(&CONFIG_MAP, config_map("b")).unwrap();
    store.delete(&CONFIG_MAP, "test", "a").unwrap();
    let (records, _) = store.records(&CONFIG_MAP, Some("test"), Some(before)).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].value()["data"]["a"], "1");
    store.compact();
    assert!(store.records(&CONFIG_MAP, None, Some(before)).is_none());
    assert!(store.watch(&CONFIG_MAP, None, WatchStart::After(before)).is_none());
}

#[test]
fn the_same_seed_gives_the_same_cluster() {
    let uid = |store: &Store| {
        store.create(&VIRTUAL_SERVICE, json!({"metadata": {"name": "v", "namespace": "test"}})).unwrap()["metadata"]["uid"]
            .clone()
    };
    assert_eq!(uid(&store()), uid(&store()));
}

#[test]
fn an_object_out_of_use_rests_as_json_and_reads_the_same() {
    let store = store();
    let object =
        json!({"metadata": {"name": "a", "namespace": "test", "labels": {"x": "y"}}, "data": {"k": "v"}, "aFirst": 1});
    let created = store.create(&CONFIG_MAP, object).unwrap();
    let record = store.record(&CONFIG_MAP, "test", "a").unwrap();
    assert!(record.is_remembered());
    record.forget();
    assert_eq!(record.value(), created);
    assert_eq!(record.labels(), json!({"x": "y"}));
    let whole: Value = serde_json::from_slice(&record.json()).unwrap();
    assert_eq!(whole, *created);
    let mut item = Vec::new();
    record.write_item(&mut item);
    let mut expected = (*created).clone();
    expected.as_object_mut().unwrap().retain(|name, _| name != "apiVersion" && name != "kind");
    assert_eq!(serde_json::from_slice::<Value>(&item).unwrap(), expected);
    let mut converted = Vec::new();
    record.json_as("example.com/v2", "ConfigMap", &mut converted);
    assert_eq!(serde_json::from_slice::<Value>(&converted).unwrap()["apiVersion"], "example.com/v2");
    assert_eq!(serde_json::from_slice::<Value>(record.metadata_json()).unwrap(), created["metadata"]);
}

#[test]
fn large_changes_shorten_the_history() {
    let store = store();
    store.create(&CONFIG_MAP, config_map("a")).unwrap();
    let first = store.revision();
    let text = "x".repeat(1024 * 1024);
    for round in 0..20 {
        store.update(&CONFIG_MAP, "test", "a", |object| object["data"]["a"] = json!(format!("{round}{text}"))).unwrap();
    }
    assert!(store.watch(&CONFIG_MAP, None, WatchStart::After(first)).is_none(), "20 MiB of changes are not all kept");
    assert!(store.watch(&CONFIG_MAP, None, WatchStart::After(store.revision() - 3)).is_some());
    assert!(store.watch(&CANARY, None, WatchStart::After(first)).is_some(), "another kind's history is its own");
}

#[test]
fn few_objects_stay_decoded() {
    let store = store();
    for index in 0..1_000 {
        let mut object = config_map(&format!("m{index}"));
        object["data"]["a"] = json!("x".repeat(1_000));
        store.create(&CONFIG_MAP, object).unwrap();
    }
    let records = store.records(&CONFIG_MAP, None, None).unwrap().0;
    let decoded = records.iter().filter(|record| record.is_remembered()).count();
    // 256 KiB of objects of some 1.2 KB.
    assert!((100..300).contains(&decoded), "{decoded}");
}
