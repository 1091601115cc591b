//! The built-in resources, with the registry strategies of kube-apiserver 1.36 (`pkg/registry/*/strategy.go`).

use super::kinds::GroupKind;
use super::registry::{ResourceType, ResourceVersion, ScalePaths};
use crate::apiserver::schema::SchemaRef;

/// One line of the table.
pub(crate) struct Builtin {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    traits: &'static [Trait],
}

#[derive(PartialEq, Clone, Copy)]
enum Trait {
    ClusterScoped,
    Status,
    Scale,
    Generation,
    CreateOnUpdate,
    ConditionalUpdateOnly,
    ReturnsDeleted,
    CategoryAll,
}

use Trait::{
    CategoryAll, ClusterScoped, ConditionalUpdateOnly, CreateOnUpdate, Generation, ReturnsDeleted, Scale, Status,
};

const fn builtin(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    traits: &'static [Trait],
) -> Builtin {
    Builtin { group, version, kind, plural, short_names, traits }
}

#[rustfmt::skip]
pub(crate) const BUILTIN_RESOURCES: &[Builtin] = &[
    builtin("", "v1", "Namespace", "namespaces", &["ns"], &[ClusterScoped, Status, ReturnsDeleted]),
    builtin("", "v1", "Node", "nodes", &["no"], &[ClusterScoped, Status]),
    builtin("", "v1", "Pod", "pods", &["po"], &[Status, Generation, ReturnsDeleted, CategoryAll]),
    builtin("", "v1", "Service", "services", &["svc"], &[Status, CreateOnUpdate, ReturnsDeleted, CategoryAll]),
    builtin("", "v1", "ConfigMap", "configmaps", &["cm"], &[]),
    builtin("", "v1", "Secret", "secrets", &[], &[]),
    builtin("", "v1", "Event", "events", &["ev"], &[CreateOnUpdate]),
    builtin("", "v1", "Endpoints", "endpoints", &["ep"], &[CreateOnUpdate]),
    builtin("", "v1", "ServiceAccount", "serviceaccounts", &["sa"], &[ReturnsDeleted]),
    builtin("apps", "v1", "Deployment", "deployments", &["deploy"], &[Status, Scale, Generation, CategoryAll]),
    builtin("apps", "v1", "ReplicaSet", "replicasets", &["rs"], &[Status, Scale, Generation, CategoryAll]),
    builtin("apps", "v1", "DaemonSet", "daemonsets", &["ds"], &[Status, Generation, CategoryAll]),
    builtin("apps", "v1", "StatefulSet", "statefulsets", &["sts"], &[Status, Scale, Generation, CategoryAll]),
    builtin("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", &["hpa"], &[Status, CategoryAll]),
    builtin("coordination.k8s.io", "v1", "Lease", "leases", &[], &[CreateOnUpdate, ConditionalUpdateOnly]),
    builtin("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &[], &[Generation]),
    builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", &["crd", "crds"],
        &[ClusterScoped, Status, Generation, ConditionalUpdateOnly]),
];

impl Builtin {
    pub(crate) fn resource_type(&self) -> ResourceType {
        let has = |wanted: Trait| self.traits.contains(&wanted);
        let scale = has(Scale).then(|| ScalePaths {
            spec_replicas: path(&["spec", "replicas"]),
            status_replicas: path(&["status", "replicas"]),
            selector: None,
        });
        ResourceType {
            group_kind: GroupKind::known(self.group, self.kind),
            group: self.group.to_owned(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            plural: self.plural.to_owned(),
            singular: self.kind.to_lowercase(),
            short_names: path(self.short_names),
            categories: if has(CategoryAll) { path(&["all"]) } else { Vec::new() },
            namespaced: !has(ClusterScoped),
            versions: vec![ResourceVersion {
                name: self.version.to_owned(),
                served: true,
                status: has(Status),
                scale,
                schema: SchemaRef::builtin(self.group, self.version, self.kind),
            }],
            storage: 0,
            tracks_generation: has(Generation),
            create_on_update: has(CreateOnUpdate),
            unconditional_update: !has(ConditionalUpdateOnly),
            returns_deleted: has(ReturnsDeleted),
            custom: false,
        }
    }
}

fn path(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|segment| (*segment).to_owned()).collect()
}
