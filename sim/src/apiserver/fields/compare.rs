//! Which fields two objects differ in, and which fields an object has (`typed.Compare`, `typed.ToFieldSet`).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

use super::element::PathElement;
use super::set::{Node, Set};
use super::types::{Atom, List, Map, Type};

type Fields = serde_json::Map<String, Value>;

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) removed: Set,
    pub(crate) modified: Set,
    pub(crate) added: Set,
}

impl Comparison {
    /// Leaves out the given fields and what is below them.
    pub(crate) fn without(self, ignored: &Set) -> Self {
        if ignored.is_empty() {
            return self;
        }
        let without = |set: Set| if set.has_common_root(ignored) { set.recursive_difference(ignored) } else { set };
        Self { removed: without(self.removed), modified: without(self.modified), added: without(self.added) }
    }

    /// What the new object sets.
    pub(crate) fn set(&self) -> Cow<'_, Set> {
        match (self.modified.is_empty(), self.added.is_empty()) {
            (true, _) => Cow::Borrowed(&self.added),
            (_, true) => Cow::Borrowed(&self.modified),
            _ => Cow::Owned(self.modified.union(&self.added)),
        }
    }

    fn add(&mut self, element: &PathElement, outcome: Outcome) {
        let Outcome { is_removed, is_modified, is_added, below } = outcome;
        for (set, is_member, children) in [
            (&mut self.removed, is_removed, below.removed),
            (&mut self.modified, is_modified, below.modified),
            (&mut self.added, is_added, below.added),
        ] {
            // Of the three, one has something as a rule.
            if is_member || !children.is_empty() {
                set.add(Node { element: element.clone(), is_member, children });
            }
        }
    }
}

/// What became of a value: of itself, and of what is below it.
#[derive(Default)]
struct Outcome {
    is_removed: bool,
    is_modified: bool,
    is_added: bool,
    below: Comparison,
}

impl Outcome {
    fn is_nothing(&self) -> bool {
        !(self.is_removed || self.is_modified || self.is_added)
            && self.below.removed.is_empty()
            && self.below.modified.is_empty()
            && self.below.added.is_empty()
    }
}

/// Compares two objects in those of their root fields that `includes` names.
pub(crate) fn compare(ty: Type<'_>, old: &Value, new: &Value, includes: impl Fn(&str) -> bool) -> Comparison {
    let mut comparison = Comparison::default();
    if let Some(map) = ty.as_map() {
        compare_fields(map, old.as_object(), new.as_object(), &includes, &mut comparison);
    }
    comparison
}

/// `None` when nothing differs, which costs no allocation. At most one side is absent.
fn compare_values(ty: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Option<Outcome> {
    let mut outcome = Outcome::default();
    let (old_atom, new_atom) = (ty.atom(old), ty.atom(new));
    if new.is_none() {
        compare_as(old_atom, old, new, &mut outcome);
    } else if old.is_none() || old_atom.is_same_form(&new_atom) {
        compare_as(new_atom, old, new, &mut outcome);
    } else {
        compare_as(old_atom, old, new, &mut outcome);
        compare_as(new_atom, old, new, &mut outcome);
    }
    outcome.is_added |= old.is_none();
    outcome.is_removed |= new.is_none();
    (!outcome.is_nothing()).then_some(outcome)
}

fn compare_as(atom: Atom<'_>, old: Option<&Value>, new: Option<&Value>, outcome: &mut Outcome) {
    match atom {
        Atom::Scalar(_) => compare_leaves(old, new, outcome),
        Atom::List(list) => {
            let (old_items, new_items) = (items(old), items(new));
            if list.is_atomic() || (old_items.is_empty() && new_items.is_empty()) {
                compare_leaves(old, new, outcome);
            } else if old != new {
                compare_items(list, old_items, new_items, &mut outcome.below);
            }
        }
        Atom::Map(map) => {
            let (old_fields, new_fields) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let is_empty = |fields: Option<&Fields>| fields.is_none_or(serde_json::Map::is_empty);
            if map.is_atomic || (is_empty(old_fields) && is_empty(new_fields)) {
                compare_leaves(old, new, outcome);
            } else {
                compare_fields(map, old_fields, new_fields, &|_| true, &mut outcome.below);
            }
        }
    }
}

fn compare_leaves(old: Option<&Value>, new: Option<&Value>, outcome: &mut Outcome) {
    // Absence is noted by the caller.
    outcome.is_modified |= old.is_some() && new.is_some() && old != new;
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn compare_fields(
    map: Map<'_>,
    old: Option<&Fields>,
    new: Option<&Fields>,
    includes: &dyn Fn(&str) -> bool,
    comparison: &mut Comparison,
) {
    let mut visit = |name: &str, old: Option<&Value>, new: Option<&Value>| {
        if includes(name)
            && let Some(outcome) = compare_values(map.field_or_free(name).ty, old, new)
        {
            comparison.add(&PathElement::field(name), outcome);
        }
    };
    let mut old = old.into_iter().flatten().peekable();
    let mut new = new.into_iter().flatten().peekable();
    // Both are sorted by name.
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.0.cmp(new.0),
        };
        let old = if order == Ordering::Greater { None } else { old.next() };
        let new = if order == Ordering::Less { None } else { new.next() };
        if let Some((name, _)) = old.or(new) {
            visit(name, old.map(|(_, value)| value), new.map(|(_, value)| value));
        }
    }
}

/// Items by their path element. Items without one are left to validation.
pub(super) fn by_element<'a>(list: List<'_>, items: &'a [Value]) -> BTreeMap<PathElement, Vec<&'a Value>> {
    let mut found: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = list.element(item) {
            found.entry(element).or_default().push(item);
        }
    }
    found
}

fn compare_items(list: List<'_>, old: &[Value], new: &[Value], comparison: &mut Comparison) {
    let old = by_element(list, old);
    let new = by_element(list, new);
    let absent = Vec::new();
    for (element, old_items) in &old {
        compare_same(list, element, old_items, new.get(element).unwrap_or(&absent), comparison);
    }
    for (element, new_items) in new.iter().filter(|(element, _)| !old.contains_key(element)) {
        compare_same(list, element, &absent, new_items, comparison);
    }
}

/// Items of one path element. Duplicates, which only objects from before the rule can have, are one thing.
fn compare_same(list: List<'_>, element: &PathElement, old: &[&Value], new: &[&Value], comparison: &mut Comparison) {
    let mark = |outcome: Outcome| Some(outcome);
    let outcome = match (old, new) {
        ([] | [_], [] | [_]) => compare_values(list.items, old.first().copied(), new.first().copied()),
        ([_, _, ..], [_, _, ..]) => mark(Outcome { is_modified: old != new, ..Outcome::default() }),
        ([_, _, ..], _) => {
            let mut outcome =
                new.first().and_then(|item| compare_values(list.items, None, Some(item))).unwrap_or_default();
            outcome.is_removed = true;
            mark(outcome)
        }
        (_, _) => {
            let mut outcome =
                old.first().and_then(|item| compare_values(list.items, Some(item), None)).unwrap_or_default();
            outcome.is_added = true;
            mark(outcome)
        }
    };
    if let Some(outcome) = outcome {
        comparison.add(element, outcome);
    }
}

/// The fields that an object has: leaves, items, and keys of maps.
pub(crate) fn fields_of(ty: Type<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    collect(ty, value, &mut set);
    set
}

/// Adds what is below a value, and tells whether the value is a leaf.
fn collect(ty: Type<'_>, value: &Value, below: &mut Set) -> bool {
    match ty.atom(Some(value)) {
        Atom::Scalar(_) => true,
        Atom::List(list) => {
            if list.is_atomic() {
                return true;
            }
            for (element, items) in by_element(list, items(Some(value))) {
                let mut children = Set::default();
                if let [item] = items.as_slice() {
                    collect(list.items, item, &mut children);
                }
                below.add(Node { element, is_member: true, children });
            }
            false
        }
        Atom::Map(map) => {
            if map.is_atomic {
                return true;
            }
            for (name, child) in value.as_object().into_iter().flatten() {
                let field = map.field_or_free(name);
                let mut children = Set::default();
                let is_leaf = collect(field.ty, child, &mut children);
                let is_empty = child.is_null() || child.as_object().is_some_and(serde_json::Map::is_empty);
                let is_member = is_leaf || is_empty || !field.is_named;
                below.add(Node { element: PathElement::field(name), is_member, children });
            }
            false
        }
    }
}
