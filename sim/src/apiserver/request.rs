//! From a path and a query to what is asked for.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;

use super::metrics::MetricsPath;
use super::openapi::OpenApiPath;
use super::subresources::{self, VirtualResource};
use crate::calls::{Call, CallKey, Verb};
use crate::store::{ResourceType, ResourceVersion, StatusError, Store};

/// The query parameters of a request.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name, true), decode(value, true))
            })
            .collect();
        Self { pairs }
    }

    /// The parameter's value; an empty one counts as absent, as it does in the API server.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(candidate, value)| candidate == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Whether the parameter is there, with a value or without.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(candidate, _)| candidate == name)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value == "true" || value == "1")
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, StatusError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| StatusError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))
    }

    /// `resourceVersion`; `None` when unset, `Some(0)` for "any".
    pub(crate) fn resource_version(&self) -> Result<Option<u64>, StatusError> {
        let Some(text) = self.get("resourceVersion") else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            // As Go's strconv tells it.
            StatusError::bad_request(format!(
                "invalid resource version: resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": \
                 invalid syntax"
            ))
        })
    }
}

fn decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = (byte == b'%')
            .then(|| {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                u8::from_str_radix(digits, 16).ok()
            })
            .flatten();
        match escaped {
            Some(value) => {
                bytes.push(value);
                rest = &tail[2..];
            }
            None if byte == b'+' && plus_is_space => bytes.push(b' '),
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a path names.
#[derive(Debug)]
pub(crate) enum Route {
    Resource(Target),
    Discovery(DiscoveryPath),
    OpenApi(OpenApiPath),
    /// `/healthz` and its like: which of them, and the one check that is asked for.
    Health {
        name: String,
        check: Option<String>,
    },
    /// `/metrics` of the server itself.
    ServerMetrics,
    Version,
    /// Metrics of pods and nodes.
    Metrics(MetricsPath),
    /// The control plane's parts: one, or all.
    ComponentStatuses(Option<String>),
    /// A question that is answered with its own body.
    Review(&'static VirtualResource),
    /// No resource of a built-in group.
    UnknownResource,
    Unknown,
}

#[derive(Debug)]
pub(crate) enum DiscoveryPath {
    /// All paths.
    Root,
    CoreVersions,
    Groups,
    Group(String),
    Resources {
        group: String,
        version: String,
    },
}

/// A resource request's subject.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) resource: Arc<ResourceType>,
    pub(crate) version: String,
    /// Empty for cluster-scoped resources and for requests across namespaces.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: String,
}

impl Target {
    pub(crate) fn served_version(&self) -> Option<&ResourceVersion> {
        self.resource.served_version(&self.version)
    }

    pub(crate) fn api_version(&self) -> String {
        self.resource.api_version(&self.version)
    }

    /// The namespace to which reads are limited.
    pub(crate) fn scope(&self) -> Option<&str> {
        if self.resource.namespaced && self.namespace.is_empty() { None } else { Some(&self.namespace) }
    }
}

impl Route {
    pub(crate) fn parse(store: &Store, path: &str) -> Self {
        let segments: Vec<Cow<'_, str>> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| if segment.contains('%') { decode(segment, false).into() } else { segment.into() })
            .collect();
        let segments: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
        match segments.as_slice() {
            [name @ ("healthz" | "livez" | "readyz")] => Self::Health { name: (*name).to_owned(), check: None },
            [name @ ("healthz" | "livez" | "readyz"), check] => {
                Self::Health { name: (*name).to_owned(), check: Some((*check).to_owned()) }
            }
            ["metrics"] => Self::ServerMetrics,
            ["version"] => Self::Version,
            ["openapi", "v2"] => Self::OpenApi(OpenApiPath::Version2),
            ["openapi", "v3"] => Self::OpenApi(OpenApiPath::Index),
            ["openapi", "v3", "api", version] => Self::openapi("", version),
            ["openapi", "v3", "apis", group, version] => Self::openapi(group, version),
            ["apis", "metrics.k8s.io", "v1beta1", rest @ ..] if !rest.is_empty() => {
                MetricsPath::parse(rest).map_or(Self::Unknown, Self::Metrics)
            }
            ["api", "v1", "componentstatuses"] => Self::ComponentStatuses(None),
            ["api", "v1", "componentstatuses", name] => Self::ComponentStatuses(Some((*name).to_owned())),
            [] => Self::Discovery(DiscoveryPath::Root),
            ["api"] => Self::Discovery(DiscoveryPath::CoreVersions),
            ["apis"] => Self::Discovery(DiscoveryPath::Groups),
            ["apis", group] => Self::Discovery(DiscoveryPath::Group((*group).to_owned())),
            ["api", version] => Self::resources("", version),
            ["apis", group, version] => Self::resources(group, version),
            ["api", version, rest @ ..] => Self::resource(store, "", version, rest),
            ["apis", group, version, rest @ ..] => Self::resource(store, group, version, rest),
            _ => Self::Unknown,
        }
    }

    fn openapi(group: &str, version: &str) -> Self {
        Self::OpenApi(OpenApiPath::Document { group: group.to_owned(), version: version.to_owned() })
    }

    fn resources(group: &str, version: &str) -> Self {
        Self::Discovery(DiscoveryPath::Resources { group: group.to_owned(), version: version.to_owned() })
    }

    fn resource(store: &Store, group: &str, version: &str, rest: &[&str]) -> Self {
        // `namespaces/x/y` is a collection in namespace x, unless y is a subresource of the namespace itself.
        let (namespace, rest) = match rest {
            ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, plural, tail @ ..] if tail.len() <= 2 => {
                return Self::target(store, group, version, namespace, plural, tail);
            }
            other => ("", other),
        };
        match rest {
            [plural, tail @ ..] if tail.len() <= 2 => Self::target(store, group, version, namespace, plural, tail),
            _ => Self::Unknown,
        }
    }

    fn target(store: &Store, group: &str, version: &str, namespace: &str, plural: &str, tail: &[&str]) -> Self {
        if tail.is_empty()
            && let Some(review) = subresources::virtual_resource(group, version, plural)
            && review.namespaced != namespace.is_empty()
        {
            return Self::Review(review);
        }
        let Some(resource) = store.registry(|registry| registry.by_path(group, plural).cloned()) else {
            let is_built_in = |resource: &Arc<ResourceType>| !resource.custom;
            let is_in_built_in_group = store.registry(|registry| {
                registry.groups().any(|(name, resources)| name == group && resources.iter().any(is_built_in))
            });
            return if is_in_built_in_group { Self::UnknownResource } else { Self::Unknown };
        };
        let unknown = if resource.custom { Self::Unknown } else { Self::UnknownResource };
        let Some(served) = resource.served_version(version) else {
            return unknown;
        };
        let name = tail.first().map(|name| (*name).to_owned());
        let subresource = tail.get(1).copied().unwrap_or_default();
        let scope_fits =
            if resource.namespaced { !namespace.is_empty() || name.is_none() } else { namespace.is_empty() };
        let subresource_exists = subresources::exists(&resource, served, subresource);
        if !scope_fits || !subresource_exists {
            return unknown;
        }
        Self::Resource(Target {
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            name,
            subresource: subresource.to_owned(),
            resource,
        })
    }

    /// How the request is counted.
    pub(crate) fn call(&self, method: &Method, query: &Query, path: &str, client: &str) -> Call {
        let (resource, subresource, namespace, name) = match self {
            Self::Resource(target) => (
                target.resource.plural.clone(),
                target.subresource.clone(),
                target.namespace.clone(),
                target.name.clone().unwrap_or_default(),
            ),
            _ => (path.to_owned(), String::new(), String::new(), String::new()),
        };
        let is_collection = matches!(self, Self::Resource(target) if target.name.is_none());
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if is_collection => Verb::DeleteCollection,
            Method::DELETE => Verb::Delete,
            _ if matches!(self, Self::Resource(_)) && query.flag("watch") => Verb::Watch,
            _ if is_collection => Verb::List,
            _ => Verb::Get,
        };
        Call { key: CallKey { client: client.to_owned(), verb, resource, subresource }, namespace, name }
    }
}
