//! Canaries that get in each other's way. Two on one target would fight over its primary and its routes, so the younger one
//! does nothing as long as there is an older one. Both say so. (Flagger runs both and writes a line to its log.)

use std::collections::BTreeSet;

use aviary_rollout::Message as Note;
use jiff::Timestamp;
use kube::core::DynamicObject;

use super::CanaryActor;
use crate::cache::target_of;

/// What is told when a canary's service gets another name. What has the old one may still be routed to and stays.
pub(super) fn renamed(before: &str, now: &str) -> Note {
    Note::Obstacle(format!("The service name changed to {now}, remove {before} objects to avoid routing conflicts"))
}

impl CanaryActor {
    /// Notes whether this canary leaves its target to another one; tells it where it is this one that has the target.
    pub(super) fn compare_with_rivals(&mut self, object: &DynamicObject, now: Timestamp) {
        self.yields = None;
        let Some(target) = target_of(object) else { return };
        let rivals = self.deps.cache.rivals(&self.id);
        let rivals: Vec<_> = rivals.iter().filter(|rival| target_of(rival) == Some(target)).collect();
        let older = rivals.iter().filter(|rival| age(rival) < age(object)).min_by_key(|rival| age(rival));
        let (_, kind, name) = target;
        if let Some(older) = older.and_then(|older| older.metadata.name.as_deref()) {
            self.rivals.clear();
            self.yields = Some(format!(
                "spec.targetRef: {kind}/{name} is the target of canary {older}, too, which is older; this canary does nothing \
                 until that one is deleted or has another target"
            ));
            return;
        }
        let names: BTreeSet<String> = rivals.iter().filter_map(|rival| rival.metadata.name.clone()).collect();
        if !names.is_subset(&self.rivals) {
            let others = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let text = format!(
                "Found more than one canary with the same target {kind}/{name}: {others} does nothing, delete it or give it \
                 another target"
            );
            self.emit(Note::Obstacle(text), object, now);
        }
        self.rivals = names;
    }
}

/// Orders canaries from the oldest to the youngest.
fn age(object: &DynamicObject) -> (Option<Timestamp>, Option<&str>) {
    (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.metadata.name.as_deref())
}
