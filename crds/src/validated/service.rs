//! Validation of `spec.service`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::parse::non_empty;
use super::{Problems, ValidatedService};
use crate::service::{BackendReference, CanaryService, GatewayReference, HttpRequestMirror};

/// Port on which Knative services answer.
const KNATIVE_PORT: i64 = 80;

const PORT_RANGE: &str = "use a port from 1 to 65535";

/// Checks the service of a canary whose target has this name.
pub(super) fn parse(service: &CanaryService, target: &str, problems: &mut Problems) -> ValidatedService {
    let port = parse_port("spec.service.port", service.port, problems);
    ValidatedService {
        name: non_empty(service.name.as_deref()).unwrap_or_else(|| target.to_owned()),
        port,
        port_name: non_empty(service.port_name.as_deref()).unwrap_or_else(|| "http".to_owned()),
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

/// The service of a Knative target that declares none.
pub(super) fn for_knative(target: &str) -> ValidatedService {
    let declared = CanaryService { port: KNATIVE_PORT, ..CanaryService::default() };
    parse(&declared, target, &mut Problems::default())
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
        Some(IntOrString::String(name)) => IntOrString::String(name.clone()),
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
