//! What is served beside stored objects: subresources, and resources that only answer questions.

use crate::store::{ResourceType, ResourceVersion};

/// A subresource as discovery tells of it.
#[derive(Clone, Debug)]
pub(super) struct Subresource {
    pub(super) name: &'static str,
    pub(super) kind: String,
    /// Where its kind belongs, if not to the group of the resource.
    pub(super) group_version: Option<(&'static str, &'static str)>,
    pub(super) verbs: &'static [&'static str],
}

/// A resource without stored objects: reviews, whose POST is answered with its own body and a status, metrics, and the parts of
/// the control plane.
#[derive(Debug)]
pub(crate) struct VirtualResource {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    /// metrics-server gives its resources none.
    pub(crate) singular: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) namespaced: bool,
    pub(crate) version: &'static str,
    pub(crate) verbs: &'static [&'static str],
}

const fn review(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    namespaced: bool,
) -> VirtualResource {
    VirtualResource { group, kind, plural, singular, short_names: &[], namespaced, version: "v1", verbs: &["create"] }
}

const fn metrics(kind: &'static str, plural: &'static str, namespaced: bool) -> VirtualResource {
    let (group, verbs) = ("metrics.k8s.io", &["get", "list"]);
    VirtualResource { group, kind, plural, singular: "", short_names: &[], namespaced, version: "v1beta1", verbs }
}

/// Reviews of who one is and what one may do, metrics, and the control plane's parts. There is no TokenReview: the embedded cluster has no tokens.
pub(crate) const VIRTUAL: &[VirtualResource] = &[
    review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview", false),
    review(
        "authorization.k8s.io",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        true,
    ),
    review(
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        false,
    ),
    review(
        "authorization.k8s.io",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        false,
    ),
    review("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview", false),
    VirtualResource {
        group: "",
        kind: "ComponentStatus",
        plural: "componentstatuses",
        singular: "componentstatus",
        short_names: &["cs"],
        namespaced: false,
        version: "v1",
        verbs: &["get", "list"],
    },
    metrics("NodeMetrics", "nodes", false),
    metrics("PodMetrics", "pods", true),
];

/// The review at a path.
pub(super) fn virtual_resource(group: &str, version: &str, plural: &str) -> Option<&'static VirtualResource> {
    VIRTUAL
        .iter()
        .filter(|resource| resource.verbs.contains(&"create"))
        .find(|resource| version == "v1" && resource.group == group && resource.plural == plural)
}

/// Subresources of pods beyond their status: name, kind, group and version of the kind where they differ, verbs.
type PodSubresource = (&'static str, &'static str, Option<(&'static str, &'static str)>, &'static [&'static str]);
const POD_SUBRESOURCES: [PodSubresource; 6] = [
    ("attach", "PodAttachOptions", None, &["create", "get"]),
    ("ephemeralcontainers", "Pod", None, READ_AND_WRITE),
    ("eviction", "Eviction", Some(("policy", "v1")), &["create"]),
    ("exec", "PodExecOptions", None, &["create", "get"]),
    ("log", "Pod", None, &["get"]),
    ("portforward", "PodPortForwardOptions", None, &["create", "get"]),
];

const READ_AND_WRITE: &[&str] = &["get", "patch", "update"];

/// All subresources of a version, in the order of discovery.
pub(super) fn of(resource: &ResourceType, version: &ResourceVersion) -> Vec<Subresource> {
    let mut subresources = Vec::new();
    if is_pod(resource) {
        subresources.extend(POD_SUBRESOURCES.iter().map(|(name, kind, group_version, verbs)| Subresource {
            name,
            kind: (*kind).to_owned(),
            group_version: *group_version,
            verbs,
        }));
    }
    if is_service_account(resource) {
        subresources.push(Subresource {
            name: TOKEN,
            kind: "TokenRequest".to_owned(),
            group_version: Some(("authentication.k8s.io", "v1")),
            verbs: &["create"],
        });
    }
    if version.status {
        subresources.push(Subresource {
            name: "status",
            kind: resource.kind.clone(),
            group_version: None,
            verbs: READ_AND_WRITE,
        });
    }
    if version.scale.is_some() {
        subresources.push(Subresource {
            name: "scale",
            kind: "Scale".to_owned(),
            group_version: Some(("autoscaling", "v1")),
            verbs: READ_AND_WRITE,
        });
    }
    // Those of custom resources are told as they are here, with the status first.
    if !resource.custom {
        subresources.sort_by_key(|subresource| subresource.name);
    }
    subresources
}

/// Whether a path may name this subresource.
pub(super) fn exists(resource: &ResourceType, version: &ResourceVersion, name: &str) -> bool {
    match name {
        "" => true,
        "status" => version.status,
        "scale" => version.scale.is_some(),
        TOKEN => is_service_account(resource),
        other => is_pod(resource) && POD_SUBRESOURCES.iter().any(|(name, ..)| *name == other),
    }
}

/// Where tokens of service accounts are asked for.
const TOKEN: &str = "token";

fn is_service_account(resource: &ResourceType) -> bool {
    resource.group.is_empty() && resource.kind == "ServiceAccount"
}

fn is_pod(resource: &ResourceType) -> bool {
    resource.group.is_empty() && resource.kind == "Pod"
}
