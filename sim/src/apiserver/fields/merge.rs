//! Merging an applied configuration into an object, and taking fields out of it (`typed.Merge`, `typed.RemoveItems`).

use std::collections::BTreeMap;

use serde_json::{Map as Fields, Value};

use super::element::PathElement;
use super::set::{Node, Set};
use super::types::{Atom, List, Map, Type};

/// The object with everything that the configuration says. Nothing is taken away.
///
/// # Errors
/// What is wrong with items of lists, with their path.
pub(crate) fn merge(ty: Type<'_>, present: &Value, applied: &Value) -> Result<Value, Vec<String>> {
    let mut problems = Vec::new();
    let merged = merge_values(ty, Some(present), Some(applied), "", &mut problems);
    if problems.is_empty() { Ok(merged.unwrap_or_default()) } else { Err(problems) }
}

fn merge_values(
    ty: Type<'_>,
    present: Option<&Value>,
    applied: Option<&Value>,
    path: &str,
    problems: &mut Vec<String>,
) -> Option<Value> {
    let atom = if applied.is_some() { ty.atom(applied) } else { ty.atom(present) };
    let leaf = || applied.or(present).cloned();
    match atom {
        Atom::Scalar(_) => leaf(),
        Atom::List(list) => {
            let (old, new) = (items(present), items(applied));
            if list.is_atomic() || (old.is_empty() && new.is_empty()) {
                return leaf();
            }
            merge_items(list, old, new, path, problems)
        }
        Atom::Map(map) => {
            let (old, new) = (present.and_then(Value::as_object), applied.and_then(Value::as_object));
            let is_empty = |fields: Option<&Fields<String, Value>>| fields.is_none_or(Fields::is_empty);
            if map.is_atomic || (is_empty(old) && is_empty(new)) {
                return leaf();
            }
            merge_fields(map, old, new, path, problems)
        }
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn merge_fields(
    map: Map<'_>,
    present: Option<&Fields<String, Value>>,
    applied: Option<&Fields<String, Value>>,
    path: &str,
    problems: &mut Vec<String>,
) -> Option<Value> {
    let mut merged = Fields::new();
    let new_names = applied.into_iter().flatten().map(|(name, _)| name);
    for name in present.into_iter().flatten().map(|(name, _)| name).chain(new_names) {
        if merged.contains_key(name) {
            continue;
        }
        let old = present.and_then(|fields| fields.get(name));
        let new = applied.and_then(|fields| fields.get(name));
        let ty = map.field_or_free(name).ty;
        if let Some(value) = merge_values(ty, old, new, &format!("{path}.{name}"), problems) {
            merged.insert(name.clone(), value);
        }
    }
    (!merged.is_empty()).then_some(Value::Object(merged))
}

/// An item of the present list: the item, or nothing where several have its path element.
type Found<'a> = BTreeMap<PathElement, Option<&'a Value>>;

/// Items come in the order of the configuration; those that only the object has keep their place among them.
fn merge_items(
    list: List<'_>,
    present: &[Value],
    applied: &[Value],
    path: &str,
    problems: &mut Vec<String>,
) -> Option<Value> {
    let problems_before = problems.len();
    let (new_order, new_items) = index(list, applied, false, path, problems);
    let (old_order, old_items) = index(list, present, true, path, problems);
    if problems.len() > problems_before {
        return None;
    }
    // Items of both, in the configuration's order: the next one to come is waited for.
    let mut shared = new_order.iter().map(|(element, _)| element).filter(|element| old_items.contains_key(*element));
    let mut next_shared = shared.next();
    let mut merged_applied = Set::default();
    let mut merged = Vec::with_capacity(old_order.len().max(new_order.len()));
    let mut merge_one = |element: &PathElement, old: Option<&Value>, new: Option<&Value>| {
        merged.extend(merge_values(list.items, old, new, &format!("{path}{element}"), problems));
    };
    let null = Value::Null;
    let old_item = |element: &PathElement| old_items.get(element).map(|item| item.unwrap_or(&null));
    let (mut old_index, mut new_index) = (0, 0);
    while old_index < old_order.len() || new_index < new_order.len() {
        let old = old_order.get(old_index);
        let new = new_order.get(new_index);
        if let (Some((old_element, _)), Some((new_element, new_value))) = (old, new) {
            if old_element == new_element {
                merged_applied.insert(std::slice::from_ref(old_element));
                merge_one(old_element, old_item(old_element), Some(new_value));
                old_index += 1;
                new_index += 1;
                next_shared = shared.next();
                continue;
            }
            if new_items.contains_key(old_element) && next_shared.is_some_and(|next| next != old_element) {
                // It comes at the place that the configuration gives it.
                old_index += 1;
                continue;
            }
        }
        if let Some((old_element, old_value)) = old {
            if !new_items.contains_key(old_element) {
                merge_one(old_element, Some(old_value), None);
                old_index += 1;
                continue;
            }
            if merged_applied.contains(std::slice::from_ref(old_element)) {
                old_index += 1;
            }
        }
        if let Some((new_element, new_value)) = new {
            merged_applied.insert(std::slice::from_ref(new_element));
            merge_one(new_element, old_item(new_element), Some(new_value));
            new_index += 1;
            if next_shared == Some(new_element) {
                next_shared = shared.next();
            }
        }
    }
    (!merged.is_empty()).then_some(Value::Array(merged))
}

fn index<'a>(
    list: List<'_>,
    items: &'a [Value],
    allows_duplicates: bool,
    path: &str,
    problems: &mut Vec<String>,
) -> (Vec<(PathElement, &'a Value)>, Found<'a>) {
    let mut order = Vec::with_capacity(items.len());
    let mut found: Found<'a> = BTreeMap::new();
    for (position, item) in items.iter().enumerate() {
        let element = match list.element(item) {
            Ok(element) => element,
            Err(problem) => {
                problems.push(format!("{path}: element {position}: {problem}"));
                continue;
            }
        };
        if found.contains_key(&element) {
            if !allows_duplicates {
                problems.push(format!("{path}: duplicate entries for key {element}"));
                continue;
            }
            found.insert(element.clone(), None);
        } else {
            found.insert(element.clone(), Some(item));
        }
        order.push((element, item));
    }
    (order, found)
}

/// The value without the given fields and items. Null when nothing is left of it.
pub(crate) fn remove(ty: Type<'_>, value: &Value, removed: &Set) -> Value {
    match ty.atom(Some(value)) {
        Atom::Scalar(_) => value.clone(),
        Atom::List(list) if !list.is_atomic() => remove_items(list, items(Some(value)), removed),
        Atom::Map(map) if !map.is_atomic => remove_fields(map, value.as_object(), removed),
        Atom::List(_) | Atom::Map(_) => Value::Null,
    }
}

fn remove_items(list: List<'_>, items: &[Value], removed: &Set) -> Value {
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        let node = list.element(item).ok().and_then(|element| removed.node(&element));
        match node {
            Some(node) if node.is_member => {}
            Some(node) => kept.push(remove(list.items, item, &node.children)),
            None => kept.push(item.clone()),
        }
    }
    if kept.is_empty() { Value::Null } else { Value::Array(kept) }
}

fn remove_fields(map: Map<'_>, fields: Option<&Fields<String, Value>>, removed: &Set) -> Value {
    let mut kept = Fields::new();
    for (name, value) in fields.into_iter().flatten() {
        match removed.node(&PathElement::field(name)) {
            Some(node) if node.is_member => {}
            Some(node) => {
                kept.insert(name.clone(), remove(map.field_or_free(name).ty, value, &node.children));
            }
            None => {
                kept.insert(name.clone(), value.clone());
            }
        }
    }
    if kept.is_empty() { Value::Null } else { Value::Object(kept) }
}

/// The set with the named fields above its members, which sets of owned fields leave out (`EnsureNamedFieldsAreMembers`).
pub(crate) fn with_named_fields(ty: Type<'_>, set: &Set) -> Set {
    let (map, list) = (ty.as_map(), ty.as_list());
    set.nodes()
        .iter()
        .map(|node| {
            let mut is_named = false;
            let below = match &node.element {
                PathElement::Field(name) => {
                    let field = map.map(|map| map.field_or_free(name));
                    is_named = field.is_some_and(|field| field.is_named);
                    field.map_or(Type::Deduced, |field| field.ty)
                }
                PathElement::Key(_) => list.map_or(Type::Deduced, |list| list.items),
                PathElement::Value(_) | PathElement::Index(_) => Type::Deduced,
            };
            Node {
                element: node.element.clone(),
                is_member: node.is_member || (is_named && !node.children.is_empty()),
                children: with_named_fields(below, &node.children),
            }
        })
        .collect()
}
