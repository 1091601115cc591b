//! The built-in resources, with the registry strategies of kube-apiserver 1.36 (`pkg/registry/*/strategy.go`).

use super::kinds::GroupKind;
use super::registry::{ResourceType, ResourceVersion, ScalePaths};
use crate::apiserver::schema::SchemaRef;
use crate::apiserver::views::View;

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
    builtin("", "v1", "ResourceQuota", "resourcequotas", &["quota"], &[Status, ReturnsDeleted]),
    builtin("", "v1", "LimitRange", "limitranges", &["limits"], &[]),
    builtin("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"], &[Status, ReturnsDeleted]),
    builtin("", "v1", "PersistentVolume", "persistentvolumes", &["pv"], &[ClusterScoped, Status, ReturnsDeleted]),
    builtin("", "v1", "ReplicationController", "replicationcontrollers", &["rc"], &[Status, Scale, Generation, CategoryAll]),
    builtin("", "v1", "PodTemplate", "podtemplates", &[], &[Generation]),
    builtin("apps", "v1", "ControllerRevision", "controllerrevisions", &[], &[]),
    builtin("apps", "v1", "Deployment", "deployments", &["deploy"], &[Status, Scale, Generation, CategoryAll]),
    builtin("apps", "v1", "ReplicaSet", "replicasets", &["rs"], &[Status, Scale, Generation, CategoryAll]),
    builtin("apps", "v1", "DaemonSet", "daemonsets", &["ds"], &[Status, Generation, CategoryAll]),
    builtin("apps", "v1", "StatefulSet", "statefulsets", &["sts"], &[Status, Scale, Generation, CategoryAll]),
    builtin("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", &["hpa"], &[Status, CategoryAll]),
    builtin("coordination.k8s.io", "v1", "Lease", "leases", &[], &[CreateOnUpdate, ConditionalUpdateOnly]),
    builtin("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &[], &[Generation]),
    builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", &["crd", "crds"],
        &[ClusterScoped, Status, Generation, ConditionalUpdateOnly]),
    builtin("batch", "v1", "Job", "jobs", &[], &[Status, Generation, CategoryAll]),
    builtin("batch", "v1", "CronJob", "cronjobs", &["cj"], &[Status, Generation, CategoryAll]),
    builtin("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", &["pdb"], &[Status, Generation, ConditionalUpdateOnly]),
    builtin("networking.k8s.io", "v1", "Ingress", "ingresses", &["ing"], &[Status, Generation]),
    builtin("networking.k8s.io", "v1", "IngressClass", "ingressclasses", &[], &[ClusterScoped, Generation]),
    builtin("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", &["netpol"], &[Generation]),
    builtin("rbac.authorization.k8s.io", "v1", "Role", "roles", &[], &[CreateOnUpdate]),
    builtin("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", &[], &[CreateOnUpdate]),
    builtin("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", &[], &[ClusterScoped, CreateOnUpdate]),
    builtin("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", &[], &[ClusterScoped, CreateOnUpdate]),
    builtin("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", &["pc"], &[ClusterScoped, Generation]),
    builtin("storage.k8s.io", "v1", "StorageClass", "storageclasses", &["sc"], &[ClusterScoped, ReturnsDeleted]),
    // Stored, and not acted on.
    builtin("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", &[],
        &[ClusterScoped, Generation, ConditionalUpdateOnly]),
    builtin("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", &[],
        &[ClusterScoped, Generation, ConditionalUpdateOnly]),
    builtin("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", &[],
        &[ClusterScoped, Status, Generation, ConditionalUpdateOnly]),
    builtin("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", &[],
        &[ClusterScoped, Generation, ConditionalUpdateOnly]),
    builtin("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", &[],
        &[ClusterScoped, Generation, ConditionalUpdateOnly]),
    builtin("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", &[],
        &[ClusterScoped, Generation, ConditionalUpdateOnly]),
    builtin("apiregistration.k8s.io", "v1", "APIService", "apiservices", &[], &[ClusterScoped, Status, ConditionalUpdateOnly]),
    builtin("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", &["csr"],
        &[ClusterScoped, Status]),
];

/// Kinds that show objects which another group stores.
pub(crate) fn views_of_other_groups() -> Vec<ResourceType> {
    let mut event = builtin("events.k8s.io", "v1", "Event", "events", &["ev"], &[CreateOnUpdate]).resource_type();
    event.group_kind = super::kinds::EVENT;
    event.stored_as = Some("v1");
    for version in &mut event.versions {
        version.view = Some(View::Event);
    }
    vec![event]
}

impl Builtin {
    pub(crate) fn resource_type(&self) -> ResourceType {
        let has = |wanted: Trait| self.traits.contains(&wanted);
        let scale = has(Scale).then(|| ScalePaths {
            spec_replicas: path(&["spec", "replicas"]),
            status_replicas: path(&["status", "replicas"]),
            selector: None,
        });
        let version = ResourceVersion {
            name: self.version.to_owned(),
            served: true,
            status: has(Status),
            scale,
            schema: SchemaRef::builtin(self.group, self.version, self.kind),
            selectable_fields: Vec::new(),
            deprecation: None,
            columns: None,
            view: None,
        };
        let mut versions = vec![version];
        if self.group == "autoscaling" {
            let older = ResourceVersion {
                name: "v1".to_owned(),
                schema: SchemaRef::builtin(self.group, "v1", self.kind),
                view: Some(View::Autoscaler),
                ..versions[0].clone()
            };
            versions.push(older);
        }
        let categories: &[&str] = match self.kind {
            "CustomResourceDefinition" | "APIService" => &["api-extensions"],
            _ if self.group == "admissionregistration.k8s.io" => &["api-extensions"],
            _ if has(CategoryAll) => &["all"],
            _ => &[],
        };
        ResourceType {
            group_kind: GroupKind::known(self.group, self.kind),
            group: self.group.to_owned(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            plural: self.plural.to_owned(),
            singular: self.kind.to_lowercase(),
            short_names: path(self.short_names),
            categories: path(categories),
            namespaced: !has(ClusterScoped),
            versions,
            storage: 0,
            tracks_generation: has(Generation),
            create_on_update: has(CreateOnUpdate),
            unconditional_update: !has(ConditionalUpdateOnly),
            returns_deleted: has(ReturnsDeleted),
            custom: false,
            stored_as: None,
        }
    }
}

fn path(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|segment| (*segment).to_owned()).collect()
}
