//! The strategic merge patch (`k8s.io/apimachinery/pkg/util/strategicpatch`): a merge patch in which the types say how lists
//! are merged, and in which directives (`$patch`, `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`) say the
//! rest.

use serde_json::{Map, Value};

use super::super::schema::{PatchStrategy, Schema};
use super::{print_as_go, print_map_as_go};
use crate::store::StatusError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER_PREFIX: &str = "$setElementOrder/";
const DELETION_PREFIX: &str = "$deleteFromPrimitiveList/";

/// A patch that cannot be applied, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub(super) enum MergeError {
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoMergeKey { item: String, key: String },
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective { directive: String, map: String },
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirectiveInList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    OrderMismatch { patch: String, order: String },
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("list element types are not identical: {0}")]
    MixedElements(String),
}

impl From<MergeError> for StatusError {
    /// `interpretStrategicMergePatchError`; what it does not know comes out as a plain 500.
    fn from(error: MergeError) -> Self {
        let message = error.to_string();
        match error {
            MergeError::RetainKeys | MergeError::ElementOrder => Self::bad_request(message),
            MergeError::ListOfLists => {
                Self::new(422, "Invalid", "the server rejected our request due to an error in our request")
                    .with_causes(Vec::new())
            }
            _ => Self::new(500, "", message),
        }
    }
}

/// Applies a patch to an object. Without a schema, lists are replaced and maps merged.
pub(super) fn merge(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Option<&Schema>,
) -> Result<Map<String, Value>, MergeError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => Err(unknown_directive(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (name, change) in patch {
        if let Some(list) = name.strip_prefix(DELETION_PREFIX) {
            delete_scalars(&mut original, list, &change);
            continue;
        }
        merge_field(&mut original, name, change, schema)?;
    }
    Ok(original)
}

fn merge_field(
    original: &mut Map<String, Value>,
    name: String,
    change: Value,
    schema: Option<&Schema>,
) -> Result<(), MergeError> {
    let present = original.remove(&name);
    let strategy = schema.and_then(|schema| schema.patch_strategy(&name));
    let child = schema.and_then(|schema| schema.property(&name).or_else(|| schema.additional()));
    let merged = match (present, change) {
        (_, Value::Null) => None,
        (Some(Value::Object(present)), Value::Object(change)) => {
            if strategy.is_some_and(|strategy| strategy.replace) {
                Some(Value::Object(change))
            } else {
                Some(Value::Object(merge(present, change, child)?))
            }
        }
        (Some(Value::Array(present)), Value::Array(change)) => match strategy {
            Some(strategy) if strategy.merge => {
                let items = child.and_then(Schema::items);
                Some(Value::Array(merge_list(present, change, strategy, items)?))
            }
            _ => Some(Value::Array(change)),
        },
        (_, mut change) => {
            discard_nulls(&mut change);
            without_directives(change)
        }
    };
    if let Some(merged) = merged {
        original.insert(name, merged);
    }
    Ok(())
}

/// `$retainKeys`: of the original only these fields stay.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), MergeError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let retained = retained.as_array().ok_or(MergeError::RetainKeys)?;
    let is_retained = |name: &str| retained.iter().any(|kept| kept == name);
    let contradicts = patch.iter().any(|(name, change)| {
        !change.is_null() && !name.starts_with(DELETION_PREFIX) && !name.starts_with(ORDER_PREFIX) && !is_retained(name)
    });
    if contradicts {
        return Err(MergeError::RetainKeys);
    }
    original.retain(|name, _| is_retained(name));
    Ok(())
}

/// `$setElementOrder`: merges the list that it speaks of and puts it in order.
fn merge_ordered_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Option<&Schema>,
) -> Result<(), MergeError> {
    let ordered: Vec<String> = patch.keys().filter(|name| name.starts_with(ORDER_PREFIX)).cloned().collect();
    for directive in ordered {
        let order = patch.remove(&directive).unwrap_or_default();
        let name = directive.trim_start_matches(ORDER_PREFIX);
        let Value::Array(order) = order else {
            return Err(MergeError::ElementOrder);
        };
        let list = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(MergeError::ElementOrder),
        };
        let present = list(original.remove(name))?;
        let change = list(patch.remove(name))?;
        let strategy = schema.and_then(|schema| schema.patch_strategy(name)).cloned().unwrap_or_default();
        let key = strategy.merge_key.as_deref();
        if let Some(change) = &change {
            check_order(change, &order, key)?;
        }
        let server_order = present.clone().unwrap_or_default();
        let merged = match (present, change) {
            (None, None) => continue,
            (Some(present), None) => present,
            (None, Some(change)) => change.into_iter().filter_map(without_directives).collect(),
            (Some(present), Some(change)) if strategy.merge => {
                let child = schema.and_then(|schema| schema.property(name)).and_then(Schema::items);
                merge_list(present, change, &strategy, child)?
            }
            (Some(_), Some(change)) => change,
        };
        original.insert(name.to_owned(), Value::Array(in_order(merged, &order, &server_order, key)?));
    }
    Ok(())
}

/// The items of the patch have to follow the order that it asks for.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), MergeError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
        let wanted = identity(item, key)?;
        let mut found = false;
        for candidate in rest.by_ref() {
            if identity(candidate, key)? == wanted {
                found = true;
                break;
            }
        }
        if !found {
            let print = |items: &[Value]| print_as_go(&Value::Array(items.to_vec()));
            return Err(MergeError::OrderMismatch { patch: print(patch), order: print(order) });
        }
    }
    Ok(())
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    strategy: &PatchStrategy,
    item_schema: Option<&Schema>,
) -> Result<Vec<Value>, MergeError> {
    let all = || original.iter().chain(&patch);
    if all().any(Value::is_array) {
        return Err(MergeError::ListOfLists);
    }
    let of_maps = all().any(Value::is_object);
    if of_maps && !all().all(Value::is_object) {
        let shown = print_as_go(&Value::Array(vec![Value::Array(original), Value::Array(patch)]));
        return Err(MergeError::MixedElements(shown));
    }
    let Some(key) = strategy.merge_key.as_deref().filter(|_| of_maps) else {
        let server_order = original.clone();
        for item in &patch {
            if !original.contains(item) {
                original.push(item.clone());
            }
        }
        return in_order(original, &patch, &server_order, None);
    };
    let mut replaced = false;
    let mut changes = Vec::new();
    for item in patch {
        match item.get(PATCH).map(|directive| (directive, directive.as_str())) {
            None => changes.push(item),
            Some((_, Some("delete"))) => {
                let doomed = identity(&item, Some(key))?;
                original.retain(|present| present.get(key) != Some(doomed));
            }
            Some((_, Some("replace"))) => replaced = true,
            Some((_, Some("merge"))) => return Err(MergeError::MergeDirectiveInList),
            Some((directive, _)) => {
                let map = item.as_object().cloned().unwrap_or_default();
                return Err(unknown_directive(directive, &map));
            }
        }
    }
    if replaced {
        return Ok(changes);
    }
    let server_order = original.clone();
    let order = changes.clone();
    for change in changes {
        let wanted = identity(&change, Some(key))?.clone();
        let position = original.iter().position(|present| present.get(key) == Some(&wanted));
        match (position, change) {
            (Some(position), Value::Object(change)) => {
                if let Value::Object(present) = std::mem::take(&mut original[position]) {
                    original[position] = Value::Object(merge(present, change, item_schema)?);
                }
            }
            (_, change) => original.extend(without_directives(change)),
        }
    }
    in_order(original, &order, &server_order, Some(key))
}

/// Items that `order` names in its order, the others where they stood on the server.
fn in_order(
    items: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, MergeError> {
    let position_in = |list: &[Value], item: &Value| -> Option<usize> {
        let wanted = identity(item, key).ok()?;
        list.iter().position(|candidate| identity(candidate, key).is_ok_and(|found| found == wanted))
    };
    for item in items.iter().chain(order) {
        identity(item, key)?;
    }
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| position_in(order, item).is_some());
    named.sort_by_key(|item| position_in(order, item));
    others.sort_by_key(|item| position_in(server_order, item).unwrap_or(usize::MAX));
    let mut merged = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(left), Some(right)) = (others.peek(), named.peek()) {
        let server_comes_first = match (position_in(server_order, left), position_in(server_order, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        merged.extend(if server_comes_first { others.next() } else { named.next() });
    }
    merged.extend(named);
    merged.extend(others);
    Ok(merged)
}

/// By what an item is told apart: its merge key, or itself.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> Result<&'a Value, MergeError> {
    let Some(key) = key else {
        return Ok(item);
    };
    item.get(key).ok_or_else(|| MergeError::NoMergeKey { item: print_as_go(item), key: key.to_owned() })
}

fn delete_scalars(original: &mut Map<String, Value>, list: &str, doomed: &Value) {
    let Some(items) = original.get_mut(list).and_then(Value::as_array_mut) else {
        return;
    };
    let doomed = doomed.as_array().map_or(&[][..], Vec::as_slice);
    items.retain(|item| !doomed.contains(item));
}

/// What Go's merge leaves of a patch, which is what it shows when it refuses the outcome: nulls are gone within what the object does
/// not have, or has as something else (`IgnoreUnmatchedNulls`), and so are directives and lists that are merged in an order of
/// their own.
pub(super) fn leave_what_is_shown(patch: &mut Map<String, Value>, original: &Map<String, Value>) {
    let ordered: Vec<String> =
        patch.keys().filter_map(|name| name.strip_prefix(ORDER_PREFIX)).map(str::to_owned).collect();
    patch.retain(|name, _| name != RETAIN_KEYS && !name.starts_with(ORDER_PREFIX) && !ordered.contains(name));
    for (name, change) in patch {
        match (original.get(name), &mut *change) {
            (Some(Value::Object(present)), Value::Object(change)) => leave_what_is_shown(change, present),
            (Some(Value::Array(_)), Value::Array(_)) | (_, Value::Null) => {}
            _ => discard_nulls(change),
        }
    }
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, child| !child.is_null());
            fields.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// The value without directives; nothing if it is itself under one.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(PATCH) => None,
        Value::Object(fields) => {
            let kept = fields
                .into_iter()
                .filter(|(name, _)| {
                    name != RETAIN_KEYS && !name.starts_with(ORDER_PREFIX) && !name.starts_with(DELETION_PREFIX)
                })
                .filter_map(|(name, child)| Some((name, without_directives(child)?)))
                .collect();
            Some(Value::Object(kept))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}

fn unknown_directive(directive: &Value, map: &Map<String, Value>) -> MergeError {
    let mut map = map.clone();
    map.insert(PATCH.to_owned(), directive.clone());
    MergeError::UnknownDirective { directive: print_as_go(directive), map: print_map_as_go(&map) }
}
