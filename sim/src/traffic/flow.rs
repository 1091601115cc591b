//! Where the requests to one host end, by the routes and pods of this moment.

use std::collections::BTreeMap;

use super::behaviour::{Behaviours, Latency};
use super::route::Split;
use super::streams::{StreamKey, UNKNOWN};
use super::topology::{ServiceKey, Topology};

/// Users of a host who send the same headers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Population {
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) requests_per_second: f64,
}

/// Requests that end the same way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flow {
    pub(crate) stream: StreamKey,
    pub(crate) requests_per_second: f64,
    pub(crate) latency: Latency,
    /// Copies: nobody waits for the answer.
    pub(crate) mirrored: bool,
}

impl Flow {
    /// Whether a user sees a server error, or no answer of the application at all.
    pub(crate) fn fails_users(&self) -> bool {
        !self.mirrored && (self.stream.response_code >= 500 || self.is_unanswered())
    }

    /// Whether no workload answered.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.stream.workload.name == UNKNOWN
    }
}

/// The flows of a host, and every service on which they depend.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    pub(crate) flows: Vec<Flow>,
    pub(crate) services: Vec<ServiceKey>,
}

/// Envoy answers for itself at once; a millisecond is below the resolution that matters here.
const GATEWAY_LATENCY: Latency = Latency { p50_ms: 1.0, p99_ms: 1.0 };

pub(crate) fn flows(
    topology: &Topology,
    behaviours: &Behaviours,
    host: &ServiceKey,
    populations: &[Population],
) -> Flows {
    let mut result = Flows { flows: Vec::new(), services: vec![host.clone()] };
    for population in populations {
        if population.requests_per_second <= 0.0 {
            continue;
        }
        let split = match topology.virtual_service(host) {
            Some(virtual_service) => match virtual_service.route(&population.headers) {
                Some(route) => route.split(),
                None => {
                    result.unanswered(host, 404, "NR", population.requests_per_second, false);
                    continue;
                }
            },
            None => Split { destinations: vec![(host.clone(), 1.0)], mirrors: Vec::new() },
        };
        if split.destinations.is_empty() {
            result.unanswered(host, 503, "NC", population.requests_per_second, false);
        }
        for (destinations, mirrored) in [(split.destinations, false), (split.mirrors, true)] {
            for (service, share) in destinations {
                let rate = population.requests_per_second * share;
                result.deliver(topology, behaviours, &service, rate, mirrored);
                result.services.push(service);
            }
        }
    }
    result
}

impl Flows {
    /// Spreads requests evenly over the ready pods of a service.
    fn deliver(
        &mut self,
        topology: &Topology,
        behaviours: &Behaviours,
        service: &ServiceKey,
        rate: f64,
        mirrored: bool,
    ) {
        let versions = topology.ready_pods(service);
        let pods: u32 = versions.values().sum();
        if pods == 0 {
            self.unanswered(service, 503, "UH", rate, mirrored);
            return;
        }
        for (version, count) in versions {
            let behaviour = behaviours.of(&service.namespace, &version.workload, &version.images);
            let rate = rate * f64::from(count) / f64::from(pods);
            let failing = rate * behaviour.error_ratio.clamp(0.0, 1.0);
            for (response_code, requests_per_second) in [(200, rate - failing), (behaviour.error_code, failing)] {
                self.add(Flow {
                    stream: StreamKey {
                        service: service.clone(),
                        workload: ServiceKey::new(&service.namespace, &version.workload),
                        response_code,
                        response_flags: "-",
                    },
                    requests_per_second,
                    latency: behaviour.latency,
                    mirrored,
                });
            }
        }
    }

    fn unanswered(&mut self, service: &ServiceKey, response_code: u16, flags: &'static str, rate: f64, mirrored: bool) {
        self.add(Flow {
            stream: StreamKey {
                service: service.clone(),
                workload: ServiceKey::new(UNKNOWN, UNKNOWN),
                response_code,
                response_flags: flags,
            },
            requests_per_second: rate,
            latency: GATEWAY_LATENCY,
            mirrored,
        });
    }

    fn add(&mut self, flow: Flow) {
        if flow.requests_per_second > 0.0 {
            self.flows.push(flow);
        }
    }
}
