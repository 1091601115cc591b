//! The DestinationRules of the two sides.

use serde_json::{Map, Value, json};

use crate::Subject;
use crate::canonical::same_or_absent;
use crate::change::Change;
use crate::object::kinds;
use crate::ownership::new_mesh_object;

/// Creates or repairs both. `host` and `trafficPolicy` are Aviary's; other fields of the spec survive.
pub(super) fn reconcile(subject: &Subject) -> Vec<Change> {
    let service = &subject.canary.service;
    [service.canary_name(), service.primary_name()].iter().filter_map(|host| reconcile_one(subject, host)).collect()
}

fn reconcile_one(subject: &Subject, host: &str) -> Option<Change> {
    let key = subject.key(&kinds::DESTINATION_RULE, host);
    let policy = subject.canary.service.traffic_policy.as_ref();
    let Some(present) = subject.get(&kinds::DESTINATION_RULE, host) else {
        let mut spec = Map::new();
        spec.insert("host".into(), host.into());
        spec.extend(policy.map(|policy| ("trafficPolicy".to_owned(), policy.clone())));
        let object = new_mesh_object(subject, &kinds::DESTINATION_RULE, host, json!({"spec": spec}));
        return Some(Change::create(key, object));
    };
    let spec = present.data.get("spec");
    let field = |name: &str| spec.and_then(|spec| spec.get(name));
    if field("host").and_then(Value::as_str) == Some(host) && same_or_absent(field("trafficPolicy"), policy) {
        return None;
    }
    let mut desired = (*present).clone();
    super::set_field(&mut desired.data, "host", Some(Value::from(host)));
    super::set_field(&mut desired.data, "trafficPolicy", policy.cloned());
    Change::update(key, &present, &desired)
}
