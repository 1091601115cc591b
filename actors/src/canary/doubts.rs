//! Queries that will not judge what their author means. They are asked as they are, and the author is told once.

use aviary_rollout::Message as Note;

use super::CanaryActor;
use crate::checks::PreparedCheck;

impl CanaryActor {
    /// Tells of queries that were not looked at before.
    pub(super) fn doubt(&mut self, checks: &[PreparedCheck]) {
        for check in checks {
            let Ok(query) = &check.query else { continue };
            if !self.doubted.insert(format!("{:?} {}", check.max, query.text)) {
                continue;
            }
            let Some(object) = self.deps.cache.get(&self.key()) else { continue };
            for doubt in check.doubts() {
                self.emit(Note::Obstacle(doubt), &object, self.deps.clock.now());
            }
        }
    }
}
