//! Bad input: one clear message on the object, nothing else disturbed, and recovery without help.

mod monitoring;
mod objects;
mod rights;
mod targets;

use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::Value;

use crate::support::{AGENT, World, canary, deployment};

impl World {
    /// Creates Deployment and Canary `podinfo`, the latter changed; and beside them a sound canary, `other`.
    async fn begin_beside_another(&mut self, change: impl FnOnce(&mut Value)) {
        self.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        self.offer_canary(change).await;
        self.start_beside_another().await;
    }

    /// Creates Canary `podinfo`, changed. Where the schema is too strict to let it in, an older one is installed that is not.
    async fn offer_canary(&self, change: impl FnOnce(&mut Value)) {
        let mut object = canary("test", "podinfo");
        change(&mut object);
        if let Err(error) = self.try_create(object.clone()).await {
            assert!(matches!(&error, kube::Error::Api(status) if status.code == 422), "{error}");
            self.loosen("canaries.flagger.app");
            self.create(object).await;
        }
    }

    /// Takes the lists of known values out of a resource definition.
    fn loosen(&self, definition: &str) {
        fn without_enums(schema: &mut Value) {
            match schema {
                Value::Object(fields) => {
                    fields.retain(|key, value| key != "enum" || !value.is_array());
                    fields.values_mut().for_each(without_enums);
                }
                Value::Array(items) => items.iter_mut().for_each(without_enums),
                _ => {}
            }
        }
        let kind = &kinds::CUSTOM_RESOURCE_DEFINITION;
        self.cluster
            .store()
            .update(kind, "", definition, |object| without_enums(&mut object["spec"]["versions"]))
            .unwrap();
    }

    async fn start_beside_another(&mut self) {
        self.deploy("other").await;
        self.start();
        self.wait_for_phase("other", "Initialized").await;
        self.pass(Duration::from_secs(120)).await;
    }

    /// Releases the canary beside the bad one.
    async fn release_the_other(&self) {
        self.set_image("other", "podinfo:6.0.1");
        self.wait_for_phase("other", "Succeeded").await;
        self.pass(Duration::from_secs(5)).await;
        let events = self.events("other");
        assert!(events.iter().all(|event| !event.contains("podinfo.test")), "{events:#?}");
        assert_eq!(self.traffic.report("test", "other").failures(), 0.0);
    }

    /// API calls of the controller in ten minutes, watches apart.
    async fn calls_in_ten_minutes(&self) -> u64 {
        let before = self.cluster.calls().snapshot();
        self.pass(Duration::from_secs(600)).await;
        let calls = self.cluster.calls().since(&before).of_client(AGENT);
        calls.reads() + calls.writes() + calls.event_writes()
    }

    /// The one event about `podinfo`, with all these parts.
    fn assert_told_once(&self, parts: &[&str]) {
        let events = self.events("podinfo");
        let told: Vec<&String> = events.iter().filter(|event| parts.iter().all(|part| event.contains(part))).collect();
        assert_eq!(told.len(), 1, "{parts:?}\n{}", self.story());
    }
}
