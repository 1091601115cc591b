//! The table of served resources: built-in ones, and those that CustomResourceDefinitions register.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::builtin::BUILTIN_RESOURCES;
use super::kinds::GroupKind;
use crate::apiserver::schema::SchemaRef;
use crate::apiserver::table::custom::CustomColumns;
use crate::apiserver::views::View;

/// One served resource: its names, versions, and how the API server treats its objects.
#[derive(Debug, Clone)]
pub struct ResourceType {
    /// Group and kind: the key under which objects are stored.
    pub group_kind: GroupKind,
    /// API group; empty for the core group.
    pub group: String,
    /// Kind, e.g. `Canary`.
    pub kind: String,
    /// Kind of a list, e.g. `CanaryList`.
    pub list_kind: String,
    /// Lower-case plural, the path segment.
    pub plural: String,
    /// Lower-case singular.
    pub singular: String,
    /// Short names, e.g. `deploy`.
    pub short_names: Vec<String>,
    /// Categories, e.g. `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// All versions; reads convert between them by `apiVersion` alone.
    pub versions: Vec<ResourceVersion>,
    /// Index of the version in which objects are stored.
    pub storage: usize,
    /// Whether `metadata.generation` is kept.
    pub tracks_generation: bool,
    /// Whether PUT creates an object that does not exist.
    pub create_on_update: bool,
    /// Whether PUT without `resourceVersion` is allowed.
    pub unconditional_update: bool,
    /// Whether a finished DELETE answers with the object instead of a `Status`.
    pub returns_deleted: bool,
    /// Whether a CustomResourceDefinition registered it.
    pub custom: bool,
    /// `apiVersion` of the stored objects, where another group's kind stores them.
    pub stored_as: Option<&'static str>,
}

/// One version of a resource.
#[derive(Debug, Clone)]
pub struct ResourceVersion {
    /// Version, e.g. `v1beta1`.
    pub name: String,
    /// Whether it can be requested.
    pub served: bool,
    /// Whether `/status` exists; if so, the main resource ignores `.status`.
    pub status: bool,
    /// `/scale`, where it exists.
    pub scale: Option<ScalePaths>,
    /// The structural schema; of built-in kinds, what Kubernetes' OpenAPI says.
    pub schema: Option<SchemaRef>,
    /// Fields beyond the common ones that field selectors may name (`selectableFields`), as paths without the leading dot.
    pub selectable_fields: Vec<String>,
    /// What clients of a deprecated version are warned of.
    pub deprecation: Option<String>,
    /// The columns of tables; built-in kinds have printers instead.
    pub(crate) columns: Option<Arc<CustomColumns>>,
    /// How objects differ from their stored form, where more than `apiVersion` does.
    pub(crate) view: Option<View>,
}

/// Where `/scale` finds its values (`CustomResourceSubresourceScale`), as paths of field names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Desired replicas.
    pub spec_replicas: Vec<String>,
    /// Observed replicas.
    pub status_replicas: Vec<String>,
    /// Label selector, where it is published.
    pub selector: Option<Vec<String>>,
}

impl ResourceType {
    /// `canaries.flagger.app`, or `configmaps` for the core group.
    #[must_use]
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `group/version`, or `version` for the core group.
    #[must_use]
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// `apiVersion` of stored objects.
    #[must_use]
    pub fn storage_api_version(&self) -> String {
        if let Some(stored_as) = self.stored_as {
            return stored_as.to_owned();
        }
        self.versions.get(self.storage).map_or_else(String::new, |version| self.api_version(&version.name))
    }

    /// The served version of that name.
    #[must_use]
    pub fn served_version(&self, name: &str) -> Option<&ResourceVersion> {
        self.versions.iter().find(|version| version.served && version.name == name)
    }

    /// Whether any served version has a status subresource.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.versions.iter().any(|version| version.status)
    }
}

/// All served resources, by kind and by path.
#[derive(Debug)]
pub(crate) struct Registry {
    by_kind: HashMap<GroupKind, Arc<ResourceType>>,
    by_path: BTreeMap<String, BTreeMap<String, Arc<ResourceType>>>,
}

impl Registry {
    pub(crate) fn with_builtin_resources() -> Self {
        let mut registry = Self { by_kind: HashMap::new(), by_path: BTreeMap::new() };
        for builtin in BUILTIN_RESOURCES {
            registry.register(builtin.resource_type());
        }
        for resource in super::builtin::views_of_other_groups() {
            registry
                .by_path
                .entry(resource.group.clone())
                .or_default()
                .insert(resource.plural.clone(), Arc::new(resource));
        }
        registry
    }

    pub(crate) fn register(&mut self, resource: ResourceType) {
        let resource = Arc::new(resource);
        self.by_kind.insert(resource.group_kind.clone(), Arc::clone(&resource));
        self.by_path.entry(resource.group.clone()).or_default().insert(resource.plural.clone(), resource);
    }

    /// Takes a custom resource out of service; built-in ones stay.
    pub(crate) fn unregister(&mut self, group: &str, plural: &str) {
        let Some(resources) = self.by_path.get_mut(group) else {
            return;
        };
        if !resources.get(plural).is_some_and(|resource| resource.custom) {
            return;
        }
        if let Some(resource) = resources.remove(plural) {
            self.by_kind.remove(&resource.group_kind);
        }
        if resources.is_empty() {
            self.by_path.remove(group);
        }
    }

    pub(crate) fn by_kind(&self, kind: &GroupKind) -> Option<&Arc<ResourceType>> {
        self.by_kind.get(kind)
    }

    pub(crate) fn by_path(&self, group: &str, plural: &str) -> Option<&Arc<ResourceType>> {
        self.by_path.get(group)?.get(plural)
    }

    /// Groups in name order with their resources in name order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, Vec<Arc<ResourceType>>)> {
        self.by_path.iter().map(|(group, resources)| (group.as_str(), resources.values().cloned().collect()))
    }
}
