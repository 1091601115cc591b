//! The MetricTemplate resource: a query that canaries share.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::resource::flagger_resource;
use crate::serde_helpers::null_as_default;

/// A query and the backend that answers it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct MetricTemplate {
    /// Name, namespace and the rest.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    pub spec: MetricTemplateSpec,
    /// Declared by Flagger but never written, and without a schema. Kept as it is.
    #[serde(default)]
    pub status: Option<Value>,
}

flagger_resource!(MetricTemplate, kind: "MetricTemplate", plural: "metrictemplates");

/// `spec` of a [`MetricTemplate`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricTemplateSpec {
    /// The backend.
    pub provider: MetricTemplateProvider,
    /// The query, a template with the functions `name`, `namespace`, `target`, `service`, `ingress`, `route`,
    /// `interval` and `variables`.
    pub query: String,
}

/// The backend of a [`MetricTemplate`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricTemplateProvider {
    /// Type, such as `prometheus` or `datadog`.
    #[serde(rename = "type")]
    pub provider_type: String,
    /// Address of its API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Headers of each request.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Secret with the credentials, in the namespace of the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// Region (CloudWatch, New Relic).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the certificate of the backend is not checked. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// Names a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretReference {
    /// Name.
    pub name: String,
}
