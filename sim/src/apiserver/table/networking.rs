//! Rows of services, endpoints and ingresses.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, UNKNOWN, age, first_few, items, labels, name, number, plain, selector, text, text_or};

/// Addresses and ports that are shown before the rest is only counted.
const SHOWN: usize = 3;

pub(super) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = items(object, "/spec/ports").map(service_port).collect();
    vec![
        name(object),
        json!(text(object, "/spec/type")),
        json!(text_or(object, "/spec/clusterIPs/0", text_or(object, "/spec/clusterIP", NONE))),
        json!(external_address(object)),
        json!(if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }),
        age(object, now),
        json!(labels(object.pointer("/spec/selector"))),
    ]
}

fn service_port(port: &Value) -> String {
    let protocol = text_or(port, "/protocol", "TCP");
    match number(port, "/nodePort") {
        0 => format!("{}/{protocol}", number(port, "/port")),
        node_port => format!("{}:{node_port}/{protocol}", number(port, "/port")),
    }
}

fn external_address(service: &Value) -> String {
    let mut addresses: Vec<String> = match text(service, "/spec/type") {
        "ExternalName" => return text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => balancer_addresses(service),
        "ClusterIP" | "NodePort" => Vec::new(),
        _ => return UNKNOWN.to_owned(),
    };
    addresses.extend(items(service, "/spec/externalIPs").map(plain));
    match (addresses.is_empty(), text(service, "/spec/type")) {
        (true, "LoadBalancer") => "<pending>".to_owned(),
        (true, _) => NONE.to_owned(),
        (false, _) => addresses.join(","),
    }
}

fn balancer_addresses(object: &Value) -> Vec<String> {
    let mut addresses: Vec<String> = items(object, "/status/loadBalancer/ingress")
        .map(|ingress| text_or(ingress, "/ip", text(ingress, "/hostname")).to_owned())
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

pub(super) fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut addresses = Vec::new();
    for subset in items(object, "/subsets") {
        let ready = || items(subset, "/addresses").map(|address| text(address, "/ip"));
        if items(subset, "/ports").len() == 0 {
            addresses.extend(ready().map(str::to_owned));
        }
        for port in items(subset, "/ports") {
            addresses.extend(ready().map(|address| format!("{address}:{}", number(port, "/port"))));
        }
    }
    let shown = if items(object, "/subsets").len() == 0 { NONE.to_owned() } else { first_few(&addresses, SHOWN) };
    vec![name(object), json!(shown), age(object, now)]
}

pub(super) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = items(object, "/ports")
        .map(|port| match (&port["port"], text(port, "/name")) {
            (Value::Null, "") => "*".to_owned(),
            (Value::Null, name) => name.to_owned(),
            (number, _) => plain(number),
        })
        .collect();
    let addresses: Vec<String> =
        items(object, "/endpoints").flat_map(|endpoint| items(endpoint, "/addresses")).map(plain).collect();
    let or_unset = |texts: &[String]| if texts.is_empty() { "<unset>".to_owned() } else { first_few(texts, SHOWN) };
    vec![
        name(object),
        json!(text(object, "/addressType")),
        json!(or_unset(&ports)),
        json!(or_unset(&addresses)),
        age(object, now),
    ]
}

pub(super) fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let rules: Vec<String> = items(object, "/spec/rules").map(|rule| text(rule, "/host").to_owned()).collect();
    let hosts: Vec<String> = rules.iter().filter(|host| !host.is_empty()).cloned().collect();
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        count if count > SHOWN => format!("{} + {} more...", hosts[..SHOWN].join(","), rules.len() - SHOWN),
        _ => hosts.join(","),
    };
    vec![
        name(object),
        json!(text_or(object, "/spec/ingressClassName", NONE)),
        json!(hosts),
        json!(balancer_addresses(object).join(",")),
        json!(if items(object, "/spec/tls").len() == 0 { "80" } else { "80, 443" }),
        age(object, now),
    ]
}

pub(super) fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), json!(selector(&object["spec"]["podSelector"])), age(object, now)]
}

pub(super) fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = object.pointer("/spec/parameters").map_or_else(
        || NONE.to_owned(),
        |parameters| {
            let group = text(parameters, "/apiGroup");
            let kind = text(parameters, "/kind");
            let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            format!("{kind}/{}", text(parameters, "/name"))
        },
    );
    vec![name(object), json!(text(object, "/spec/controller")), json!(parameters), age(object, now)]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::{endpoint_slice, endpoints, service};

    #[test]
    fn services_show_their_addresses_and_ports() {
        let row =
            |spec: serde_json::Value| service(&json!({"metadata": {"name": "s"}, "spec": spec}), Timestamp::UNIX_EPOCH);
        let plain = row(
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.5", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}),
        );
        assert_eq!((&plain[2], &plain[3], &plain[4]), (&json!("10.0.0.5"), &json!("<none>"), &json!("80/TCP,53/UDP")));
        let balanced =
            row(json!({"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}));
        assert_eq!((&balanced[3], &balanced[4]), (&json!("<pending>"), &json!("80:30080/TCP")));
        assert_eq!(row(json!({"type": "ExternalName", "externalName": "example.com"}))[3], "example.com");
    }

    #[test]
    fn endpoints_show_three_addresses() {
        let addresses = json!([{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}, {"ip": "1.1.1.3"}, {"ip": "1.1.1.4"}]);
        let object = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(endpoints(&object, Timestamp::UNIX_EPOCH)[1], "1.1.1.1:80,1.1.1.2:80,1.1.1.3:80 + 1 more...");
        assert_eq!(endpoints(&json!({}), Timestamp::UNIX_EPOCH)[1], "<none>");
        assert_eq!(endpoint_slice(&json!({}), Timestamp::UNIX_EPOCH)[2], "<unset>");
    }
}
