//! Writes to `/scale`: the replicas of the scaled object change hands (`managedfields.ScaleHandler`).

use std::sync::Arc;

use super::apply::BEFORE_FIRST_APPLY;
use super::element::PathElement;
use super::managed::{self, ManagerKey, Managers, Operation, Owned};
use super::set::{Path, Set};
use super::update::{Conflict, Writer};

fn replicas_path(segments: &[String]) -> Path {
    segments.iter().map(|segment| PathElement::field(segment)).collect()
}

/// What becomes of the managed fields of an object whose replicas `/scale` changed.
pub(crate) fn track_scale(
    writer: &Writer<'_>,
    replicas: &[String],
    is_changed: bool,
    present: Option<&str>,
) -> Option<String> {
    let present = present?;
    if !is_changed {
        return Some(present.to_owned());
    }
    let mut managers = managed::decode(present);
    let path = replicas_path(replicas);
    // A Scale whose replicas nobody owns has no managed fields, and counts as one that is not tracked.
    if !managers.values().any(|owned| owned.set.contains(&path)) {
        return Some(present.to_owned());
    }
    take_replicas(&mut managers, &path, None);
    own_replicas(writer, Operation::Update, &path, &mut managers);
    managed::encode(&managers)
}

/// The managed fields after replicas were applied through `/scale`.
///
/// # Errors
/// Conflicts with other owners of replicas, unless the value stays or the request is forced.
pub(crate) fn apply_scale(
    writer: &Writer<'_>,
    replicas: &[String],
    is_changed: bool,
    is_forced: bool,
    present: Option<&str>,
) -> Result<Option<String>, Vec<Conflict>> {
    let path = replicas_path(replicas);
    let mut managers = present.map(managed::decode).unwrap_or_default();
    let own = writer.key(Operation::Apply);
    if !managers.values().any(|owned| owned.set.contains(&path)) {
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..writer.clone() };
        own_replicas(&before, Operation::Update, &path, &mut managers);
    }
    if is_changed {
        let others = managers.iter().filter(|(key, owned)| **key != own && owned.set.contains(&path));
        // In the Scale the field has another path than in the object.
        let path_in_scale: Path = ["spec", "replicas"].map(PathElement::field).into();
        let conflicts: Vec<Conflict> =
            others.map(|(key, _)| Conflict { owner: owner_in_scale(key), path: path_in_scale.clone() }).collect();
        if !conflicts.is_empty() && !is_forced {
            return Err(conflicts);
        }
        take_replicas(&mut managers, &path, Some(&own));
    }
    if !managers.contains_key(&own) {
        own_replicas(writer, Operation::Apply, &path, &mut managers);
    }
    Ok(managed::encode(&managers))
}

/// A manager as its entry of a Scale names it.
fn owner_in_scale(key: &ManagerKey) -> ManagerKey {
    ManagerKey::new(&key.manager, key.operation, "autoscaling/v1", &key.subresource)
}

fn take_replicas(managers: &mut Managers, path: &Path, spared: Option<&ManagerKey>) {
    let mut replicas = Set::default();
    replicas.insert(path);
    for (_, owned) in managers.iter_mut().filter(|(key, _)| Some(*key) != spared) {
        owned.set = owned.set.difference(&replicas);
    }
    managers.retain(|_, owned| !owned.set.is_empty());
}

fn own_replicas(writer: &Writer<'_>, operation: Operation, path: &Path, managers: &mut Managers) {
    let mut set = Set::default();
    set.insert(path);
    // The API server looks for the time where a new entry has none yet, so these entries have no time.
    managers
        .insert(writer.key(operation), Owned { set, api_version: writer.api_version().into(), time: Arc::default() });
}
