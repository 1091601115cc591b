//! Schemas that are shared, and those of Kubernetes' own types, which refer to each other.

use std::ops::Deref;
use std::sync::Arc;

use super::Schema;
use crate::apiserver::openapi::definitions::Definition;

/// A schema, shared.
#[derive(Debug, Clone)]
pub struct SchemaRef(Reference);

#[derive(Debug, Clone)]
enum Reference {
    Own(Arc<Schema>),
    /// Compiled when first looked at; definitions refer to each other, some to themselves.
    Builtin(&'static Definition),
}

impl SchemaRef {
    /// The schema of a built-in kind, where there is one.
    pub(crate) fn builtin(group: &str, version: &str, kind: &str) -> Option<Self> {
        Definition::of_kind(group, version, kind).map(|definition| Self(Reference::Builtin(definition)))
    }

    /// The schema of a Kubernetes type by its full name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Definition::find(name).map(|definition| Self(Reference::Builtin(definition)))
    }

    pub(super) fn of(definition: &'static Definition) -> Self {
        Self(Reference::Builtin(definition))
    }

    /// The Kubernetes type behind it.
    pub(crate) fn definition(&self) -> Option<&'static Definition> {
        match &self.0 {
            Reference::Own(_) => None,
            Reference::Builtin(definition) => Some(definition),
        }
    }

    /// The schema, unless it is a type of Kubernetes, which is only compiled when it is looked at.
    pub(super) fn own(&self) -> Option<&Schema> {
        match &self.0 {
            Reference::Own(schema) => Some(schema),
            Reference::Builtin(_) => None,
        }
    }
}

impl From<Schema> for SchemaRef {
    fn from(schema: Schema) -> Self {
        Self(Reference::Own(Arc::new(schema)))
    }
}

impl Deref for SchemaRef {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match &self.0 {
            Reference::Own(schema) => schema,
            Reference::Builtin(definition) => definition.schema(),
        }
    }
}
