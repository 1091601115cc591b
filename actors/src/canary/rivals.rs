//! Canaries that get in each other's way. Two on one target would fight over its primary and its routes, two with one service
//! over where its users are led, so the younger one does nothing as long as there is an older one. Both say so. (Flagger runs both,
//! and of one target it writes a line to its log.)

use std::collections::{BTreeMap, BTreeSet};

use aviary_rollout::Message as Note;
use jiff::Timestamp;
use kube::core::DynamicObject;

use super::CanaryActor;
use crate::cache::{service_of, target_of};

/// What is told when a canary's service gets another name. What has the old one may still be routed to and stays.
pub(super) fn renamed(before: &str, now: &str) -> Note {
    Note::Obstacle(format!("The service name changed to {now}, remove {before} objects to avoid routing conflicts"))
}

impl CanaryActor {
    /// Notes whether this canary leaves what it names to another one; tells it where it is this one that has it.
    pub(super) fn compare_with_rivals(&mut self, object: &DynamicObject, now: Timestamp) {
        self.yields = None;
        let rivals = self.deps.cache.rivals(&self.id);
        let claimed = rivals.iter().filter_map(|rival| Some((rival, Claim::shared(object, rival)?)));
        let claimed: Vec<_> = claimed.collect();
        let older = claimed.iter().filter(|(rival, _)| age(rival) < age(object)).min_by_key(|(rival, _)| age(rival));
        if let Some((older, claim)) = older {
            self.rivals.clear();
            self.yields = Some(claim.yielded_to(older.metadata.name.as_deref().unwrap_or_default()));
            return;
        }
        let mut by_claim: BTreeMap<Claim, BTreeSet<String>> = BTreeMap::new();
        for (rival, claim) in claimed {
            by_claim.entry(claim).or_default().extend(rival.metadata.name.clone());
        }
        for (claim, names) in &by_claim {
            if !names.is_subset(&self.rivals) {
                self.emit(Note::Obstacle(claim.kept_from(names)), object, now);
            }
        }
        self.rivals = by_claim.into_values().flatten().collect();
    }
}

/// What two canaries cannot both have.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim<'a> {
    Target(&'a str, &'a str),
    Service(&'a str),
}

impl<'a> Claim<'a> {
    /// The first thing that both name.
    fn shared(one: &'a DynamicObject, other: &DynamicObject) -> Option<Claim<'a>> {
        let target = target_of(one).filter(|target| target_of(other) == Some(*target));
        let service = service_of(one).filter(|service| service_of(other) == Some(service));
        target.map(|(_, kind, name)| Claim::Target(kind, name)).or(service.map(Claim::Service))
    }

    fn yielded_to(&self, older: &str) -> String {
        match self {
            Claim::Target(kind, name) => format!(
                "spec.targetRef: {kind}/{name} is the target of canary {older}, too, which is older; this canary does nothing \
                 until that one is deleted or has another target"
            ),
            Claim::Service(name) => format!(
                "spec.service.name: {name} is the service of canary {older}, too, which is older; this canary does nothing \
                 until one of them has another service or that one is deleted"
            ),
        }
    }

    fn kept_from(&self, younger: &BTreeSet<String>) -> String {
        let others = younger.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Claim::Target(kind, name) => format!(
                "Found more than one canary with the same target {kind}/{name}: {others} does nothing, delete it or give it \
                 another target"
            ),
            Claim::Service(name) => format!(
                "Found more than one canary with the same service {name}: {others} does nothing, delete it or give it another \
                 service"
            ),
        }
    }
}

/// Orders canaries from the oldest to the youngest.
fn age(object: &DynamicObject) -> (Option<Timestamp>, Option<&str>) {
    (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.metadata.name.as_deref())
}
