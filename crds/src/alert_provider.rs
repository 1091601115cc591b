//! The AlertProvider resource: a channel that alerts go to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::metric_template::SecretReference;
use crate::resource::flagger_resource;

/// A channel for alerts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AlertProvider {
    /// Name, namespace and the rest.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    pub spec: AlertProviderSpec,
    /// Declared by Flagger but never written, and without a schema. Kept as it is.
    #[serde(default)]
    pub status: Option<Value>,
}

flagger_resource!(AlertProvider, kind: "AlertProvider", plural: "alertproviders");

/// `spec` of an [`AlertProvider`]. The schema wants exactly one of `address` and `secretRef`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertProviderSpec {
    /// `slack`, `msteams`, `discord`, `rocket` or `gchat`.
    #[serde(rename = "type")]
    pub provider_type: String,
    /// Channel. Default `general`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Name of the sender. Default `flagger`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Address of the incoming webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// HTTP proxy to go through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Secret in the provider's namespace with the keys `address` (mandatory) and `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
}
