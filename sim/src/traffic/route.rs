//! What an Istio VirtualService, or a TrafficSplit, does with a request.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::topology::ServiceKey;

/// A VirtualService in the model's terms.
#[derive(Clone, Debug, Default)]
pub(crate) struct VirtualService {
    /// The in-cluster services whose requests it routes.
    pub(crate) hosts: Vec<ServiceKey>,
    routes: Vec<Route>,
    /// Whether it is a TrafficSplit, which an Envoy with a cluster for each Service follows.
    pub(crate) is_traffic_split: bool,
}

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    matches: Vec<RequestMatch>,
    destinations: Vec<(Destination, f64)>,
    mirror: Option<(Destination, f64)>,
    /// The VirtualService whose rules apply instead.
    delegate: Option<ServiceKey>,
    retries: u32,
}

/// How often Istio sends a request again whose connection was refused, where a rule says nothing of it.
pub(crate) const DEFAULT_RETRIES: u32 = 2;

/// A service, or those of its pods that a DestinationRule has given a name to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) service: ServiceKey,
    pub(crate) subset: Option<String>,
}

impl From<ServiceKey> for Destination {
    fn from(service: ServiceKey) -> Self {
        Self { service, subset: None }
    }
}

/// A DestinationRule in the model's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DestinationRule {
    /// The service that it is about.
    pub(crate) host: Option<ServiceKey>,
    /// Labels of the pods of each subset.
    pub(crate) subsets: BTreeMap<String, BTreeMap<String, String>>,
}

impl DestinationRule {
    pub(crate) fn parse(namespace: &str, object: &Value) -> Self {
        let host = object.pointer("/spec/host").and_then(Value::as_str);
        let subsets = object.pointer("/spec/subsets").and_then(Value::as_array);
        let subset = |subset: &Value| {
            let labels = subset.get("labels").and_then(Value::as_object).into_iter().flatten();
            let labels = labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            Some((subset.get("name")?.as_str()?.to_owned(), labels.collect()))
        };
        Self {
            host: host.and_then(|host| ServiceKey::of_host(namespace, host)),
            subsets: subsets.into_iter().flatten().filter_map(subset).collect(),
        }
    }
}

/// Where requests go: services with the part (0 to 1) of the requests that each gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Split {
    pub(crate) destinations: Vec<(Destination, f64)>,
    /// Copies of requests, whose answers nobody sees.
    pub(crate) mirrors: Vec<(Destination, f64)>,
    /// How often a request is sent again whose connection was refused.
    pub(crate) retries: u32,
}

impl VirtualService {
    pub(crate) fn parse(namespace: &str, name: &str, object: &Value) -> Self {
        let listed = object.pointer("/spec/hosts").and_then(Value::as_array);
        let mut hosts: Vec<ServiceKey> =
            listed.into_iter().flatten().filter_map(|host| ServiceKey::of_host(namespace, host.as_str()?)).collect();
        let rules = |field: &str| {
            let rules = object.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
            rules.into_iter().flatten().map(|rule| Route::parse(namespace, rule)).collect::<Vec<_>>()
        };
        let mut routes = rules("http");
        if routes.is_empty() {
            routes = rules("tcp");
        }
        let delegates = !routes.is_empty() && routes.iter().all(|route| route.delegate.is_some());
        if hosts.is_empty() && !delegates {
            // Without a host of its own (delegation, `*`) it routes the service after which Flagger names it.
            hosts.push(ServiceKey::new(namespace, name));
        }
        Self { hosts, routes, is_traffic_split: false }
    }

    /// A TrafficSplit: one rule for the requests to its service. Nothing is sent again unless the proxy is told to.
    pub(crate) fn of_traffic_split(namespace: &str, object: &Value) -> Self {
        let service = object.pointer("/spec/service").and_then(Value::as_str).unwrap_or_default();
        let backends = object.pointer("/spec/backends").and_then(Value::as_array);
        let destinations = backends.into_iter().flatten().filter_map(|backend| {
            let service = ServiceKey::of_host(namespace, backend.get("service")?.as_str()?)?;
            #[expect(clippy::cast_precision_loss, reason = "weights are far below 2^53 nanos")]
            let weight = match backend.get("weight")? {
                Value::String(text) => crate::quantity::nanos(text).ok()? as f64 / 1e9,
                number => number.as_f64()?,
            };
            Some((Destination::from(service), weight))
        });
        let route = Route {
            matches: Vec::new(),
            destinations: destinations.collect(),
            mirror: None,
            delegate: None,
            retries: 0,
        };
        let hosts = ServiceKey::of_host(namespace, service).into_iter().collect();
        Self { hosts, routes: vec![route], is_traffic_split: true }
    }

    /// The VirtualServices to which rules of this one hand requests over.
    pub(crate) fn delegates(&self) -> impl Iterator<Item = &ServiceKey> {
        self.routes.iter().filter_map(Route::delegate)
    }

    /// The rule for a `GET /` with these headers; `None` if no rule admits it, which Envoy answers with 404.
    pub(crate) fn route(&self, headers: &BTreeMap<String, String>) -> Option<&Route> {
        self.routes
            .iter()
            .find(|route| route.matches.is_empty() || route.matches.iter().any(|condition| condition.admits(headers)))
    }
}

impl Route {
    fn parse(namespace: &str, rule: &Value) -> Self {
        let matches = rule.get("match").and_then(Value::as_array);
        let route = rule.get("route").and_then(Value::as_array);
        let destinations = route.into_iter().flatten().filter_map(|destination| {
            let to = destination_of(namespace, destination.get("destination")?)?;
            let weight = destination.get("weight").and_then(Value::as_f64).unwrap_or(0.0);
            Some((to, weight))
        });
        let mirror = rule.get("mirror").and_then(|mirror| destination_of(namespace, mirror)).map(|to| {
            let percentage = rule.pointer("/mirrorPercentage/value").and_then(Value::as_f64);
            (to, percentage.unwrap_or(100.0) / 100.0)
        });
        Self {
            matches: matches.into_iter().flatten().map(RequestMatch::parse).collect(),
            destinations: destinations.collect(),
            mirror,
            delegate: rule.get("delegate").and_then(|delegate| {
                let field = |name: &str| delegate.get(name).and_then(Value::as_str);
                Some(ServiceKey::new(field("namespace").unwrap_or(namespace), field("name")?))
            }),
            retries: rule
                .pointer("/retries/attempts")
                .and_then(Value::as_u64)
                .map_or(DEFAULT_RETRIES, |attempts| u32::try_from(attempts).unwrap_or(u32::MAX)),
        }
    }

    pub(crate) fn delegate(&self) -> Option<&ServiceKey> {
        self.delegate.as_ref()
    }

    /// The parts of the requests that each destination gets; none if all weights are zero. A single destination gets
    /// everything whatever its weight, as in Istio.
    pub(crate) fn split(&self) -> Split {
        let total: f64 = self.destinations.iter().map(|(_, weight)| weight).sum();
        let destinations = match self.destinations.as_slice() {
            [(only, _)] => vec![(only.clone(), 1.0)],
            destinations => destinations
                .iter()
                .filter(|(_, weight)| *weight > 0.0)
                .map(|(to, weight)| (to.clone(), weight / total))
                .collect(),
        };
        let mirrors = self.mirror.iter().filter(|(_, share)| *share > 0.0).cloned().collect();
        Split { destinations, mirrors, retries: self.retries }
    }
}

fn destination_of(namespace: &str, destination: &Value) -> Option<Destination> {
    let subset = destination.get("subset").and_then(Value::as_str).filter(|subset| !subset.is_empty());
    let service = ServiceKey::of_host(namespace, destination.get("host")?.as_str()?)?;
    Some(Destination { service, subset: subset.map(str::to_owned) })
}

/// One entry of `match`: all its conditions must hold.
#[derive(Clone, Debug)]
struct RequestMatch {
    uri: Option<StringMatch>,
    method: Option<StringMatch>,
    headers: Vec<(String, StringMatch)>,
    without_headers: Vec<(String, StringMatch)>,
    /// The entry asks for something that a user's `GET /` through the gateway does not have.
    never: bool,
}

impl RequestMatch {
    fn parse(condition: &Value) -> Self {
        let headers = |field: &str| {
            let headers = condition.get(field).and_then(Value::as_object);
            headers
                .into_iter()
                .flatten()
                .map(|(name, text)| (name.to_ascii_lowercase(), StringMatch::parse(text)))
                .collect::<Vec<_>>()
        };
        let asks_for = |field: &str| match condition.get(field) {
            None | Some(Value::Null) => false,
            Some(Value::Object(fields)) => !fields.is_empty(),
            Some(_) => true,
        };
        Self {
            uri: condition.get("uri").map(StringMatch::parse),
            method: condition.get("method").map(StringMatch::parse),
            headers: headers("headers"),
            without_headers: headers("withoutHeaders"),
            never: ["sourceLabels", "sourceNamespace", "queryParams"].iter().any(|field| asks_for(field)),
        }
    }

    fn admits(&self, headers: &BTreeMap<String, String>) -> bool {
        let has = |(name, text): &(String, StringMatch)| headers.get(name).is_some_and(|value| text.admits(value));
        !self.never
            && self.uri.as_ref().is_none_or(|uri| uri.admits("/"))
            && self.method.as_ref().is_none_or(|method| method.admits("GET"))
            && self.headers.iter().all(has)
            && !self.without_headers.iter().any(has)
    }
}

#[derive(Clone, Debug)]
enum StringMatch {
    Exact(String),
    Prefix(String),
    /// Anchored on both sides, as Envoy does.
    Regex(Regex),
    /// An empty condition asks only that the header is there.
    Present,
    /// A regular expression that cannot be read: Istio's webhook would have refused the object.
    Nothing,
}

impl StringMatch {
    fn parse(text: &Value) -> Self {
        let field = |name: &str| text.get(name).and_then(Value::as_str);
        if let Some(exact) = field("exact") {
            return Self::Exact(exact.to_owned());
        }
        if let Some(prefix) = field("prefix") {
            return Self::Prefix(prefix.to_owned());
        }
        match field("regex") {
            Some(regex) => Regex::new(&format!("^(?:{regex})$")).map_or(Self::Nothing, Self::Regex),
            None => Self::Present,
        }
    }

    fn admits(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.is_match(value),
            Self::Present => true,
            Self::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    fn split(spec: &Value, headers: &[(&str, &str)]) -> Option<Vec<(String, f64)>> {
        let service = VirtualService::parse("test", "podinfo", &json!({ "spec": spec }));
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let split = service.route(&headers)?.split();
        Some(split.destinations.into_iter().map(|(to, share)| (to.service.name, share)).collect())
    }

    fn weighted(primary: u32, canary: u32) -> Value {
        json!([
            {"destination": {"host": "podinfo-primary"}, "weight": primary},
            {"destination": {"host": "podinfo-canary"}, "weight": canary},
        ])
    }

    #[test]
    fn weights_are_shares() {
        let spec = json!({"hosts": ["podinfo"], "http": [{"route": weighted(90, 10)}]});
        assert_eq!(
            split(&spec, &[]),
            Some(vec![("podinfo-primary".to_owned(), 0.9), ("podinfo-canary".to_owned(), 0.1)])
        );
        let all = json!({"http": [{"route": weighted(100, 0)}]});
        assert_eq!(split(&all, &[]), Some(vec![("podinfo-primary".to_owned(), 1.0)]));
        let none = json!({"http": [{"route": weighted(0, 0)}]});
        assert_eq!(split(&none, &[]), Some(vec![]));
    }

    #[test]
    fn header_rules_are_for_requests_with_the_header() {
        let spec = json!({"http": [
            {"match": [{"headers": {"Cookie": {"regex": ".*canary=1.*"}}}, {"headers": {"x-beta": {"exact": "yes"}}}],
             "route": weighted(0, 100)},
            {"match": [{"uri": {"prefix": "/"}}],
             "route": [{"destination": {"host": "podinfo-primary"}, "weight": 0}]},
        ]});
        let first = |headers: &[(&str, &str)]| split(&spec, headers).unwrap()[0].0.clone();
        assert_eq!(first(&[]), "podinfo-primary");
        assert_eq!(first(&[("x-beta", "yes")]), "podinfo-canary");
        assert_eq!(first(&[("x-beta", "no")]), "podinfo-primary");
        assert_eq!(first(&[("cookie", "a=b; canary=1")]), "podinfo-canary");
    }

    #[test]
    fn a_request_that_no_rule_admits_has_no_route() {
        let spec = json!({"http": [
            {"match": [{"uri": {"prefix": "/api"}}, {"sourceLabels": {"app": "x"}}], "route": weighted(50, 50)},
        ]});
        assert_eq!(split(&spec, &[]), None);
    }

    #[test]
    fn hosts_are_in_cluster_names_or_the_objects_own() {
        let hosts = |listed: Value| VirtualService::parse("test", "podinfo", &json!({"spec": {"hosts": listed}})).hosts;
        assert_eq!(
            hosts(json!(["app.example.com", "web.prod.svc.cluster.local", "podinfo"])),
            [ServiceKey::new("prod", "web"), ServiceKey::new("test", "podinfo")]
        );
        assert_eq!(hosts(json!(["*"])), [ServiceKey::new("test", "podinfo")]);
    }

    #[test]
    fn a_root_that_only_delegates_routes_no_service_of_its_own() {
        let spec = json!({"hosts": ["*"], "http": [
            {"match": [{"uri": {"prefix": "/"}}], "delegate": {"name": "podinfo", "namespace": "prod"}},
        ]});
        let root = VirtualService::parse("test", "root", &json!({"spec": spec}));
        assert_eq!(root.hosts, []);
        let route = root.route(&BTreeMap::new()).unwrap();
        assert_eq!(route.delegate(), Some(&ServiceKey::new("prod", "podinfo")));
    }

    #[test]
    fn a_traffic_split_shares_by_numbers_and_quantities() {
        let backends = json!([
            {"service": "podinfo-canary", "weight": "250m"}, {"service": "podinfo-primary", "weight": 0.75},
            {"service": "none", "weight": "0"},
        ]);
        let object = json!({"spec": {"service": "podinfo.test", "backends": backends}});
        let service = VirtualService::of_traffic_split("test", &object);
        assert_eq!(service.hosts, [ServiceKey::new("test", "podinfo")]);
        let split = service.route(&BTreeMap::new()).unwrap().split();
        let shares: Vec<(&str, f64)> =
            split.destinations.iter().map(|(destination, share)| (destination.service.name.as_str(), *share)).collect();
        assert_eq!(shares, [("podinfo-canary", 0.25), ("podinfo-primary", 0.75)]);
    }

    #[test]
    fn mirrors_get_their_percentage() {
        let object = json!({"spec": {"http": [{
            "route": weighted(100, 0), "mirror": {"host": "podinfo-canary"}, "mirrorPercentage": {"value": 25},
        }]}});
        let service = VirtualService::parse("test", "podinfo", &object);
        let split = service.route(&BTreeMap::new()).unwrap().split();
        assert_eq!(split.mirrors, [(ServiceKey::new("test", "podinfo-canary").into(), 0.25)]);
    }
}
