//! Our finalizer on the canary object itself.

use aviary_crds::names::FINALIZER;
use kube::core::DynamicObject;

use crate::Subject;
use crate::change::Change;
use crate::object::{ObjectKey, kinds};

/// Whether the object carries it.
pub fn is_on(canary: &DynamicObject) -> bool {
    canary.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Puts it on the subject's canary, or takes it off; those of others stay. Nothing to do for an object that is gone.
pub fn set(subject: &Subject, wanted: bool) -> Vec<Change> {
    let key = subject.key(&kinds::CANARY, &subject.canary.key.name);
    let present = subject.get(&kinds::CANARY, &key.name);
    present.and_then(|present| change(key, &present, wanted)).into_iter().collect()
}

/// The same for a canary object that is not understood.
pub fn change(key: ObjectKey, present: &DynamicObject, wanted: bool) -> Option<Change> {
    if is_on(present) == wanted {
        return None;
    }
    let mut desired = present.clone();
    let finalizers = desired.metadata.finalizers.get_or_insert_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    Change::update(key, present, &desired)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;
    use crate::testing::World;

    #[test]
    fn finalizers_of_others_stay() {
        let mut world = World::new(json!({}));
        assert_eq!(set(&world.subject(), true), [], "there is no object");
        world.put(&kinds::CANARY, "podinfo", json!({"metadata": {"finalizers": ["other/x"]}, "spec": {"a": 1}}));
        for (wanted, expected) in [(true, json!(["other/x", FINALIZER])), (false, json!(["other/x"]))] {
            world.apply(set(&world.subject(), wanted));
            assert_eq!(world.json(&kinds::CANARY, "podinfo")["metadata"]["finalizers"], expected);
            assert_eq!(set(&world.subject(), wanted), [], "idempotent");
        }
        assert_eq!(world.json(&kinds::CANARY, "podinfo")["spec"], json!({"a": 1}));
    }
}
