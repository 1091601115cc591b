//! What a part written alone comes to is what the general way makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tower::Service;

use crate::{Cluster, ClusterOptions};

const CANARIES: &str = "/apis/flagger.app/v1beta1/namespaces/default/canaries";

fn cluster() -> Cluster {
    cluster_of(definition())
}

fn definition() -> Value {
    serde_saphyr::from_str(include_str!("../../../../crds/yaml/canaries.flagger.app.yaml")).unwrap()
}

/// A Canary with fields of its own at the root, which have defaults, and a default for its status.
fn definition_with_root_defaults() -> Value {
    let mut definition = definition();
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        let properties = &mut version["schema"]["openAPIV3Schema"]["properties"];
        properties["mode"] = json!({"type": "string", "default": "fast"});
        properties["limits"] = json!({
            "type": "object", "default": {}, "properties": {"most": {"type": "integer", "default": 3}},
        });
        properties["status"]["default"] = json!({"phase": "Initializing"});
    }
    definition
}

fn cluster_of(definition: Value) -> Cluster {
    Cluster::new(ClusterOptions { controllers: None, crds: vec![definition], ..ClusterOptions::default() })
}

async fn call(cluster: &Cluster, method: &str, path: &str, client: &str, body: &Value) -> (u16, Value) {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    send(cluster, method, content_type, path, client, body.to_string()).await
}

async fn send(
    cluster: &Cluster,
    method: &str,
    content_type: &str,
    path: &str,
    client: &str,
    body: String,
) -> (u16, Value) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", content_type)
        .header("User-Agent", client)
        .body(Body::from(body.into_bytes()))
        .unwrap();
    let response = cluster.api_server().call(request).await.unwrap();
    let code = response.status().as_u16();
    let warnings: Vec<String> =
        response.headers().get_all("Warning").iter().map(|warning| warning.to_str().unwrap().to_owned()).collect();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    (code, body)
}

fn canary() -> Value {
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "default", "labels": {"team": "a"}},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {"port": 9898},
            "analysis": {"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 5},
        },
    })
}

/// A patch that also says nothing of metadata goes the general way; what comes of it is the measure.
#[tokio::test(start_paused = true)]
async fn a_status_patched_alone_is_what_the_general_way_makes_of_it() {
    let (alone, general) = (cluster(), cluster());
    let mut events = alone.store().subscribe();
    for cluster in [&alone, &general] {
        assert_eq!(call(cluster, "POST", CANARIES, "kubectl/v1", &canary()).await.0, 201);
    }
    let condition = |status: &str| json!([{"type": "Promoted", "status": status, "reason": "Waiting"}]);
    // Client, seconds before it, the new status, and whether it can be patched alone.
    let steps = [
        ("flagger", 0, json!({"phase": "Initializing"}), false),
        ("flagger", 5, json!({"phase": "Initialized", "canaryWeight": 0, "failedChecks": 0}), true),
        ("flagger", 5, json!({"canaryWeight": 10, "conditions": condition("Unknown")}), true),
        ("flagger", 0, json!({"conditions": condition("True")}), true),
        ("other", 1, json!({"canaryWeight": 20}), true),
        ("flagger", 1, json!({"canaryWeight": 30, "phase": "Progressing"}), true),
        ("flagger", 1, json!({"canaryWeight": 30}), false),
        ("flagger", 1, json!({"canaryWeight": "many"}), false),
        ("flagger", 1, json!({"unknown": {"field": 1}}), false),
        ("flagger", 1, json!({"conditions": null, "failedChecks": null}), true),
        ("flagger", 1, json!({"phase": "a \"quoted\" text", "canaryWeight": 40}), false),
        ("flagger", 1, json!({"trackedConfigs": {"config-a": "1", "config-b": "2"}}), true),
        ("flagger", 1, json!({"trackedConfigs": {"config-a": null}}), true),
    ];
    let path = format!("{CANARIES}/podinfo/status");
    for (client, seconds, status, is_alone) in steps {
        tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
        while events.try_recv().is_ok() {}
        let answer = call(&alone, "PATCH", &path, client, &json!({"status": status})).await;
        let expected = call(&general, "PATCH", &path, client, &json!({"status": status, "metadata": {}})).await;
        assert_eq!(answer, expected, "{status}");
        let object = format!("{CANARIES}/podinfo");
        let stored = call(&alone, "GET", &object, client, &Value::Null).await;
        assert_eq!(stored, call(&general, "GET", &object, client, &Value::Null).await, "{status}");
        let was_alone = events.try_recv().is_ok_and(|event| {
            assert_eq!(event.object()["status"], stored.1["status"], "{status}");
            event.is_status_only
        });
        assert_eq!(was_alone, is_alone, "{status}");
    }
    // What comes after is read from the spliced JSON.
    let change = json!({"spec": {"analysis": {"threshold": 7}}, "metadata": {"labels": {"team": "b"}}});
    for cluster in [&alone, &general] {
        call(cluster, "PATCH", &format!("{CANARIES}/podinfo"), "kubectl/v1", &change).await;
    }
    let lists = [
        call(&alone, "GET", CANARIES, "", &Value::Null).await,
        call(&general, "GET", CANARIES, "", &Value::Null).await,
    ];
    assert_eq!(lists[0], lists[1]);
    assert_eq!(lists[0].1["items"][0]["metadata"]["generation"], 2);
}

#[tokio::test]
async fn an_object_that_no_request_checked_goes_the_general_way_once() {
    let cluster = cluster();
    let mut object = canary();
    object["status"] = json!({"phase": "Initialized"});
    cluster.store().create(&crate::store::kinds::CANARY, object).unwrap();
    let mut events = cluster.store().subscribe();
    for (weight, is_alone) in [(1, false), (2, true)] {
        let patch = json!({"status": {"canaryWeight": weight}});
        let answer = call(&cluster, "PATCH", &format!("{CANARIES}/podinfo/status"), "flagger", &patch).await;
        assert_eq!((answer.0, &answer.1["status"]["canaryWeight"]), (200, &json!(weight)));
        assert_eq!(events.try_recv().unwrap().is_status_only, is_alone, "{weight}");
    }
}

/// Whether the object's last write was one of a part alone.
fn was_spliced(cluster: &Cluster) -> bool {
    !cluster.store().record(&crate::store::kinds::CANARY, "default", "podinfo").unwrap().is_remembered()
}

/// The same write twice: as it is, and in another form that only the general way understands.
fn forms(method: &str, body: &Value) -> [(&'static str, String); 2] {
    match (method, body) {
        ("PUT", _) => ["application/json", "application/yaml"].map(|content_type| (content_type, body.to_string())),
        (_, Value::Array(operations)) => {
            let mut general = operations.clone();
            general.insert(0, json!({"op": "test", "path": "/kind", "value": "Canary"}));
            [body.clone(), Value::Array(general)].map(|patch| ("application/json-patch+json", patch.to_string()))
        }
        _ => {
            let mut general = body.clone();
            general[if body.get("metadata").is_some() { "spec" } else { "metadata" }] = json!({});
            [body.clone(), general].map(|patch| ("application/merge-patch+json", patch.to_string()))
        }
    }
}

/// Sends a write to both clusters and compares what comes of it. Tells whether the first cluster spliced it.
async fn write_both(
    [alone, general]: [&Cluster; 2],
    method: &str,
    subresource: &str,
    client: &str,
    body: &Value,
) -> (u16, bool) {
    let path = format!("{CANARIES}/podinfo{subresource}");
    let [form, other] = forms(method, body);
    let before = general.store().revision();
    // Reading an object's value makes the server keep it decoded: so that only the write itself counts.
    let answer = send(alone, method, form.0, &path, client, form.1).await;
    let spliced = was_spliced(alone);
    let expected = send(general, method, other.0, &path, client, other.1).await;
    assert_eq!(answer, expected, "{method} {subresource} {body}");
    assert_eq!(alone.store().revision(), general.store().revision(), "{method} {subresource} {body}");
    assert!(general.store().revision() == before || !was_spliced(general), "the general way: {method} {body}");
    let object = format!("{CANARIES}/podinfo");
    let stored = call(alone, "GET", &object, client, &Value::Null).await;
    assert_eq!(stored, call(general, "GET", &object, client, &Value::Null).await, "{method} {subresource} {body}");
    (answer.0, spliced && general.store().revision() > before)
}

async fn present(cluster: &Cluster) -> Value {
    call(cluster, "GET", &format!("{CANARIES}/podinfo"), "reader", &Value::Null).await.1
}

#[tokio::test(start_paused = true)]
async fn parts_written_in_every_way_are_what_the_general_way_makes_of_them() {
    let (alone, general) = (cluster(), cluster());
    let both = [&alone, &general];
    for cluster in both {
        assert_eq!(call(cluster, "POST", CANARIES, "kubectl/v1", &canary()).await.0, 201);
    }
    write_both(both, "PATCH", "/status", "flagger", &json!({"status": {"phase": "Initialized"}})).await;
    let put = async |change: fn(&mut Value)| {
        let mut object = present(&alone).await;
        change(&mut object);
        object
    };
    // Method, subresource, client, body, answer, and whether the part was written alone.
    let spec = |threshold: u32| json!({"spec": {"analysis": {"threshold": threshold}}});
    let typed = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "spec": {"skipAnalysis": true}});
    let other_type = json!({"kind": "Deployment", "spec": {"skipAnalysis": false}});
    let replace = |path: &str, value: u32| json!([{"op": "replace", "path": path, "value": value}]);
    let steps = [
        ("PATCH", "", "kubectl", spec(6), 200, true),
        ("PATCH", "", "other", spec(7), 200, true),
        ("PATCH", "", "other", spec(7), 200, false),
        ("PATCH", "", "kubectl", typed, 200, true),
        ("PATCH", "", "kubectl", other_type, 422, false),
        ("PATCH", "", "kubectl", json!({"spec": {"analysis": {"threshold": "many"}}}), 422, false),
        ("PATCH", "", "kubectl", json!({"spec": {"unknown": 1}}), 200, false),
        ("PATCH", "", "kubectl", json!({"spec": {"skipAnalysis": null}}), 200, true),
        ("PATCH", "", "kubectl", replace("/spec/analysis/threshold", 8), 200, true),
        // What is missing is added, and pruned.
        ("PATCH", "", "kubectl", replace("/spec/analysis/nothing", 8), 200, false),
        ("PATCH", "", "kubectl", replace("/status/canaryWeight", 8), 200, false),
        ("PATCH", "/status", "flagger", json!([{"op": "add", "path": "/status/canaryWeight", "value": 8}]), 200, true),
        (
            "PATCH",
            "/status",
            "flagger",
            json!([{"op": "move", "from": "/status/canaryWeight", "path": "/status/iterations"}]),
            200,
            true,
        ),
        (
            "PATCH",
            "/status",
            "flagger",
            json!([{"op": "copy", "from": "/metadata/name", "path": "/status/lastAppliedSpec"}]),
            200,
            false,
        ),
        ("PATCH", "/status", "flagger", spec(9), 200, false),
        ("PUT", "", "kubectl", put(|object| object["spec"]["analysis"]["threshold"] = json!(10)).await, 409, false),
    ];
    for (method, subresource, client, body, code, is_alone) in steps {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let outcome = write_both(both, method, subresource, client, &body).await;
        assert_eq!(outcome, (code, is_alone), "{method} {subresource} {body}");
    }
    let rule = json!({"spec": {"service": {"gatewayRefs": [], "port": 9899}}});
    assert_eq!(write_both(both, "PATCH", "", "kubectl", &rule).await, (200, true));
    type Put = (&'static str, fn(&mut Value), u16, bool);
    let puts: [Put; 18] = [
        ("", |object| object["spec"]["analysis"]["threshold"] = json!(11), 200, true),
        ("", |object| object["spec"]["analysis"]["unknown"] = json!(11), 200, false),
        ("", |object| object["spec"]["analysis"]["threshold"] = json!(false), 422, false),
        ("", |object| object["status"]["canaryWeight"] = json!(99), 200, false),
        ("", |object| object["metadata"]["managedFields"] = Value::Null, 200, false),
        ("", |object| object["metadata"]["managedFields"] = json!([]), 200, false),
        ("", |object| object["metadata"]["labels"]["team"] = json!("c"), 200, false),
        ("", |object| object["other"] = json!(1), 200, false),
        ("", |object| object["kind"] = json!("Other"), 422, false),
        ("/status", |object| object["status"]["canaryWeight"] = json!(12), 200, true),
        ("/status", |object| object["status"]["canaryWeight"] = json!(12), 200, false),
        ("/status", |object| object["spec"] = json!({"ignored": true}), 200, false),
        (
            "/status",
            |object| {
                object["spec"] = json!({"ignored": true});
                object["other"] = json!(1);
                let metadata = json!({"name": "podinfo", "resourceVersion": object["metadata"]["resourceVersion"]});
                object["metadata"] = metadata;
                object["status"]["canaryWeight"] = json!(13);
            },
            200,
            false,
        ),
        (
            "/status",
            |object| {
                object["metadata"]["labels"] = json!({"team": 1});
                object["status"]["canaryWeight"] = json!(14);
            },
            400,
            false,
        ),
        (
            "/status",
            |object| {
                object["metadata"]["name"] = json!("other");
                object["status"]["canaryWeight"] = json!(14);
            },
            400,
            false,
        ),
        (
            "/status",
            |object| {
                object["metadata"]["uid"] = json!("other");
                object["status"]["canaryWeight"] = json!(14);
            },
            409,
            false,
        ),
        (
            "/status",
            |object| {
                object["metadata"]["resourceVersion"] = json!("1");
                object["status"]["canaryWeight"] = json!(14);
            },
            409,
            false,
        ),
        (
            "/status",
            |object| {
                object["metadata"]["managedFields"] = json!("none");
                object["status"]["canaryWeight"] = json!(14);
            },
            400,
            false,
        ),
    ];
    for (index, (subresource, change, code, is_alone)) in puts.into_iter().enumerate() {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let body = put(change).await;
        let outcome = write_both(both, "PUT", subresource, "flagger", &body).await;
        assert_eq!(outcome, (code, is_alone), "PUT {index} {subresource} {body}");
    }
    // A part that is taken away, and one that comes back.
    for spec in [Value::Null, canary()["spec"].clone()] {
        assert_eq!(write_both(both, "PATCH", "", "kubectl", &json!({"spec": spec})).await, (200, false), "{spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn labels_and_annotations_patched_alone_are_what_the_general_way_makes_of_them() {
    let (alone, general) = (cluster(), cluster());
    let both = [&alone, &general];
    for cluster in both {
        assert_eq!(call(cluster, "POST", CANARIES, "kubectl/v1", &canary()).await.0, 201);
    }
    write_both(both, "PATCH", "/status", "flagger", &json!({"status": {"phase": "Initialized"}})).await;
    let long = "x".repeat(64);
    // Client, metadata, answer, and whether it was written without the rest.
    let steps = [
        ("kubectl", json!({"labels": {"team": "b"}}), 200, true),
        ("kubectl", json!({"labels": {"team": "b"}}), 200, false),
        (
            "other",
            json!({"labels": {"team": "c", "a/b": "d"}, "annotations": {"note": "a \"quoted\" text, ü"}}),
            200,
            true,
        ),
        ("kubectl", json!({"labels": {"team": null}}), 200, true),
        ("kubectl", json!({"labels": {"a/b": null}}), 200, true),
        ("other", json!({"annotations": {"note": null, "more": ""}}), 200, true),
        ("other", json!({"annotations": {"more": null}}), 200, true),
        ("other", json!({"labels": {"round": "1"}}), 200, true),
        // What has something to be said about it, or is more than these.
        ("other", json!({"labels": {"round": long}}), 422, false),
        ("other", json!({"labels": {"a b": "1"}}), 422, false),
        ("other", json!({"annotations": {"/": "1"}}), 422, false),
        ("other", json!({"labels": {"round": 1}}), 422, false),
        ("other", json!({"labels": null}), 200, false),
        ("other", json!({"labels": {}}), 200, false),
        ("other", json!({}), 200, false),
        ("other", json!({"labels": {"team": "a"}, "uid": "other"}), 422, false),
        ("other", json!({"labels": {"team": "a"}, "resourceVersion": "1"}), 409, false),
        ("other", json!({"labels": {"team": "a"}, "finalizers": ["example.com/a"]}), 200, false),
        ("other", json!({"labels": {"team": "b"}, "unknown": 1}), 200, false),
        ("kubectl", json!({"labels": {"team": "z"}}), 200, true),
    ];
    for (client, metadata, code, is_alone) in steps {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let body = json!({"metadata": metadata});
        let outcome = write_both(both, "PATCH", "", client, &body).await;
        assert_eq!(outcome, (code, is_alone), "{body}");
    }
    // What comes after is spliced into what was.
    assert_eq!(
        write_both(both, "PATCH", "/status", "flagger", &json!({"status": {"canaryWeight": 1}})).await,
        (200, true)
    );
    assert_eq!(write_both(both, "PATCH", "", "kubectl", &json!({"spec": {"skipAnalysis": true}})).await, (200, true));
    let mut object = present(&alone).await;
    object["spec"]["analysis"]["threshold"] = json!(9);
    assert_eq!(write_both(both, "PUT", "", "kubectl", &object).await, (200, true));
    // Of an object that is on its way out, too.
    for cluster in both {
        assert_eq!(call(cluster, "DELETE", &format!("{CANARIES}/podinfo"), "kubectl", &json!({})).await.0, 200);
    }
    let body = json!({"metadata": {"labels": {"team": "last"}, "apiVersion": null}});
    assert_eq!(write_both(both, "PATCH", "", "kubectl", &body).await.0, 200);
    let body = json!({"metadata": {"labels": {"team": "very-last"}}});
    assert_eq!(write_both(both, "PATCH", "", "kubectl", &body).await, (200, true));
    let lists = [
        call(&alone, "GET", &format!("{CANARIES}?labelSelector=team%3Dvery-last"), "", &Value::Null).await,
        call(&general, "GET", &format!("{CANARIES}?labelSelector=team%3Dvery-last"), "", &Value::Null).await,
    ];
    assert_eq!(lists[0], lists[1]);
    assert_eq!(lists[0].1["items"].as_array().unwrap().len(), 1);
}

/// A body in which the fields are in another order, or that has spaces, says the same as one that repeats the stored bytes.
#[tokio::test(start_paused = true)]
async fn a_put_in_another_order_of_fields_is_the_same_write() {
    let (alone, general) = (cluster(), cluster());
    for cluster in [&alone, &general] {
        assert_eq!(call(cluster, "POST", CANARIES, "kubectl/v1", &canary()).await.0, 201);
    }
    let mut object = present(&alone).await;
    object["spec"]["analysis"]["threshold"] = json!(9);
    // Sorted by name, `apiVersion` and `kind` are where the stored JSON has them; so is all the rest.
    let verbatim = object.to_string();
    let spaced = serde_json::to_string_pretty(&object).unwrap();
    let path = format!("{CANARIES}/podinfo");
    let answer = send(&alone, "PUT", "application/json", &path, "kubectl", verbatim).await;
    assert_eq!(answer.0, 200);
    assert!(was_spliced(&alone));
    assert_eq!(send(&general, "PUT", "application/json", &path, "kubectl", spaced).await, answer);
    assert!(was_spliced(&general));
}

#[tokio::test(start_paused = true)]
async fn a_document_that_names_a_field_twice_is_left_to_the_general_way() {
    let cluster = cluster();
    assert_eq!(call(&cluster, "POST", CANARIES, "kubectl/v1", &canary()).await.0, 201);
    let path = format!("{CANARIES}/podinfo");
    let object = present(&cluster).await.to_string();
    let twice = [
        object.replacen("\"threshold\":5", "\"threshold\":6,\"threshold\":7", 1),
        object.replacen("\"port\":9898", "\"port\":9898,\"port\":9898", 1),
        object.replacen("\"team\":\"a\"", "\"team\":\"a\",\"team\":\"a\"", 1),
        object.replacen("\"kind\":\"Canary\",", "\"kind\":\"Canary\",\"kind\":\"Canary\",", 1),
    ];
    for body in twice {
        let query = format!("{path}?fieldValidation=Strict&dryRun=All");
        let checked = send(&cluster, "PUT", "application/json", &query, "kubectl", body.clone()).await;
        assert_eq!(checked.0, 400, "{body}");
        let query = format!("{path}?fieldValidation=Strict");
        assert_eq!(send(&cluster, "PUT", "application/json", &query, "kubectl", body).await, checked);
    }
}

#[tokio::test(start_paused = true)]
async fn random_writes_come_to_the_same_in_both_ways() {
    let spliced = write_at_random(&definition()).await;
    assert!(spliced.len() == 6 && spliced.values().all(|count| *count > 10), "every way was taken: {spliced:?}");
}

#[tokio::test(start_paused = true)]
async fn random_writes_beside_defaulted_root_fields_come_to_the_same_in_both_ways() {
    let spliced = write_at_random(&definition_with_root_defaults()).await;
    // A PUT says something of the other fields too.
    let taken = spliced.iter().filter(|((method, _, _), _)| *method != "PUT");
    assert!(taken.clone().count() == 4 && taken.clone().all(|(_, count)| *count > 10), "{spliced:?}");
}

/// A merge patch of the spec alone does not make its writer the owner of what a default filled in beside it.
#[tokio::test(start_paused = true)]
async fn who_writes_a_part_does_not_come_to_own_the_defaults_of_others() {
    let cluster = cluster_of(definition_with_root_defaults());
    assert_eq!(call(&cluster, "POST", CANARIES, "kubectl/v1", &canary()).await.0, 201);
    let path = format!("{CANARIES}/podinfo");
    let patch = json!({"spec": {"skipAnalysis": true}});
    let (code, patched) = call(&cluster, "PATCH", &path, "patcher", &patch).await;
    assert_eq!((code, &patched["mode"], &patched["limits"]), (200, &json!("fast"), &json!({"most": 3})));
    assert!(was_spliced(&cluster));
    let managers = patched["metadata"]["managedFields"].as_array().unwrap();
    let owned = managers.iter().find(|entry| entry["manager"] == "patcher").unwrap();
    assert_eq!(owned["fieldsV1"], json!({"f:spec": {"f:skipAnalysis": {}}}));
}

#[tokio::test(start_paused = true)]
async fn a_merge_patch_of_a_part_that_names_a_field_twice_is_told_of_or_refused() {
    let cluster = cluster();
    assert_eq!(call(&cluster, "POST", CANARIES, "kubectl/v1", &canary()).await.0, 201);
    let path = format!("{CANARIES}/podinfo");
    let patch = r#"{"spec":{"skipAnalysis":true,"analysis":{"threshold":6,"threshold":7}}}"#;
    let send = |query: &str| {
        let path = format!("{path}{query}");
        let cluster = &cluster;
        async move { send(cluster, "PATCH", "application/merge-patch+json", &path, "kubectl", patch.to_owned()).await }
    };
    let (code, refusal) = send("?fieldValidation=Strict").await;
    assert_eq!(code, 422);
    let text = "strict decoding error: duplicate field \"spec.analysis.threshold\"";
    assert!(refusal["message"].as_str().unwrap().ends_with(text), "{refusal}");
    let (code, patched) = send("").await;
    assert_eq!((code, &patched["spec"]["analysis"]["threshold"]), (200, &json!(7)));
    assert_eq!(patched["warnings"], json!(["299 - \"duplicate field \\\"spec.analysis.threshold\\\"\""]));
    assert_eq!(send("?fieldValidation=Ignore").await.1["warnings"], Value::Null);
}

/// How many of random writes were written alone, by method, part, and whether the body was a list.
async fn write_at_random(definition: &Value) -> std::collections::BTreeMap<(&'static str, &'static str, bool), u32> {
    const WRITES: u32 = 300;
    let (alone, general) = (cluster_of(definition.clone()), cluster_of(definition.clone()));
    let both = [&alone, &general];
    for cluster in both {
        assert_eq!(call(cluster, "POST", CANARIES, "kubectl/v1", &canary()).await.0, 201);
    }
    let metric = |name: &str, minimum: u64| json!({"name": name, "thresholdRange": {"min": minimum}, "interval": "1m"});
    let mut random = crate::random::Random::new(7);
    let mut spliced = std::collections::BTreeMap::new();
    for _ in 0..WRITES {
        tokio::time::advance(std::time::Duration::from_secs(random.below(3))).await;
        let number = random.below(12);
        let specs = [
            json!({"analysis": {"threshold": number}}),
            json!({"analysis": {"metrics": [metric("request-success-rate", 90 + number), metric("error-rate", 1)]}}),
            json!({"analysis": {"metrics": null, "webhooks": [{"name": "a", "url": "http://a/"}]}}),
            json!({"service": {"port": 9000 + number, "hosts": ["a", "b"]}}),
            json!({"service": {"port": "http"}}),
            json!({"skipAnalysis": number.is_multiple_of(2), "unknown": number}),
            json!({"progressDeadlineSeconds": number + 1, "autoscalerRef": null}),
        ];
        let condition = json!({"type": "Promoted", "status": if number < 6 { "True" } else { "False" }, "reason": "a"});
        let statuses = [
            json!({"phase": "Progressing", "canaryWeight": number}),
            json!({"conditions": [condition]}),
            json!({"conditions": [condition, condition]}),
            json!({"trackedConfigs": {"config-a": number.to_string(), "config-b": null}}),
            json!({"trackedConfigs": null}),
            json!({"failedChecks": "many"}),
            json!({"failedChecks": null, "lastTransitionTime": "2026-01-01T00:00:00Z"}),
        ];
        let is_status = random.below(2) == 0;
        let (subresource, part) = if is_status { ("/status", "status") } else { ("", "spec") };
        let change = if is_status { &statuses } else { &specs }[random.below(7) as usize].clone();
        let client = ["kubectl", "flagger", "aviary"][random.below(3) as usize];
        let mut object = present(&alone).await;
        json_patch::merge(&mut object[part], &change);
        if random.below(2) == 0 {
            object["metadata"].as_object_mut().unwrap().remove("managedFields");
        }
        let (method, body) = match random.below(3) {
            0 => ("PATCH", json!({part: change})),
            1 => (
                "PATCH",
                json!([{"op": "add", "path": format!("/{part}/{}", change.as_object().unwrap().keys().next().unwrap()),
                "value": change.as_object().unwrap().values().next().unwrap()}]),
            ),
            _ => ("PUT", object),
        };
        let (code, is_alone) = write_both(both, method, subresource, client, &body).await;
        assert!(code != 500, "{method} {subresource} {body}");
        *spliced.entry((method, part, body.is_array())).or_insert(0) += u32::from(is_alone);
    }
    spliced
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_stored_is_written_in_parts_too() {
    let (alone, general) = (cluster(), cluster());
    let path = |version: &str| format!("/apis/networking.istio.io/{version}/namespaces/default/virtualservices");
    let virtual_service = json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": {"name": "podinfo"},
        "spec": {"hosts": ["podinfo"], "http": [{"route": [{"destination": {"host": "podinfo"}, "weight": 100}]}]},
    });
    for cluster in [&alone, &general] {
        assert_eq!(call(cluster, "POST", &path("v1beta1"), "flagger", &virtual_service).await.0, 201);
    }
    // The versions have one schema, so what was checked in one of them is checked in all.
    let steps =
        [("v1beta1", "flagger", true), ("v1beta1", "kubectl", true), ("v1", "kubectl", true), ("v1", "flagger", true)];
    for (round, (version, client, is_alone)) in steps.into_iter().enumerate() {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let object = format!("{}/podinfo", path(version));
        let patch = json!({"spec": {"hosts": ["podinfo", format!("host-{round}")], "gateways": [round.to_string()]}});
        let answer = call(&alone, "PATCH", &object, client, &patch).await;
        let record = alone.store().record(&crate::store::kinds::VIRTUAL_SERVICE, "default", "podinfo").unwrap();
        assert_eq!(!record.is_remembered(), is_alone, "{version} {client}");
        let [_, (content_type, body)] = forms("PATCH", &patch);
        let expected = send(&general, "PATCH", content_type, &object, client, body).await;
        assert_eq!(answer, expected, "{version} {client}");
        assert_eq!(answer.1["apiVersion"], format!("networking.istio.io/{version}"));
        for version in ["v1", "v1beta1"] {
            let object = format!("{}/podinfo", path(version));
            let stored = call(&alone, "GET", &object, client, &Value::Null).await;
            assert_eq!(stored, call(&general, "GET", &object, client, &Value::Null).await, "{version} {client}");
        }
    }
}
