//! The validated form of `spec.service`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::Problems;
use super::parse::non_empty;
use super::texts::{check_container_port_name, check_port_name, check_service_name};
use crate::names::{CANARY_SUFFIX, PRIMARY_SUFFIX};
use crate::service::{
    BackendReference, CanaryService, CorsPolicy, CustomMetadata, GatewayReference, HttpHeaders, HttpMatchRequest,
    HttpRequestMirror, HttpRetry, HttpRewrite, UnmanagedMetadata,
};

/// Port on which Knative services answer.
const KNATIVE_PORT: i64 = 80;

const PORT_RANGE: &str = "use a port from 1 to 65535";

/// The generated services and how requests are routed to them.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedService {
    /// Name of the apex service. Default: name of the target.
    pub name: String,
    /// Port, 1–65535.
    pub port: u16,
    /// Name of the port. Default `http`.
    pub port_name: String,
    /// Application protocol of the port.
    pub app_protocol: Option<String>,
    /// `trafficDistribution` of the services.
    pub traffic_distribution: Option<String>,
    /// Number or name of the container port. Default: the port.
    pub target_port: IntOrString,
    /// Whether the services also get every other port of the containers.
    pub port_discovery: bool,
    /// Whether the services have no cluster IP.
    pub headless: bool,
    /// Timeout of a request, as written.
    pub timeout: Option<String>,
    /// Timeout of one attempt at a backend, as written (Gateway API).
    pub backend_timeout: Option<String>,
    /// Istio gateways.
    pub gateways: Vec<String>,
    /// Parents of the HTTPRoute; `group` and `kind` are set.
    pub gateway_refs: Vec<GatewayReference>,
    /// Hosts.
    pub hosts: Vec<String>,
    /// Whether the VirtualService is a delegate.
    pub delegation: bool,
    /// Requests that are routed; all, if empty.
    pub matches: Vec<HttpMatchRequest>,
    /// Rewrite of requests.
    pub rewrite: Option<HttpRewrite>,
    /// Retries.
    pub retries: Option<HttpRetry>,
    /// Header operations.
    pub headers: Option<HttpHeaders>,
    /// Backends that get a copy of each request; `group` and `kind` are set.
    pub mirror: Vec<BackendReference>,
    /// Cross-origin resource sharing.
    pub cors_policy: Option<CorsPolicy>,
    /// Istio traffic policy, as written.
    pub traffic_policy: Option<Value>,
    /// App Mesh: name of the mesh.
    pub mesh_name: Option<String>,
    /// App Mesh: services that the target calls.
    pub backends: Vec<String>,
    /// Metadata of the apex service and of the mesh object.
    pub apex_metadata: CustomMetadata,
    /// Metadata of the primary service.
    pub primary_metadata: CustomMetadata,
    /// Metadata of the canary service.
    pub canary_metadata: CustomMetadata,
    /// Metadata keys that others manage.
    pub unmanaged_metadata: UnmanagedMetadata,
}

impl ValidatedService {
    /// Name of the service that clients call, and of the mesh object.
    pub fn apex(&self) -> &str {
        &self.name
    }

    /// Name of the primary's service.
    pub fn primary_name(&self) -> String {
        format!("{}{PRIMARY_SUFFIX}", self.name)
    }

    /// Name of the canary's service.
    pub fn canary_name(&self) -> String {
        format!("{}{CANARY_SUFFIX}", self.name)
    }
}

/// Checks the service of a canary whose target has this name.
pub(super) fn parse(service: &CanaryService, target: &str, problems: &mut Problems) -> ValidatedService {
    let port = parse_port("spec.service.port", service.port, problems);
    let port_name = non_empty(service.port_name.as_deref()).unwrap_or_else(|| "http".to_owned());
    check_port_name("spec.service.portName", &port_name, problems);
    ValidatedService {
        name: parse_name(service, target, problems),
        port,
        port_name,
        app_protocol: non_empty(service.app_protocol.as_deref()),
        traffic_distribution: non_empty(service.traffic_distribution.as_deref()),
        target_port: parse_target_port(service.target_port.as_ref(), port, problems),
        port_discovery: service.port_discovery.unwrap_or(false),
        headless: service.headless.unwrap_or(false),
        timeout: non_empty(service.timeout.as_deref()),
        backend_timeout: non_empty(service.backend_timeout.as_deref()),
        gateways: service.gateways.clone(),
        gateway_refs: service.gateway_refs.iter().map(with_gateway_defaults).collect(),
        hosts: service.hosts.clone(),
        delegation: service.delegation.unwrap_or(false),
        matches: service.matches.clone(),
        rewrite: service.rewrite.clone(),
        retries: service.retries.clone(),
        headers: service.headers.clone(),
        mirror: parse_mirrors(&service.mirror, problems),
        cors_policy: service.cors_policy.clone(),
        traffic_policy: service.traffic_policy.clone(),
        mesh_name: non_empty(service.mesh_name.as_deref()),
        backends: service.backends.clone(),
        apex_metadata: service.apex.clone().unwrap_or_default(),
        primary_metadata: service.primary.clone().unwrap_or_default(),
        canary_metadata: service.canary.clone().unwrap_or_default(),
        unmanaged_metadata: service.unmanaged_metadata.clone().unwrap_or_default(),
    }
}

/// A service of which nothing can be wrong.
pub(crate) fn undemanding(declared: &CanaryService, target: &str) -> ValidatedService {
    parse(declared, target, &mut Problems::default())
}

/// The service of a Knative target that declares none.
pub(super) fn for_knative(target: &str) -> ValidatedService {
    undemanding(&CanaryService { port: KNATIVE_PORT, ..CanaryService::default() }, target)
}

fn parse_name(service: &CanaryService, target: &str, problems: &mut Problems) -> String {
    let declared = non_empty(service.name.as_deref());
    let path = if declared.is_some() { "spec.service.name" } else { "spec.targetRef.name" };
    let name = declared.unwrap_or_else(|| target.to_owned());
    check_service_name(path, &name, problems);
    name
}

fn parse_port(path: &str, port: i64, problems: &mut Problems) -> u16 {
    match u16::try_from(port) {
        Ok(valid) if valid > 0 => valid,
        _ => {
            problems.add(path, port, "is not a port", PORT_RANGE);
            1
        }
    }
}

/// Flagger compares the text of `targetPort` with `"0"` to find out whether it is set.
fn parse_target_port(declared: Option<&IntOrString>, port: u16, problems: &mut Problems) -> IntOrString {
    const PATH: &str = "spec.service.targetPort";
    let default = IntOrString::Int(i32::from(port));
    match declared {
        None | Some(IntOrString::Int(0)) => default,
        Some(IntOrString::Int(number)) => IntOrString::Int(i32::from(parse_port(PATH, i64::from(*number), problems))),
        Some(IntOrString::String(name)) if name.is_empty() || name == "0" => default,
        Some(IntOrString::String(name)) => {
            check_container_port_name(PATH, name, problems);
            IntOrString::String(name.clone())
        }
    }
}

/// Defaults that the schema declares; an object from a file has not met it.
fn with_gateway_defaults(reference: &GatewayReference) -> GatewayReference {
    let mut reference = reference.clone();
    reference.group.get_or_insert_with(|| "gateway.networking.k8s.io".to_owned());
    reference.kind.get_or_insert_with(|| "Gateway".to_owned());
    reference
}

fn parse_mirrors(mirrors: &[HttpRequestMirror], problems: &mut Problems) -> Vec<BackendReference> {
    let mut backends = Vec::with_capacity(mirrors.len());
    for (index, mirror) in mirrors.iter().enumerate() {
        let path = format!("spec.service.mirror[{index}].backendRef");
        let Some(declared) = &mirror.backend_ref else {
            problems.add_missing(path, "is required", "name the service that gets the copies, or remove the entry");
            continue;
        };
        let mut backend = declared.clone();
        let group = backend.group.get_or_insert_default();
        let kind = backend.kind.get_or_insert_with(|| "Service".to_owned());
        if group.is_empty() && kind == "Service" && declared.port.is_none() {
            problems.add_missing(format!("{path}.port"), "Must have port for Service reference", PORT_RANGE);
        }
        backends.push(backend);
    }
    backends
}
