//! What objects dispose of: two that name one thing would fight over it.

use std::hash::{DefaultHasher, Hash, Hasher};

use kube::core::DynamicObject;
use serde_json::Value;

/// A thing that an object disposes of, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    /// As what the object names it.
    pub(crate) role: Role,
    /// The field that names it.
    pub(crate) field: &'static str,
    /// Group of the thing.
    pub(crate) group: String,
    /// Kind of the thing.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
}

/// As what an object names a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// What is released, or moved.
    Target,
    /// The service whose routes are generated; the thing is the object of these routes.
    Service,
}

impl Claim {
    /// What the field at `field` (`spec.primary.name`) names as a target, if it names anything.
    pub(crate) fn of_name(object: &DynamicObject, field: &'static str, group: &str, kind: &str) -> Option<Claim> {
        let pointer = format!("/{}", field.replace('.', "/"));
        let name = object.data.pointer(&pointer).and_then(Value::as_str).filter(|name| !name.is_empty())?;
        let (group, kind, name) = (group.to_owned(), kind.to_owned(), name.to_owned());
        Some(Claim { role: Role::Target, field, group, kind, name })
    }

    /// The thing as its author calls it, and what it is to the object.
    pub(crate) fn in_words(&self) -> (String, &'static str) {
        match self.role {
            Role::Target => (format!("{}/{}", self.kind, self.name), "target"),
            Role::Service => (self.name.clone(), "service"),
        }
    }

    fn is_of_same_thing(&self, other: &Claim) -> bool {
        (&self.group, &self.kind, &self.name) == (&other.group, &other.kind, &other.name)
    }

    /// A hash of the thing, which is enough to find others that may claim it.
    pub(crate) fn hash_in(&self, namespace: Option<&str>) -> u64 {
        let mut hasher = DefaultHasher::new();
        (namespace, &self.group, &self.kind, &self.name).hash(&mut hasher);
        hasher.finish()
    }
}

/// The first of one object's claims that another object makes as well.
pub(crate) fn contested<'a>(own: &'a [Claim], others: &[Claim]) -> Option<&'a Claim> {
    own.iter().find(|claim| others.iter().any(|other| claim.is_of_same_thing(other)))
}
