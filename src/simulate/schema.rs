//! What Aviary's own definitions say of a field, to tell in words what an API server says in its own.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aviary_crds::names;
use aviary_crds::schema::all_crds;
use serde_json::Value;

use super::manifests::Manifest;

static DEFINITIONS: LazyLock<Vec<Value>> = LazyLock::new(all_crds);

/// The schema of a field, of one of Aviary's own kinds. Keys of the object may have dots of their own.
fn schema_of(manifest: &Manifest, path: &str) -> Option<&'static Value> {
    let definition = DEFINITIONS.iter().find(|definition| {
        manifest.group() == names::GROUP && definition["spec"]["names"]["kind"] == manifest.kind()
    })?;
    let versions = definition["spec"]["versions"].as_array()?;
    let mut schema = versions.first()?.pointer("/schema/openAPIV3Schema")?;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some((_, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            (schema, rest) = (schema.get("items")?, after.trim_start_matches('.'));
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let property = schema.get("properties").and_then(|properties| properties.get(name));
        (schema, rest) = (property.or(schema.get("additionalProperties"))?, after.trim_start_matches('.'));
    }
    Some(schema)
}

/// Names of the fields of an object at a path; none where that is not known.
pub(super) fn fields(manifest: &Manifest, path: &str) -> Vec<&'static str> {
    let properties = schema_of(manifest, path).and_then(|schema| schema["properties"].as_object());
    properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str)).collect()
}

/// What is wrong with the fields of an object that must have exactly one of several forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// These belong to different forms.
    Conflict(Vec<String>),
    /// Every form needs these.
    Missing(Vec<String>),
    /// One of these would complete a form.
    OneMissing(Vec<String>),
}

/// Holds the fields that are `given` against the forms that a path has. `None` where the forms are no lists of fields.
pub(super) fn misfit(manifest: &Manifest, path: &str, given: &[String]) -> Option<Misfit> {
    let forms = schema_of(manifest, path)?["oneOf"].as_array()?;
    let forms: Vec<BTreeSet<&str>> = forms.iter().map(required).collect::<Option<_>>()?;
    let given: BTreeSet<&str> = given.iter().map(String::as_str).collect();
    let owned = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let complete: Vec<&BTreeSet<&str>> = forms.iter().filter(|form| form.is_subset(&given)).collect();
    if complete.len() > 1 {
        return Some(Misfit::Conflict(owned(own(&complete))));
    }
    let missing: Vec<BTreeSet<&str>> = forms.iter().map(|form| form - &given).collect();
    let everywhere = common(&missing.iter().collect::<Vec<_>>());
    if !everywhere.is_empty() {
        return Some(Misfit::Missing(owned(everywhere)));
    }
    let least = missing.iter().map(BTreeSet::len).min()?;
    let choices = missing.into_iter().filter(|missing| missing.len() == least).flatten().collect();
    Some(Misfit::OneMissing(owned(choices)))
}

/// The fields of a form that is nothing but a list of them.
fn required(form: &'static Value) -> Option<BTreeSet<&'static str>> {
    let form = form.as_object().filter(|form| form.len() == 1)?;
    form.get("required")?.as_array()?.iter().map(Value::as_str).collect()
}

/// Fields that all forms have.
fn common<'f>(forms: &[&BTreeSet<&'f str>]) -> BTreeSet<&'f str> {
    let Some((first, others)) = forms.split_first() else { return BTreeSet::new() };
    first.iter().filter(|name| others.iter().all(|form| form.contains(*name))).copied().collect()
}

/// Fields that not all forms have.
fn own<'f>(forms: &[&BTreeSet<&'f str>]) -> BTreeSet<&'f str> {
    let common = common(forms);
    forms.iter().flat_map(|form| form.iter()).filter(|name| !common.contains(*name)).copied().collect()
}
