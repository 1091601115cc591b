//! What people are told: events, alerts and event webhooks, each once.

use aviary_crds::Phase;
use aviary_rollout::{Hold, HoldKind, Message as Note, Wake};
use jiff::Timestamp;
use kube::core::DynamicObject;

use super::CanaryActor;
use crate::hooks::{self, EventNews};
use crate::messages::{CanaryId, EventSubject, Record, SendEvent};

/// Why nothing is done, since when, and whether it was told.
pub(super) struct HoldEpisode {
    pub(super) hold: Hold,
    since: Timestamp,
    announced: bool,
}

impl HoldEpisode {
    /// The clock was set back.
    pub(super) fn not_after(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
    }
}

impl CanaryActor {
    /// Keeps track of why nothing is done, and tells it when it has lasted long enough.
    pub(super) fn note_hold(&mut self, hold: Option<Hold>, wake: Wake, object: &DynamicObject, now: Timestamp) -> Wake {
        let Some(hold) = hold else {
            self.hold = None;
            return wake;
        };
        let episode = match self.hold.take() {
            Some(episode) if is_same_episode(&episode.hold, &hold) => HoldEpisode { hold, ..episode },
            _ => HoldEpisode { hold, since: now, announced: false },
        };
        let episode = self.hold.insert(episode);
        if episode.announced {
            return wake;
        }
        let due = episode.since.checked_add(episode.hold.announce_after).unwrap_or(Timestamp::MAX);
        if now < due {
            // Some holds are told by the step that led to them and never again.
            return if due == Timestamp::MAX { wake } else { wake.or_at(Some(due)) };
        }
        episode.announced = true;
        let (message, alert) = (episode.hold.message.clone(), episode.hold.alert.clone());
        self.emit(message, object, now);
        if let Some(notice) = alert {
            self.alert(&notice, || None);
        }
        wake
    }

    pub(super) fn emit(&self, note: Note, object: &DynamicObject, at: Timestamp) {
        self.send_to_event_hooks(&note, at);
        self.deps.recorder.do_send(Record { about: event_subject(&self.id, object), note, at });
    }

    fn send_to_event_hooks(&self, note: &Note, at: Timestamp) {
        let canary = self.knowledge.understood().ok().map(|(known, _)| &known.canary);
        let present = self.knowledge.state();
        let next = self.run.as_ref().map(|run| &run.next).filter(|_| note.is_of_next_phase());
        let phase = next.or(present).map_or(Phase::default(), |state| state.phase);
        // In Flagger the checksum is that of the revision before until the status is written, but for the first revision.
        let revision = next.filter(|_| matches!(note, Note::Initialized { .. })).or(present);
        let checksum = match revision {
            None => hooks::checksum(None, ""),
            Some(state) => hooks::checksum(state.tracked_configs.as_ref(), &state.last_applied),
        };
        let news = EventNews { note, at, phase: phase.as_str(), checksum: &checksum };
        let calls = hooks::prepare_event(&self.id, canary, &news, self.deps.settings.event_webhook.as_deref());
        if !calls.is_empty() {
            self.deps.courier.do_send(SendEvent { canary: self.id.clone(), hooks: calls });
        }
    }

    /// Unless it was the last one that was told.
    pub(super) fn tell_failure(&mut self, text: String, object: &DynamicObject, now: Timestamp) {
        if self.last_failure.as_ref() != Some(&text) {
            self.emit(Note::Obstacle(text.clone()), object, now);
            self.last_failure = Some(text);
        }
    }
}

/// One obstacle may be followed by another of its kind (the next missing ConfigMap), which is news. Pods that start are
/// one episode, however many are ready by now.
fn is_same_episode(before: &Hold, now: &Hold) -> bool {
    let is_named = matches!(now.kind, HoldKind::Target | HoldKind::Routes);
    // What is worth an alert is news, too.
    before.kind == now.kind
        && before.alert.is_some() == now.alert.is_some()
        && (!is_named || before.message == now.message)
}

fn event_subject(id: &CanaryId, object: &DynamicObject) -> EventSubject {
    EventSubject {
        canary: id.clone(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
    }
}
