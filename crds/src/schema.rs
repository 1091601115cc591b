//! The CustomResourceDefinitions, built in code and checked in as YAML under `crds/yaml`.
//!
//! They admit whatever Flagger's do, so that they can be installed over them, and nothing that Flagger's refuse, so
//! that the way back stays open. The only additions are optional fields: three of the status, and those of Flagger 0.1, whose
//! canaries are served as [`v1alpha1`] beside `v1beta1`.

mod analysis;
mod birdwatch;
mod builder;
mod canary;
mod providers;
mod service;
mod steerer;
mod traffic_policy;

use serde_json::{Value, json};
use thiserror::Error;

use crate::names::{GROUP, VERSION};
use crate::v1alpha1;
use builder::Schema;

/// Why a CRD could not be written.
#[derive(Debug, Error)]
#[error("write the CustomResourceDefinition as YAML")]
pub struct WriteError(#[from] serde_saphyr::ser_error::Error);

/// All CustomResourceDefinitions: Canary, MetricTemplate, AlertProvider, and those of the other systems.
pub fn all_crds() -> Vec<Value> {
    vec![
        with_v1alpha1(definition(
            "Canary",
            "canary",
            "canaries",
            &canary::printer_columns(),
            resource("A canary automates the release of one workload.", canary::spec(), Some(canary::status())),
        )),
        definition(
            "MetricTemplate",
            "metrictemplate",
            "metrictemplates",
            &json!([{"name": "Provider", "type": "string", "jsonPath": ".spec.provider.type"}]),
            resource(
                "A metric template is a query that the analyses of many canaries can share.",
                providers::metric_template_spec(),
                None,
            ),
        ),
        definition(
            "AlertProvider",
            "alertprovider",
            "alertproviders",
            &json!([{"name": "Type", "type": "string", "jsonPath": ".spec.type"}]),
            resource("An alert provider is a channel that alerts go to.", providers::alert_provider_spec(), None),
        ),
        rollout(),
        birdwatch(),
    ]
}

/// The definition of Steerer's Rollout, of another group than ours.
fn rollout() -> Value {
    let mut definition = definition(
        crate::steerer::KIND,
        "rollout",
        "rollouts",
        &steerer::printer_columns(),
        resource("A rollout releases one Deployment's pods to another.", steerer::spec(), Some(steerer::status())),
    );
    let group = crate::steerer::GROUP;
    definition["metadata"]["name"] = json!(format!("rollouts.{group}"));
    definition["spec"]["group"] = json!(group);
    definition["spec"]["names"]["shortNames"] = json!(["roll"]);
    definition["spec"]["versions"][0]["name"] = json!(crate::steerer::VERSION);
    definition
}

/// The definition of BirdWatch, of another group and version than ours.
fn birdwatch() -> Value {
    let mut definition = definition(
        crate::birdwatch::KIND,
        "birdwatch",
        "birdwatches",
        &birdwatch::printer_columns(),
        resource("A BirdWatch releases one version of one service.", birdwatch::spec(), Some(birdwatch::status())),
    );
    let group = crate::birdwatch::GROUP;
    definition["metadata"]["name"] = json!(format!("birdwatches.{group}"));
    definition["spec"]["group"] = json!(group);
    definition["spec"]["names"]["shortNames"] = json!(["bw"]);
    definition["spec"]["versions"][0]["name"] = json!(crate::birdwatch::VERSION);
    definition
}

/// One definition as YAML, with keys in alphabetical order.
///
/// # Errors
/// If the value has a form that YAML cannot express; those of [`all_crds`] have none.
pub fn definition_to_yaml(definition: &Value) -> Result<String, WriteError> {
    const NOTICE: &str = "# Generated: UPDATE_GENERATED=1 cargo test -p aviary-crds\n";
    Ok(format!("{NOTICE}{}", serde_saphyr::to_string(definition)?))
}

/// All definitions in one stream, ready for `kubectl apply`.
///
/// # Errors
/// As [`definition_to_yaml`].
pub fn to_yaml() -> Result<String, WriteError> {
    let documents: Vec<String> = all_crds().iter().map(definition_to_yaml).collect::<Result<_, _>>()?;
    Ok(documents.join("---\n"))
}

/// What surrounds every schema.
fn definition(kind: &str, singular: &str, plural: &str, printer_columns: &Value, schema: Schema) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            // Without this, removing the chart would remove every canary.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": singular,
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": printer_columns,
                "schema": {"openAPIV3Schema": schema.into_value()},
            }],
        },
    })
}

/// Serves Flagger 0.1's version as well. The schema is the same: an object that is written in one version is stored in the other,
/// and what a narrower schema does not know would be cut away on the way.
fn with_v1alpha1(mut definition: Value) -> Value {
    if let Some(versions) = definition["spec"]["versions"].as_array_mut()
        && let Some(mut older) = versions.first().cloned()
    {
        older["name"] = json!(v1alpha1::VERSION);
        older["storage"] = json!(false);
        older["additionalPrinterColumns"] = canary::printer_columns_of_v1alpha1();
        versions.push(older);
    }
    definition
}

/// The outer shape of a resource.
fn resource(description: &str, spec: Schema, status: Option<Schema>) -> Schema {
    let outer = [
        ("apiVersion", Schema::string("Group and version of this resource.")),
        ("kind", Schema::string("Kind of this resource.")),
        ("metadata", Schema::plain_object()),
        ("spec", spec),
    ];
    Schema::object(description, outer.into_iter().chain(status.map(|status| ("status", status))))
}
