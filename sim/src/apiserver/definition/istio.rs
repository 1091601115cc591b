//! Istio's kinds, as a cluster has them on which Istio is installed.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// The schema of each kind's spec.
static SPECS: LazyLock<Value> =
    LazyLock::new(|| serde_saphyr::from_str(include_str!("istio.yaml")).unwrap_or_default());

/// The versions that Istio serves; the first one is stored.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha3"];

/// The definitions of the kinds that the traffic goes by.
pub(super) fn definitions() -> Vec<Value> {
    [
        ("VirtualService", "virtualservices", "vs"),
        ("DestinationRule", "destinationrules", "dr"),
        ("Gateway", "gateways", "gw"),
    ]
    .map(|(kind, plural, short)| definition(kind, plural, short))
    .into()
}

fn definition(kind: &str, plural: &str, short: &str) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": SPECS[kind], "status": open}});
    let versions = VERSIONS.iter().enumerate().map(|(index, name)| {
        json!({
            "name": name, "served": true, "storage": index == 0, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}}, "additionalPrinterColumns": columns(kind),
        })
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.networking.istio.io")},
        "spec": {
            "group": "networking.istio.io", "scope": "Namespaced",
            "names": {
                "kind": kind, "plural": plural, "shortNames": [short], "categories": ["istio-io", "networking-istio-io"],
            },
            "versions": versions.collect::<Vec<Value>>(),
        },
    })
}

fn columns(kind: &str) -> Value {
    let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
    let text = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
    match kind {
        "VirtualService" => json!([text("Gateways", ".spec.gateways"), text("Hosts", ".spec.hosts"), age]),
        "DestinationRule" => json!([text("Host", ".spec.host"), age]),
        _ => json!([]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use serde_json::json;

    use crate::apiserver::definition::resource_type;

    #[test]
    fn every_kind_of_istio_has_a_schema_that_knows_its_fields() {
        for definition in super::definitions() {
            let mut definition = definition;
            crate::apiserver::definition::establish(
                &mut definition,
                &crate::clock::Clock::new(jiff::Timestamp::UNIX_EPOCH),
            );
            assert_eq!(crate::apiserver::definition::checks::problems(&definition), []);
            let resource = resource_type(&definition).unwrap();
            let [first, second, third] = &resource.versions[..] else { panic!("{}", resource.kind) };
            let number = |version: &crate::store::ResourceVersion| version.schema.as_ref().unwrap().number();
            // One schema, compiled once.
            assert!(number(first) == number(second) && number(second) == number(third));
            let schema = first.schema.as_ref().unwrap();
            assert!(schema.property("spec").unwrap().has_properties(), "{}", resource.kind);
            let mut object = json!({"spec": {"typo": 1}});
            assert_eq!(schema.conform(&mut object).unknown_fields, ["spec.typo"]);
        }
    }
}
