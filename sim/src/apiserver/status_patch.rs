//! Merge patches of nothing but the status of a custom resource: what an operator's writes mostly are.
//!
//! Such a patch can change the status and who owns its fields, and nothing else, so that the rest of the object is neither
//! decoded nor checked again. It is left to the general way unless everything is as usual; whatever is wrong with it is told there.

use serde_json::{Map, Value};

use super::ApiServer;
use super::fields::{self, Before, Writer};
use super::request::Target;
use super::response::{Answer, Encoder};
use super::schema::Schema;
use super::write::Body;
use crate::store::Record;

const STATUS: &str = "status";

impl ApiServer {
    /// Answers a valid merge patch that changes the status alone. `None`, and no write, for every other one.
    pub(super) fn patch_status_alone(
        &self,
        target: &Target,
        name: &str,
        manager: &str,
        body: &Body<'_>,
        encoder: &Encoder,
    ) -> Option<Answer> {
        let resource = &target.resource;
        if !resource.custom || target.subresource != STATUS || body.content_type != "application/merge-patch+json" {
            return None;
        }
        let version = target.served_version().filter(|version| version.status && version.view.is_none())?;
        if encoder.api_version != encoder.storage_api_version {
            return None;
        }
        let schema = version.schema.as_ref().filter(|schema| !schema.has_rules_about_status())?;
        let patch = status_of_patch(body.bytes)?;
        let writer =
            Writer { resource, version: &target.version, subresource: STATUS, manager, now: self.store.clock().now() };
        let record = self
            .store
            .modify_status(resource, &target.namespace, name, |present| patched(schema, &writer, present, &patch))?;
        Some(Answer::json(200, encoder.object(&record)).changed(true))
    }
}

/// What the patch says of the status, if it says nothing else.
fn status_of_patch(patch: &[u8]) -> Option<Value> {
    let mut patch: Map<String, Value> = serde_json::from_slice(patch).ok()?;
    let status = patch.remove(STATUS).filter(Value::is_object)?;
    patch.is_empty().then_some(status)
}

/// The JSON of the new status and of the managed fields with it, unless there is something to be said about them.
fn patched(schema: &Schema, writer: &Writer<'_>, present: &Record, patch: &Value) -> Option<(Vec<u8>, Option<String>)> {
    // The rest of the object is known to be as it has to be.
    if !present.is_checked_by(schema.number()) {
        return None;
    }
    let status: Value = serde_json::from_slice(present.status_json()?).ok()?;
    let mut patched = status.clone();
    json_patch::merge(&mut patched, patch);
    let before = only_status(status);
    let mut after = only_status(patched);
    if !schema.conform(&mut after).unknown_fields.is_empty() {
        return None;
    }
    let status = after.get(STATUS).filter(|status| status.is_object())?;
    if before.get(STATUS) == Some(status) || !schema.validate_update(&after, &before, true).is_empty() {
        return None;
    }
    let managed = present.managed_fields();
    let live = Before { object: &before, managed, is_new: false };
    let tracked = fields::track_update(writer, live, &after, &Value::Null);
    if tracked.is_some() != managed.is_some() {
        return None;
    }
    Some((serde_json::to_vec(status).ok()?, tracked))
}

fn only_status(status: Value) -> Value {
    Value::Object(Map::from_iter([(STATUS.to_owned(), status)]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::Service;

    use crate::{Cluster, ClusterOptions};

    const CANARIES: &str = "/apis/flagger.app/v1beta1/namespaces/default/canaries";

    fn cluster() -> Cluster {
        let definition = serde_saphyr::from_str(include_str!("../../../crds/yaml/canaries.flagger.app.yaml")).unwrap();
        Cluster::new(ClusterOptions { controllers: None, crds: vec![definition], ..ClusterOptions::default() })
    }

    async fn call(cluster: &Cluster, method: &str, path: &str, client: &str, body: &Value) -> (u16, Value) {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content_type)
            .header("User-Agent", client)
            .body(Body::from(body.to_string().into_bytes()))
            .unwrap();
        let response = cluster.api_server().call(request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap())
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
}
