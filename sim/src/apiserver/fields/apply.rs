//! Server-side apply (`merge.Updater.Apply` and the field managers around it).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::compare::{compare, fields_of};
use super::managed::{self, Managers, Operation, Owned};
use super::merge::{merge, remove, with_named_fields};
use super::set::{Set, path_text};
use super::update::{Before, Conflict, Writer, reassign, reconcile_versions, track_update, without_unowned};
use super::{last_applied, skeleton, validate};
use crate::clock::format_seconds;

/// The manager of everything that an object had before anything was applied to it.
pub(super) const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What applying made.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The object, before defaults.
    pub(crate) value: Value,
    /// The text of the managed fields.
    pub(crate) managed: Option<String>,
}

/// The same before the text is made.
struct Merged {
    value: Value,
    managers: Managers,
}

/// Why a configuration was not applied.
#[derive(Debug)]
pub(crate) enum ApplyError {
    /// Fields are owned by others.
    Conflicts(Vec<Conflict>),
    /// The configuration does not have its type.
    Untyped(String),
}

/// An apply request.
pub(crate) struct Apply<'a> {
    pub(crate) writer: Writer<'a>,
    pub(crate) config: &'a Value,
    pub(crate) is_forced: bool,
}

impl Apply<'_> {
    /// Applies the configuration.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub(crate) fn run(&self, before: Before<'_>) -> Result<Applied, ApplyError> {
        let live = before.object;
        let managers = match before.managed {
            Some(managed) => managed::decode(managed),
            None if before.is_new => Managers::new(),
            None => self.before_first_apply(live),
        };
        let problems = validate::problems(self.writer.own_type(), self.config);
        if !problems.is_empty() {
            return Err(self.untyped(&problems));
        }
        let mut merged = match self.apply(live, managers.clone(), self.is_forced) {
            Err(ApplyError::Conflicts(conflicts)) if self.writer.manager == last_applied::MANAGER => {
                let allowed = last_applied::unchanged_fields(&self.writer, live).unwrap_or_default();
                let left: Vec<Conflict> =
                    conflicts.into_iter().filter(|conflict| !allowed.contains(&conflict.path)).collect();
                if !left.is_empty() {
                    return Err(ApplyError::Conflicts(left));
                }
                self.apply(live, managers, true)?
            }
            other => other?,
        };
        if self.writer.manager == last_applied::MANAGER {
            last_applied::refresh(&mut merged.value, self.config);
        }
        Ok(Applied { value: merged.value, managed: managed::encode(&merged.managers) })
    }

    fn before_first_apply(&self, live: &Value) -> Managers {
        let writer = Writer { manager: BEFORE_FIRST_APPLY, ..self.writer.clone() };
        let nothing = skeleton::of(self.writer.resource, &self.writer.api_version());
        let before = Before { object: &nothing, managed: None, is_new: true };
        let text = track_update(&writer, before, live, &Value::Null);
        text.map(|text| managed::decode(&text)).unwrap_or_default()
    }

    fn untyped(&self, problems: &[String]) -> ApplyError {
        let text = |field: &str| self.config["metadata"][field].as_str().unwrap_or_default();
        let api_version = self.writer.api_version();
        let separator = if api_version.contains('/') { "" } else { "/" };
        ApplyError::Untyped(format!(
            "failed to create typed patch object ({}/{}; {separator}{api_version}, Kind={}): {}",
            text("namespace"),
            text("name"),
            self.writer.resource.kind,
            validate::joined(problems)
        ))
    }

    fn apply(&self, live: &Value, mut managers: Managers, is_forced: bool) -> Result<Merged, ApplyError> {
        let writer = &self.writer;
        reconcile_versions(writer, &mut managers);
        let ty = writer.own_type();
        let ignored = writer.ignored();
        let key = writer.key(Operation::Apply);
        let merged = merge(ty, live, self.config).map_err(|problems| {
            ApplyError::Untyped(format!("failed to merge config: {}", validate::joined(&problems)))
        })?;
        let set = fields_of(ty, self.config).recursive_difference(&ignored);
        let last = managers.get(&key).cloned();
        let time = last.as_ref().map(|last| Arc::clone(&last.time)).unwrap_or_default();
        managers.insert(key.clone(), Owned { set, api_version: writer.api_version().into(), time });
        let value = match last {
            Some(last) if !last.set.is_empty() => self.prune(merged, &managers, &last),
            _ => merged,
        };
        let changes = compare(ty, live, &value, |_| true).without(&ignored);
        reassign(writer, live, &value, &changes, &mut managers, Some(&key), is_forced)
            .map_err(ApplyError::Conflicts)?;
        if let Some(mut owned) = managers.remove(&key) {
            owned.set = without_unowned(&owned.set);
            if value != *live {
                owned.time = format_seconds(writer.now).into();
            }
            if !owned.set.is_empty() {
                managers.insert(key, owned);
            }
        }
        Ok(Merged { value, managers })
    }

    /// Takes away what this manager applied last time, does not apply now, and nobody else owns.
    fn prune(&self, merged: Value, managers: &Managers, last: &Owned) -> Value {
        let writer = &self.writer;
        let Some(ty) = writer.type_in(&last.api_version) else {
            return merged;
        };
        let last_set = with_named_fields(ty, &last.set);
        let mut pruned = remove(ty, &merged, &last_set);
        let mut owned_by_version: BTreeMap<&str, Set> = BTreeMap::new();
        for owned in managers.values() {
            let set = owned_by_version.entry(&owned.api_version).or_default();
            *set = set.union(&owned.set);
        }
        // The version of what is taken away comes first.
        let first = owned_by_version.remove_entry(&*last.api_version);
        for (version, owned) in first.into_iter().chain(owned_by_version) {
            if let Some(ty) = writer.type_in(version) {
                let fields = |value: &Value| with_named_fields(ty, &fields_of(ty, value));
                let kept = fields(&pruned).union(&with_named_fields(ty, &owned));
                pruned = remove(ty, &merged, &fields(&merged).difference(&kept));
            }
        }
        // What hangs below something taken away, but was not applied by this manager, stays.
        let fields = |value: &Value| with_named_fields(ty, &fields_of(ty, value));
        let gone = fields(&merged).difference(&fields(&pruned)).intersection(&last_set);
        remove(ty, &merged, &gone)
    }
}

/// The message about conflicts, and for each conflict its own message and path.
pub(crate) fn describe(conflicts: &[Conflict]) -> (String, Vec<(String, String)>) {
    let causes: Vec<(String, String)> = conflicts
        .iter()
        .map(|conflict| (format!("conflict with {}", conflict.owner.describe()), path_text(&conflict.path)))
        .collect();
    if let [(message, path)] = causes.as_slice() {
        return (format!("Apply failed with 1 conflict: {message}: {path}"), causes);
    }
    let mut lines = Vec::new();
    let mut last_owner = None;
    for conflict in conflicts {
        if last_owner != Some(&conflict.owner) {
            lines.push(format!("conflicts with {}:", conflict.owner.describe()));
            last_owner = Some(&conflict.owner);
        }
        lines.push(format!("- {}", path_text(&conflict.path)));
    }
    (format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n")), causes)
}

/// The object without nulls, which mean nothing to kinds that are decoded into structures.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, child| !child.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
