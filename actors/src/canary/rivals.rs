//! Canaries that get in each other's way. Two on one target would fight over its primary and its routes, two with one service
//! over where its users are led, so the younger one does nothing as long as there is an older one. Both say so. (Flagger runs both,
//! and of one target it writes a line to its log.) The same goes for objects of different kinds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aviary_providers::ObjectKind;
use aviary_rollout::Message as Note;
use jiff::Timestamp;
use kube::core::DynamicObject;

use super::CanaryActor;
use crate::dialects::{self, Claim, Role, contested};
use crate::messages::CanaryId;

/// What is told when a canary's service gets another name. What has the old one may still be routed to and stays.
pub(super) fn renamed(before: &str, now: &str) -> Note {
    Note::Obstacle(format!("The service name changed to {now}, remove {before} objects to avoid routing conflicts"))
}

/// Another one that claims the same.
struct Rival<'a> {
    id: CanaryId,
    object: Arc<DynamicObject>,
    claim: &'a Claim,
}

impl Rival<'_> {
    /// As it is called by objects of this kind.
    fn name(&self, kind: &ObjectKind) -> String {
        if self.id.kind == kind { self.id.name.clone() } else { format!("{} {}", self.id.kind.kind, self.id.name) }
    }

    fn age(&self) -> Age<'_> {
        age(self.id.kind, &self.object)
    }
}

impl CanaryActor {
    /// Notes whether this canary leaves what it names to another one; tells it where it is this one that has it.
    pub(super) fn compare_with_rivals(&mut self, object: &DynamicObject, now: Timestamp) {
        self.yields = None;
        let kind = self.id.kind;
        let claims = dialects::of(kind, object).claims(object);
        let rivals = self.rivals_for(&claims);
        let own_age = age(kind, object);
        if let Some(older) = rivals.iter().filter(|rival| rival.age() < own_age).min_by_key(|rival| rival.age()) {
            self.rivals.clear();
            self.yields = Some(yielded_to(kind, older));
            return;
        }
        let mut by_claim: BTreeMap<&Claim, Vec<&Rival>> = BTreeMap::new();
        for rival in &rivals {
            by_claim.entry(rival.claim).or_default().push(rival);
        }
        let mut all = BTreeSet::new();
        for (claim, rivals) in by_claim {
            let names: BTreeSet<String> = rivals.iter().map(|rival| rival.name(kind)).collect();
            if !names.is_subset(&self.rivals) {
                let is_one_kind = rivals.iter().all(|rival| rival.id.kind == kind);
                let what = if is_one_kind { kind.kind.to_lowercase() } else { "object".to_owned() };
                self.emit(Note::Obstacle(kept_from(&what, claim, &names)), object, now);
            }
            all.extend(names);
        }
        self.rivals = all;
    }

    fn rivals_for<'a>(&self, claims: &'a [Claim]) -> Vec<Rival<'a>> {
        let candidates = self.deps.cache.rivals(&self.id).into_iter();
        let rivals = candidates.filter_map(|(id, object)| {
            let theirs = dialects::of(id.kind, &object).claims(&object);
            let claim = contested(claims, &theirs)?;
            Some(Rival { id, object, claim })
        });
        rivals.collect()
    }
}

/// Why an object of this kind does nothing.
fn yielded_to(kind: &ObjectKind, older: &Rival) -> String {
    let claim = older.claim;
    let (thing, role) = claim.in_words();
    let (own, other) = (kind.kind.to_lowercase(), older.id.kind.kind.to_lowercase());
    let until = match claim.role {
        Role::Target => "that one is deleted or has another target",
        Role::Service => "one of them has another service or that one is deleted",
    };
    format!(
        "{}: {thing} is the {role} of {other} {}, too, which is older; this {own} does nothing until {until}",
        claim.field, older.id.name
    )
}

fn kept_from(what: &str, claim: &Claim, younger: &BTreeSet<String>) -> String {
    let (thing, role) = claim.in_words();
    let others = younger.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    format!(
        "Found more than one {what} with the same {role} {thing}: {others} does nothing, delete it or give it another {role}"
    )
}

type Age<'a> = (Option<Timestamp>, Option<&'a str>, &'static ObjectKind);

/// Orders objects from the oldest to the youngest.
fn age<'a>(kind: &'static ObjectKind, object: &'a DynamicObject) -> Age<'a> {
    (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.metadata.name.as_deref(), kind)
}
