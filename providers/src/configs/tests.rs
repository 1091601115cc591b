#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::testing::World;

fn sum(object: Value) -> String {
    let mut object = object;
    object["metadata"] = json!({"name": "x"});
    checksum(&serde_json::from_value(object).unwrap())
}

fn tracked(subject: &Subject, template: &Value) -> Result<BTreeMap<String, String>, TargetError> {
    Ok(checksums(&tracked_configs(subject, template)?))
}

fn copies(subject: &Subject, template: &Value) -> Result<Vec<Change>, TargetError> {
    Ok(copy_changes(subject, &tracked_configs(subject, template)?))
}

fn rewrite(subject: &Subject, template: &Value) -> Result<Value, TargetError> {
    Ok(rewritten(template, &tracked_configs(subject, template)?))
}

#[test]
fn checksums_are_flaggers() {
    for (data, expected) in [
        (json!({"color": "red"}), "241889ca0604e333"),
        (json!({"output": "console", "color": "blue"}), "2a4ac3890a3db504"),
        (json!({}), "44136fa355b3678a"),
        (json!({"apiKey": "dGVzdA==", "username": "dGVzdA==", "password": "dGVzdA=="}), "706737bf88c752ac"),
        (json!({"k": "a<b>&c"}), "81868b8a19c5106c"),
    ] {
        assert_eq!(sum(json!({"data": data})), expected, "{data}");
    }
    assert_eq!(sum(json!({})), "74234e98afe7498f");
    assert_eq!(go_json(Some(&json!({"a": "\u{2028}\n"}))), r#"{"a":"\u2028\n"}"#);
}

#[test]
fn binary_data_counts() {
    let plain = sum(json!({"data": {"color": "red"}}));
    assert_eq!(sum(json!({"data": {"color": "red"}, "binaryData": {}, "immutable": true})), plain);
    let binary = sum(json!({"data": {"color": "red"}, "binaryData": {"a": "AA=="}}));
    assert_ne!(binary, plain);
    assert_ne!(sum(json!({"data": {"color": "red"}, "binaryData": {"a": "AQ=="}})), binary);
}

/// A template that names an object in every place there is.
fn template(suffix: &str) -> Value {
    let name = |name: &str| format!("{name}{suffix}");
    let container = |place: &str| {
        json!({
            "name": place,
            "env": [
                {"name": "PLAIN", "value": "1"},
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": name(&format!("{place}-env")), "key": "a"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": name(&format!("{place}-env")), "key": "a"}}},
            ],
            "envFrom": [
                {"configMapRef": {"name": name(&format!("{place}-from"))}},
                {"secretRef": {"name": name(&format!("{place}-from"))}},
            ],
        })
    };
    json!({"spec": {
        "volumes": [
            {"name": "a", "configMap": {"name": name("volume"), "defaultMode": 420}},
            {"name": "b", "secret": {"secretName": name("volume")}},
            {"name": "c", "projected": {"sources": [
                {"configMap": {"name": name("projected")}},
                {"secret": {"name": name("projected")}},
                {"serviceAccountToken": {"path": "token"}},
            ]}},
            {"name": "d", "emptyDir": {}},
        ],
        "containers": [container("main")],
        "initContainers": [container("init")],
    }})
}

const NAMES: [&str; 6] = ["volume", "projected", "main-env", "main-from", "init-env", "init-from"];

fn world_with_all() -> World {
    let mut world = World::new(json!({}));
    for name in NAMES {
        world.put(&kinds::CONFIG_MAP, name, json!({"data": {"color": "red"}}));
        world.put(&kinds::SECRET, name, json!({"type": "Opaque", "data": {"a": "dGVzdA=="}}));
    }
    world
}

#[test]
fn every_place_is_tracked_and_rewritten() {
    let world = world_with_all();
    let tracked = tracked(&world.subject(), &template("")).unwrap();
    let expected: Vec<String> =
        ["configmap", "secret"].iter().flat_map(|kind| NAMES.map(|name| format!("{kind}/{name}"))).collect();
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(tracked.keys().collect::<Vec<_>>(), expected);
    assert_eq!(tracked["configmap/volume"], "241889ca0604e333");
    assert_eq!(rewrite(&world.subject(), &template("")).unwrap(), template("-primary"));
}

#[test]
fn without_tracking_nothing_is_rewritten() {
    let mut world = world_with_all();
    world.settings.config_tracking = false;
    assert!(tracked(&world.subject(), &template("")).unwrap().is_empty());
    assert_eq!(rewrite(&world.subject(), &template("")).unwrap(), template(""));
}

#[test]
fn machinery_and_opted_out_objects_are_left_alone() {
    let mut world = world_with_all();
    world.put(&kinds::SECRET, "volume", json!({"type": "kubernetes.io/service-account-token", "data": {}}));
    world.put(
        &kinds::CONFIG_MAP,
        "volume",
        json!({"metadata": {"annotations": {"flagger.app/config-tracking": "disabled"}}}),
    );
    world.put(&kinds::SECRET, "projected", json!({"type": "kubernetes.io/tls", "data": {}}));
    let tracked = tracked(&world.subject(), &template("")).unwrap();
    assert!(!tracked.contains_key("secret/volume") && !tracked.contains_key("configmap/volume"));
    assert!(tracked.contains_key("secret/projected"));
    let rewritten = rewrite(&world.subject(), &template("")).unwrap();
    assert_eq!(rewritten["spec"]["volumes"][0], template("")["spec"]["volumes"][0]);
}

#[test]
fn what_is_missing_matters_unless_it_is_optional() {
    let mut world = world_with_all();
    world.remove(&kinds::SECRET, "main-env");
    let error = tracked(&world.subject(), &template("")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "GetTargetConfigs failed: secret main-env.test get query error: \
         secret main-env.test get query error: secrets \"main-env\" not found"
    );
    assert!(world.was_asked_for(&kinds::SECRET, "main-env"), "its appearance wakes the canary");

    let mut template = template("");
    template["spec"]["containers"][0]["env"][2]["valueFrom"]["secretKeyRef"]["optional"] = json!(true);
    assert!(!tracked(&world.subject(), &template).unwrap().contains_key("secret/main-env"));
}

#[test]
fn the_last_reference_says_whether_it_is_optional() {
    let world = World::new(json!({}));
    let template = |volume: bool, container: bool| {
        json!({"spec": {
            "volumes": [{"configMap": {"name": "a", "optional": volume}}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "a", "optional": container}}]}],
        }})
    };
    assert!(tracked(&world.subject(), &template(false, true)).is_ok());
    assert!(tracked(&world.subject(), &template(true, false)).is_err());
}

fn world_with_one() -> (World, Value) {
    let mut world = World::new(json!({}));
    world.settings.include_label_prefixes = vec!["team".into()];
    let config = json!({
        "metadata": {"labels": {"team": "web", "other": "x"}, "annotations": {"a": "b"}},
        "data": {"color": "red"},
        "binaryData": {"logo": "AAEC"},
        "immutable": true,
    });
    world.put(&kinds::CONFIG_MAP, "app", config);
    world.put(&kinds::SECRET, "app", json!({"type": "kubernetes.io/tls", "data": {"tls.key": "dGVzdA=="}}));
    let template = json!({"spec": {"volumes": [{"configMap": {"name": "app"}}, {"secret": {"secretName": "app"}}]}});
    (world, template)
}

#[test]
fn copies_hold_all_data_and_die_with_the_canary() {
    let (mut world, template) = world_with_one();
    world.apply(copies(&world.subject(), &template).unwrap());
    let copy = world.json(&kinds::CONFIG_MAP, "app-primary");
    assert_eq!(copy["data"], json!({"color": "red"}));
    assert_eq!(copy["binaryData"], json!({"logo": "AAEC"}));
    assert_eq!(copy["metadata"]["labels"], json!({"team": "web"}));
    assert_eq!(copy["metadata"].get("annotations"), None);
    assert_eq!(copy.get("immutable"), None);
    let owner = json!([{
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "podinfo", "uid": "canary-uid",
        "controller": true, "blockOwnerDeletion": true,
    }]);
    assert_eq!(copy["metadata"]["ownerReferences"], owner);
    assert_eq!(world.json(&kinds::SECRET, "app-primary")["type"], "kubernetes.io/tls");
    assert_eq!(copies(&world.subject(), &template).unwrap(), []);
}

#[test]
fn copies_follow_and_keep_what_others_wrote() {
    let (mut world, template) = world_with_one();
    world.apply(copies(&world.subject(), &template).unwrap());
    world.edit(&kinds::CONFIG_MAP, "app-primary", json!({"metadata": {"annotations": {"mine": "1"}}}));
    assert_eq!(copies(&world.subject(), &template).unwrap(), []);
    world.edit(&kinds::CONFIG_MAP, "app", json!({"data": {"color": null, "output": "x"}, "binaryData": null}));
    world.apply(copies(&world.subject(), &template).unwrap());
    let copy = world.json(&kinds::CONFIG_MAP, "app-primary");
    assert_eq!(copy["data"], json!({"output": "x"}));
    assert_eq!(copy.get("binaryData"), None);
    assert_eq!(copy["metadata"]["annotations"], json!({"mine": "1"}));
    assert_eq!(copies(&world.subject(), &template).unwrap(), []);
}

#[test]
fn canaries_share_a_copy_in_peace() {
    let (mut world, template) = world_with_one();
    world.apply(copies(&world.subject(), &template).unwrap());
    let first = world.canary.key.clone();
    world.canary.key.name = "other".into();
    world.canary.key.uid = "other-uid".into();
    world.apply(copies(&world.subject(), &template).unwrap());
    let owners = world.json(&kinds::CONFIG_MAP, "app-primary")["metadata"]["ownerReferences"].clone();
    let controllers: Vec<_> =
        owners.as_array().unwrap().iter().map(|owner| (&owner["uid"], &owner["controller"])).collect();
    assert_eq!(controllers, [(&json!("canary-uid"), &json!(true)), (&json!("other-uid"), &json!(false))]);
    assert_eq!(copies(&world.subject(), &template).unwrap(), []);
    world.canary.key = first;
    assert_eq!(copies(&world.subject(), &template).unwrap(), []);
}
