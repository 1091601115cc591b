//! Writes that are only rehearsed (`dryRun=All`): everything that a write does but the storing.

use std::sync::Arc;

use serde_json::{Value, json};

use super::request::Target;
use crate::clock::{Clock, format_seconds};
use crate::store::{ObjectKey, Record, State, StatusError};

/// Ends a write before it is stored, if the client asked for that, and keeps what it would have stored.
///
/// The store's transactions take an error for "nothing happened"; that is what a rehearsal gives them.
pub(super) struct Rehearsal {
    active: bool,
    last_cluster_ip: u32,
    record: Option<Arc<Record>>,
}

impl Rehearsal {
    pub(super) fn new(active: bool) -> Self {
        Self { active, last_cluster_ip: 0, record: None }
    }

    /// Remembers what a write may take from the cluster for good.
    pub(super) fn begin(&mut self, state: &State) {
        self.last_cluster_ip = state.last_cluster_ip;
    }

    /// Ends a creation: the object gets what the store would give it, but no version.
    pub(super) fn end_create(
        &mut self,
        target: &Target,
        clock: Clock,
        state: &mut State,
        value: &mut Value,
    ) -> Result<(), StatusError> {
        if !self.active {
            return Ok(());
        }
        state.last_cluster_ip = self.last_cluster_ip;
        let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = ObjectKey {
            kind: target.resource.group_kind.clone(),
            namespace: target.namespace.as_str().into(),
            name: name.as_str().into(),
        };
        if state.record_of(&key).is_some() {
            return Err(StatusError::name_taken(&target.resource, &name, value));
        }
        let uid = state.random.uid();
        let metadata = &mut value["metadata"];
        metadata["uid"] = json!(uid);
        metadata["creationTimestamp"] = json!(format_seconds(clock.now()));
        if target.resource.namespaced {
            metadata["namespace"] = json!(target.namespace);
        }
        if target.resource.tracks_generation {
            metadata["generation"] = json!(1);
        }
        Err(self.keep(Arc::new(Record::new(std::mem::take(value), 0, None))))
    }

    /// Ends an update: the object keeps its version.
    pub(super) fn end_update(
        &mut self,
        state: &mut State,
        present: &Record,
        mut value: Value,
    ) -> Result<Value, StatusError> {
        if !self.active {
            return Ok(value);
        }
        state.last_cluster_ip = self.last_cluster_ip;
        value["metadata"]["resourceVersion"] = json!(present.resource_version.to_string());
        Err(self.keep(Arc::new(Record::new(value, present.resource_version, Some(present)))))
    }

    /// Ends a deletion of an object that is shown as it was, or as it waits for its end.
    pub(super) fn end_delete(&mut self, last: impl FnOnce() -> Arc<Record>) -> Result<(), StatusError> {
        if self.active { Err(self.keep(last())) } else { Ok(()) }
    }

    fn keep(&mut self, record: Arc<Record>) -> StatusError {
        self.record = Some(record);
        StatusError::new(500, "InternalError", "the write was only rehearsed")
    }

    /// What the transaction came to: the rehearsed object counts as success.
    pub(super) fn outcome(self, outcome: Result<Arc<Record>, StatusError>) -> Result<Arc<Record>, StatusError> {
        self.record.map_or(outcome, Ok)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::Service;

    use crate::{Cluster, ClusterOptions};

    async fn create(cluster: &Cluster, options: &str) -> Value {
        let config_map = json!({"metadata": {"generateName": "drawn-"}}).to_string();
        let request = http::Request::post(format!("/api/v1/namespaces/default/configmaps{options}"))
            .body(Body::from(config_map.into_bytes()))
            .unwrap();
        let response = cluster.api_server().call(request).await.unwrap();
        assert_eq!(response.status(), 201);
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rehearsed_creation_takes_no_name_and_no_uid_from_later_ones() {
        let cluster = || Cluster::new(ClusterOptions { controllers: None, ..ClusterOptions::default() });
        let (rehearsing, other) = (cluster(), cluster());
        for _ in 0..2 {
            let rehearsed = create(&rehearsing, "?dryRun=All").await;
            assert!(rehearsed["metadata"]["uid"].is_string());
            assert_eq!(create(&rehearsing, "").await, create(&other, "").await);
        }
    }
}
