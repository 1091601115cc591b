//! How long users stay on a version that is known to be bad: from the sample that makes one failed check too many to the
//! route back.
//!
//! It is read from what is stored, so it holds the controller to account for everything in between: the judgement, the
//! status write, the next decision and the route's write. Time that trouble costs is the trouble's: after whatever hits a
//! request of the controller, it may wait before it tries again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aviary_crds::duration::parse_go_duration;
use aviary_sim::calls::Call;
use aviary_sim::clock::Clock;
use aviary_sim::cluster::Cluster;
use aviary_sim::store::{ChangeType, StoreEvent, kinds};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::checks::{Key, Revision, greatest_weights, is_past_threshold, key_of, rules};

/// Where nothing is in the way. The two writes follow from the sample at once, and requests take no virtual time; a second
/// is far less than the shortest interval, so that a controller that waits for its next round is found out.
const UNDISTURBED: SignedDuration = SignedDuration::from_secs(1);
/// After the last trouble: the longest wait between two tries of a write (60 s and a fifth), of which the last may get no
/// answer for its 30 s, and then an interval (30 s at most) until a sample that was lost is taken again.
const AFTER_TROUBLE: SignedDuration = SignedDuration::from_secs(72 + 30 + 30);

/// Watches rollbacks. A cheap handle.
#[derive(Clone)]
pub(crate) struct Promptness {
    clock: Clock,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    canaries: BTreeMap<Key, Canary>,
    /// The last trouble of everybody.
    troubled_at: Option<Timestamp>,
    controller_is_dead: bool,
    late: Vec<String>,
}

#[derive(Default)]
struct Canary {
    /// The greatest share of any users that the canary has.
    weight: i64,
    /// When the next sample is due, as far as the status tells.
    sample_due: Option<Timestamp>,
    /// The spec, and since when it is so: what was due before is due from then on.
    generation: Option<i64>,
    specified_at: Option<Timestamp>,
    past: Option<Past>,
    troubled_at: Option<Timestamp>,
}

struct Past {
    since: Timestamp,
    revision: Revision,
}

impl Promptness {
    /// Watches the cluster's canaries from now on.
    pub(crate) fn follow(cluster: &Cluster) -> Promptness {
        let promptness = Promptness { clock: *cluster.clock(), book: Arc::default() };
        let mut changes = cluster.store().subscribe();
        let mut hits = cluster.faults().subscribe();
        let follower = promptness.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // What is hit comes before what is written after it.
                    biased;
                    Some(call) = hits.recv() => follower.lock().take_hit(&call, follower.clock.now()),
                    Some(event) = changes.recv() => follower.lock().take(&event, follower.clock.now()),
                    else => return,
                }
            }
        });
        promptness
    }

    /// The controller died, or another one was started.
    pub(crate) fn note_controller(&self, is_dead: bool) {
        let mut book = self.lock();
        book.controller_is_dead = is_dead;
        book.troubled_at = Some(self.clock.now());
    }

    /// Something else that the controller needs was out of order until now.
    pub(crate) fn note_trouble(&self) {
        self.lock().troubled_at = Some(self.clock.now());
    }

    /// Who was late until now, and how late.
    pub(crate) fn violations(&self) -> Vec<String> {
        let now = self.clock.now();
        let mut book = self.lock();
        let keys: Vec<Key> = book.canaries.keys().cloned().collect();
        for key in keys {
            book.judge(&key, now, "and are there still");
        }
        std::mem::take(&mut book.late)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// A request that was hit: of a canary's own objects, or one that looks at all objects of a kind.
    fn take_hit(&mut self, call: &Call, now: Timestamp) {
        if call.name.is_empty() {
            self.troubled_at = Some(now);
            return;
        }
        for ((namespace, name), canary) in &mut self.canaries {
            let own =
                call.name.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
            if call.namespace == *namespace && own {
                canary.troubled_at = Some(now);
            }
        }
    }

    fn take(&mut self, event: &StoreEvent, now: Timestamp) {
        let key = key_of(event.object());
        if event.kind == kinds::VIRTUAL_SERVICE {
            let weights = greatest_weights(rules(event.object()));
            let on_canary = weights.iter().filter(|(host, _)| host.ends_with("-canary"));
            let weight = on_canary.map(|(_, weight)| *weight).max().unwrap_or(0);
            self.canaries.entry(key.clone()).or_default().weight = weight;
            if weight == 0 {
                self.end(&key, now);
            }
        } else if event.kind == kinds::CANARY {
            if event.change == ChangeType::Deleted {
                self.canaries.remove(&key);
            } else {
                self.take_canary(&key, event.object(), now);
            }
        }
    }

    fn take_canary(&mut self, key: &Key, object: &Value, now: Timestamp) {
        let revision = Revision::of(object);
        let is_meant_to_wait = object["spec"]["suspend"] == true || !object["metadata"]["deletionTimestamp"].is_null();
        let canary = self.canaries.entry(key.clone()).or_default();
        let generation = object["metadata"]["generation"].as_i64();
        if canary.generation != generation {
            (canary.generation, canary.specified_at) = (generation, Some(now));
        }
        let due = |due: Option<Timestamp>| due.map(|at| canary.specified_at.map_or(at, |earliest| at.max(earliest)));
        let (before, next) = (due(canary.sample_due), due(next_sample(object)));
        canary.sample_due = next;
        // Somebody changed his mind, which is no delay.
        if is_meant_to_wait || canary.past.as_ref().is_some_and(|past| past.revision != revision) {
            canary.past = None;
        }
        if is_past_threshold(object) && !is_meant_to_wait && canary.weight > 0 && canary.past.is_none() {
            let decided = timestamp(&object["status"]["lastStepTime"]).unwrap_or(now);
            // A hook may have held up the sample; otherwise it was taken when it was due.
            let has_hooks = object["spec"]["analysis"]["webhooks"].as_array().is_some_and(|hooks| !hooks.is_empty());
            let since = before.filter(|_| !has_hooks).map_or(decided, |due| due.min(decided));
            canary.past = Some(Past { since, revision });
        }
    }

    fn end(&mut self, key: &Key, now: Timestamp) {
        self.judge(key, now, "until now");
        if let Some(canary) = self.canaries.get_mut(key) {
            canary.past = None;
        }
    }

    fn judge(&mut self, key: &Key, now: Timestamp, end: &str) {
        let Some(canary) = self.canaries.get(key) else { return };
        let Some(Past { since, .. }) = canary.past else { return };
        if self.controller_is_dead {
            return;
        }
        let troubled_at = self.troubled_at.max(canary.troubled_at).filter(|at| *at + AFTER_TROUBLE >= since);
        let (from, bound) = match troubled_at {
            Some(at) => (at.max(since), AFTER_TROUBLE),
            None => (since, UNDISTURBED),
        };
        if now.duration_since(from) > bound {
            let (namespace, name) = key;
            let took = now.duration_since(since);
            let trouble = troubled_at.map(|at| format!(", last trouble {at}")).unwrap_or_default();
            self.late.push(format!(
                "{namespace}/{name}: {LATE}: users have been past the threshold since {since}, {end} ({now}): {took:#}{trouble}"
            ));
        }
    }
}

/// Name of the invariant.
const LATE: &str = "users_leave_what_failed";

/// When the running soak ends.
fn next_sample(canary: &Value) -> Option<Timestamp> {
    let interval = canary["spec"]["analysis"]["interval"].as_str()?;
    let interval = SignedDuration::try_from(parse_go_duration(interval).ok()?).ok()?;
    timestamp(&canary["status"]["lastStepTime"])?.checked_add(interval).ok()
}

fn timestamp(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests;
