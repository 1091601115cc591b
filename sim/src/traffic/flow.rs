//! Where the requests to one host end, by the routes and pods of this moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::behaviour::{Behaviours, Latency};
use super::route::{DEFAULT_RETRIES, Destination, Route, Split};
use super::streams::{StreamKey, UNKNOWN};
use super::topology::{Backends, ServiceKey, Topology};

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
        !self.stream.arrives()
    }
}

/// The flows of a host, and every service on which they depend.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    pub(crate) flows: Vec<Flow>,
    pub(crate) services: Vec<ServiceKey>,
}

/// `response_flags` of an answer that the workload gave.
pub(crate) const ANSWERED: &str = "-";

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
                Some(route) => delegated(topology, route, &population.headers).map(Route::split),
                None => None,
            },
            None => Some(Split {
                destinations: vec![(host.clone().into(), 1.0)],
                mirrors: Vec::new(),
                retries: DEFAULT_RETRIES,
            }),
        };
        let Some(split) = split else {
            result.unanswered(host, 404, "NR", population.requests_per_second, false);
            continue;
        };
        if split.destinations.is_empty() {
            result.unanswered(host, 503, "NC", population.requests_per_second, false);
        }
        // Nobody waits for a copy, so a copy that fails is not sent again.
        for (destinations, mirrored, retries) in [(split.destinations, false, split.retries), (split.mirrors, true, 0)]
        {
            for (destination, share) in destinations {
                let sent = Sent { rate: population.requests_per_second * share, mirrored, retries };
                result.deliver(topology, behaviours, &destination, sent);
                result.services.push(destination.service);
            }
        }
    }
    result
}

/// The rule that decides in the end: Istio lets a VirtualService hand requests over to another one, once.
fn delegated<'a>(topology: &'a Topology, route: &'a Route, headers: &BTreeMap<String, String>) -> Option<&'a Route> {
    match route.delegate() {
        Some(delegate) => topology.delegate(delegate)?.route(headers),
        None => Some(route),
    }
}

/// Requests per second to a service.
#[derive(Clone, Copy)]
struct Sent {
    rate: f64,
    mirrored: bool,
    retries: u32,
}

/// The part of the requests that meets nothing but pods that are gone: each attempt goes to a pod that was not tried yet.
fn lost_share(backends: Backends, retries: u32) -> f64 {
    let Backends { known, answering } = backends;
    let gone = known - answering;
    if answering == 0 {
        return 1.0;
    }
    (0..=retries)
        .map(|tried| f64::from(gone.saturating_sub(tried)) / f64::from((known - tried.min(known - 1)).max(1)))
        .product()
}

impl Flows {
    /// Spreads requests evenly over the pods that the proxies know behind a destination.
    fn deliver(&mut self, topology: &Topology, behaviours: &Behaviours, destination: &Destination, sent: Sent) {
        let service = &destination.service;
        // Envoy has no cluster for a subset that no DestinationRule names.
        let Some(versions) = topology.backends(destination) else {
            self.unanswered(service, 503, "NC", sent.rate, sent.mirrored);
            return;
        };
        let total = versions.values().fold(Backends::default(), |total, backends| Backends {
            known: total.known + backends.known,
            answering: total.answering + backends.answering,
        });
        if total.known == 0 {
            self.unanswered(service, 503, "UH", sent.rate, sent.mirrored);
            return;
        }
        let lost = sent.rate * lost_share(total, sent.retries);
        for (version, backends) in versions {
            let gone = backends.known - backends.answering;
            let answered = share(sent.rate - lost, backends.answering, total.answering);
            let refused = share(lost, gone, total.known - total.answering);
            let behaviour = behaviours.of(&service.namespace, &version.workload, &version.images);
            let failing = answered * behaviour.error_ratio.clamp(0.0, 1.0);
            // Envoy's names for a refused connection, and for the end of its attempts.
            let refusal = if sent.retries > 0 { "UF,URX" } else { "UF" };
            for (response_code, response_flags, requests_per_second, latency) in [
                (200, ANSWERED, answered - failing, behaviour.latency),
                (behaviour.error_code, ANSWERED, failing, behaviour.latency),
                (503, refusal, refused, GATEWAY_LATENCY),
            ] {
                self.add(Flow {
                    stream: StreamKey {
                        service: service.clone(),
                        workload: ServiceKey::new(&service.namespace, &version.workload),
                        identity: Arc::clone(&version.identity),
                        response_code,
                        response_flags,
                    },
                    requests_per_second,
                    latency,
                    mirrored: sent.mirrored,
                });
            }
        }
    }

    fn unanswered(&mut self, service: &ServiceKey, response_code: u16, flags: &'static str, rate: f64, mirrored: bool) {
        self.add(Flow {
            stream: StreamKey {
                service: service.clone(),
                workload: ServiceKey::new(UNKNOWN, UNKNOWN),
                identity: Arc::default(),
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

/// The part of `rate` that falls to `count` of `total` pods.
fn share(rate: f64, count: u32, total: u32) -> f64 {
    if total == 0 { 0.0 } else { rate * f64::from(count) / f64::from(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_tried_again_at_another_pod() {
        let lost = |known, answering, retries| lost_share(Backends { known, answering }, retries);
        assert_eq!(lost(3, 3, 2), 0.0);
        assert_eq!(lost(1, 0, 2), 1.0, "nothing else to try");
        assert_eq!(lost(2, 0, 5), 1.0);
        assert_eq!(lost(2, 1, 0), 0.5, "no second attempt");
        assert_eq!(lost(2, 1, 2), 0.0, "the other pod answers");
        // Three of four are gone: 3/4, then 2/3, then 1/2.
        assert_eq!(lost(4, 1, 2), 0.25);
        assert_eq!(lost(4, 1, 3), 0.0);
    }
}
