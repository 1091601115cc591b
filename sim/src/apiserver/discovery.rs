//! Discovery documents: what is served, group by group or all at once.

use http::header;
use serde_json::{Value, json};

use super::accept::DiscoveryForm;
use super::request::DiscoveryPath;
use super::response::Answer;
use super::subresources;
use crate::store::{ResourceType, ResourceVersion, Store, to_bytes};

pub(super) fn answer(store: &Store, path: &DiscoveryPath, form: DiscoveryForm, known_tag: &str) -> Answer {
    let aggregated = match (path, form) {
        (DiscoveryPath::CoreVersions, DiscoveryForm::Aggregated(version)) => Some((true, version)),
        (DiscoveryPath::Groups, DiscoveryForm::Aggregated(version)) => Some((false, version)),
        _ => None,
    };
    if let Some((is_core, version)) = aggregated {
        return aggregated_answer(store, is_core, version, known_tag);
    }
    let body = match path {
        DiscoveryPath::CoreVersions => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}],
        })),
        DiscoveryPath::Root => Some(json!({"paths": paths(store)})),
        DiscoveryPath::Groups => Some(json!({
            "kind": "APIGroupList", "apiVersion": "v1",
            "groups": groups(store).into_iter().filter(|group| !group.name.is_empty()).map(|group| group.describe()).collect::<Vec<_>>(),
        })),
        DiscoveryPath::Group(name) => groups(store).into_iter().find(|group| group.name == *name).map(|group| {
            let mut body = group.describe();
            body["kind"] = json!("APIGroup");
            body["apiVersion"] = json!("v1");
            body
        }),
        DiscoveryPath::Resources { group, version } => resources(store, group, version),
    };
    body.map_or_else(Answer::unknown_path, |body| Answer::json(200, to_bytes(&body)))
}

/// What `kubectl get --raw /` lists.
fn paths(store: &Store) -> Vec<String> {
    let mut paths: Vec<String> =
        ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned)
            .into();
    for group in groups(store) {
        let root = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        paths.extend(group.versions.iter().map(|(version, _)| format!("{root}/{version}")));
        paths.push(root);
    }
    paths.sort();
    paths.dedup();
    paths
}

/// `/version`: the release whose behaviour the embedded cluster follows.
pub(super) fn version() -> Answer {
    let body = json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
    });
    Answer::json(200, to_bytes(&body))
}

/// Everything about all groups but the core one, or about the core group, in one document with an entity tag: `kubectl` keeps it
/// and asks again with the tag.
fn aggregated_answer(store: &Store, is_core: bool, version: &str, known_tag: &str) -> Answer {
    let items: Vec<Value> = groups(store)
        .into_iter()
        .filter(|group| group.name.is_empty() == is_core)
        .map(|group| group.describe_with_resources(version))
        .collect();
    let body = to_bytes(&json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items,
    }));
    let tag = format!("\"{:016X}\"", fingerprint(&body));
    let mut answer = if known_tag == tag { Answer::not_modified() } else { Answer::json(200, body) };
    answer.content_type = Some(format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"));
    answer.headers.push((header::ETAG, tag));
    answer.headers.push((header::VARY, "Accept".to_owned()));
    answer.headers.push((header::CACHE_CONTROL, "public".to_owned()));
    answer
}

/// FNV-1a. The tag only has to differ when the document does.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// One resource as discovery tells of it.
struct Described {
    plural: String,
    singular: String,
    namespaced: bool,
    kind: String,
    short_names: Vec<String>,
    categories: Vec<String>,
    verbs: Vec<&'static str>,
    subresources: Vec<subresources::Subresource>,
}

struct Group {
    name: String,
    /// Versions by priority, with their resources by name.
    versions: Vec<(String, Vec<Described>)>,
}

/// The order in which a real server tells of its own groups (`pkg/controlplane/apiserver/aggregator.go`): of two groups with the
/// same resource `kubectl` takes the first. Others follow by name.
const GROUP_ORDER: [&str; 18] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
];

fn groups(store: &Store) -> Vec<Group> {
    let mut groups: Vec<Group> =
        store.registry(|registry| registry.groups().map(|(name, resources)| Group::new(name, &resources)).collect());
    for name in subresources::VIRTUAL.iter().map(|resource| resource.group) {
        if !groups.iter().any(|group| group.name == name) {
            groups.push(Group::new(name, &[]));
        }
    }
    groups.retain(|group| !group.versions.is_empty());
    let rank = |name: &str| GROUP_ORDER.iter().position(|known| *known == name).unwrap_or(GROUP_ORDER.len());
    groups.sort_by(|left, right| (rank(&left.name), &left.name).cmp(&(rank(&right.name), &right.name)));
    groups
}

impl Group {
    fn new(name: &str, resources: &[std::sync::Arc<ResourceType>]) -> Self {
        let mut versions: Vec<(String, Vec<Described>)> = Vec::new();
        let mut add = |version: &str, described: Described| match versions.iter_mut().find(|(name, _)| name == version)
        {
            Some((_, list)) => list.push(described),
            None => versions.push((version.to_owned(), vec![described])),
        };
        for resource in resources {
            for version in resource.versions.iter().filter(|version| version.served) {
                add(&version.name, Described::stored(resource, version));
            }
        }
        for resource in subresources::VIRTUAL.iter().filter(|resource| resource.group == name) {
            add(resource.version, Described::virtual_(resource));
        }
        for (_, list) in &mut versions {
            list.sort_by(|left, right| left.plural.cmp(&right.plural));
        }
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(priority(version)));
        Self { name: name.to_owned(), versions }
    }

    fn group_version(&self, version: &str) -> String {
        if self.name.is_empty() { version.to_owned() } else { format!("{}/{version}", self.name) }
    }

    fn describe(&self) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|(version, _)| json!({"groupVersion": self.group_version(version), "version": version}))
            .collect();
        json!({"name": self.name, "versions": versions, "preferredVersion": versions.first()})
    }

    fn describe_with_resources(&self, document_version: &str) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|(version, resources)| {
                let resources: Vec<Value> = resources
                    .iter()
                    .map(|resource| resource.aggregated(&self.name, version, document_version))
                    .collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = if self.name.is_empty() { json!({}) } else { json!({"name": self.name}) };
        json!({"metadata": metadata, "versions": versions})
    }
}

impl Described {
    fn stored(resource: &ResourceType, version: &ResourceVersion) -> Self {
        let mut verbs = vec!["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        if resource.group.is_empty() && resource.kind == "Namespace" {
            verbs.retain(|verb| *verb != "deletecollection");
        }
        Self {
            plural: resource.plural.clone(),
            singular: resource.singular.clone(),
            namespaced: resource.namespaced,
            kind: resource.kind.clone(),
            short_names: resource.short_names.clone(),
            categories: resource.categories.clone(),
            verbs,
            subresources: subresources::of(resource, version),
        }
    }

    fn virtual_(resource: &subresources::VirtualResource) -> Self {
        Self {
            plural: resource.plural.to_owned(),
            singular: resource.singular.to_owned(),
            namespaced: resource.namespaced,
            kind: resource.kind.to_owned(),
            short_names: resource.short_names.iter().map(|&name| name.to_owned()).collect(),
            categories: Vec::new(),
            verbs: resource.verbs.to_vec(),
            subresources: Vec::new(),
        }
    }

    fn aggregated(&self, group: &str, version: &str, document_version: &str) -> Value {
        // The older document repeats what the newer one leaves to the group that it stands in.
        let own_kind = |kind: &str| match document_version {
            "v2beta1" => json!({"group": group, "version": version, "kind": kind}),
            _ => json!({"group": "", "version": "", "kind": kind}),
        };
        let mut resource = json!({
            "resource": self.plural, "responseKind": own_kind(&self.kind),
            "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": self.singular, "verbs": self.verbs,
        });
        if !self.short_names.is_empty() {
            resource["shortNames"] = json!(self.short_names);
        }
        if !self.categories.is_empty() {
            resource["categories"] = json!(self.categories);
        }
        if !self.subresources.is_empty() {
            let described = self.subresources.iter().map(|subresource| {
                let kind = match subresource.group_version {
                    Some((group, version)) => json!({"group": group, "version": version, "kind": subresource.kind}),
                    None => own_kind(&subresource.kind),
                };
                json!({"subresource": subresource.name, "responseKind": kind, "verbs": subresource.verbs})
            });
            resource["subresources"] = described.collect();
        }
        resource
    }

    fn listed(&self) -> Vec<Value> {
        let mut resource = json!({
            "name": self.plural, "singularName": self.singular, "namespaced": self.namespaced, "kind": self.kind,
            "verbs": self.verbs,
        });
        if !self.short_names.is_empty() {
            resource["shortNames"] = json!(self.short_names);
        }
        if !self.categories.is_empty() {
            resource["categories"] = json!(self.categories);
        }
        let mut listed = vec![resource];
        for subresource in &self.subresources {
            let mut described = json!({
                "name": format!("{}/{}", self.plural, subresource.name), "singularName": "", "namespaced": self.namespaced,
                "kind": subresource.kind, "verbs": subresource.verbs,
            });
            if let Some((group, version)) = subresource.group_version {
                described["group"] = json!(group);
                described["version"] = json!(version);
            }
            listed.push(described);
        }
        listed
    }
}

/// Kubernetes' version order: v2 before v1 before v1beta2 before v1alpha1.
pub(super) fn priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let digits = |text: &str| -> (u32, usize) {
        let length = text.bytes().take_while(u8::is_ascii_digit).count();
        (text[..length].parse().unwrap_or(0), length)
    };
    let (major, length) = digits(rest);
    let rest = &rest[length..];
    if rest.is_empty() {
        return (3, major, 0);
    }
    for (stage, label) in [(2, "beta"), (1, "alpha")] {
        if let Some(minor) = rest.strip_prefix(label) {
            return (stage, major, digits(minor).0);
        }
    }
    (0, 0, 0)
}

fn resources(store: &Store, group: &str, version: &str) -> Option<Value> {
    let group = groups(store).into_iter().find(|candidate| candidate.name == group)?;
    let (_, resources) = group.versions.iter().find(|(name, _)| name == version)?;
    let described: Vec<Value> = resources.iter().flat_map(Described::listed).collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group.group_version(version), "resources": described,
    }))
}

#[cfg(test)]
mod tests {
    use super::priority;

    #[test]
    fn versions_sort_as_kubernetes_sorts_them() {
        let mut versions = vec!["v1alpha1", "v1", "v1beta1", "v2", "v1beta2", "v2alpha1"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "v1alpha1"]);
    }
}
