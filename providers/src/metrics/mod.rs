//! Metric backends (`MetricTemplate.spec.provider`), the two built-in metrics, and the templates of queries.

pub mod flagger_v1alpha1;
pub mod grouped;
pub mod lint;
mod prometheus;
pub mod template;

use std::collections::BTreeMap;
use std::fmt;

use aviary_crds::MetricTemplate;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use kube::core::DynamicObject;
use thiserror::Error;

pub use crate::http_request::{HttpRequest, REQUEST_TIMEOUT};
pub use prometheus::Prometheus;

/// A metric that needs no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BuiltinMetric {
    /// `request-success-rate`: percent of requests that did not end in a 5xx.
    RequestSuccessRate,
    /// `request-duration`: 99th percentile in milliseconds.
    RequestDuration,
}

impl BuiltinMetric {
    /// As in `metrics[].name`.
    pub fn name(self) -> &'static str {
        match self {
            BuiltinMetric::RequestSuccessRate => "request-success-rate",
            BuiltinMetric::RequestDuration => "request-duration",
        }
    }

    /// The built-in metric of this name.
    pub fn from_name(name: &str) -> Option<BuiltinMetric> {
        [BuiltinMetric::RequestSuccessRate, BuiltinMetric::RequestDuration]
            .into_iter()
            .find(|metric| metric.name() == name)
    }
}

/// Where a metric is asked for, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// Address of the backend. May carry userinfo.
    pub address: String,
    /// Headers of each request.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Decoded data of the Secret; `None` when none is referenced.
    pub secret: Option<BTreeMap<String, Vec<u8>>>,
    /// Region (CloudWatch, New Relic).
    pub region: Option<String>,
    /// Whether the certificate of the backend is not checked.
    pub insecure_skip_verify: bool,
}

impl ProviderConfig {
    /// The metrics server for built-in and inline metrics. Credentials can only be part of the address.
    pub fn metrics_server(address: &str) -> ProviderConfig {
        ProviderConfig {
            address: address.to_owned(),
            headers: BTreeMap::new(),
            secret: None,
            region: None,
            insecure_skip_verify: false,
        }
    }

    /// The backend of a template. `secret` is the data of the Secret that it references.
    pub fn from_template(template: &MetricTemplate, secret: Option<BTreeMap<String, Vec<u8>>>) -> ProviderConfig {
        let provider = &template.spec.provider;
        ProviderConfig {
            address: provider.address.clone().unwrap_or_default(),
            headers: provider.headers.clone(),
            secret,
            region: provider.region.clone(),
            insecure_skip_verify: provider.insecure_skip_verify.unwrap_or(false),
        }
    }
}

/// Shows no credentials.
impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderConfig")
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("secret_keys", &self.secret.as_ref().map(|secret| secret.keys().collect::<Vec<_>>()))
            .field("insecure_skip_verify", &self.insecure_skip_verify)
            .finish_non_exhaustive()
    }
}

/// The data of a Secret, decoded. Entries that are not base64 are left out; an API server admits none.
pub fn secret_data(secret: &DynamicObject) -> BTreeMap<String, Vec<u8>> {
    let Some(data) = secret.data.get("data").and_then(serde_json::Value::as_object) else { return BTreeMap::new() };
    data.iter()
        .filter_map(|(key, value)| {
            let decoded = serde_json::from_value::<ByteString>(value.clone()).ok()?;
            Some((key.clone(), decoded.0))
        })
        .collect()
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MetricError {
    /// The backend answered with nothing, or with NaN. A failed check, as in Flagger.
    #[error("no values found")]
    NoValues,
    /// The backend answered with a series over time where one value is wanted.
    #[error("query returned multiple values per series, expected one")]
    MultipleValues,
    /// The backend answered with something else than an instant vector. That follows from the query.
    #[error("query returned a {0}, expected an instant vector")]
    WrongType(String),
    /// The backend refused the query: it is broken, and stays so.
    #[error("error response {code}: {body}")]
    Status {
        /// HTTP status, 400–499 but not 429.
        code: u16,
        /// Beginning of the body.
        body: String,
    },
    /// The backend did not answer (connection refused, timeout, 5xx, 429), or something answered that is not the backend.
    /// Never a verdict about the canary.
    #[error("{0}")]
    Unavailable(String),
    /// The configuration cannot be used, or the query is one that gives no single number.
    #[error("{0}")]
    Invalid(String),
}

/// Most of a backend's error text that is kept: enough for Prometheus' parse errors, short enough for an event
/// (1024 bytes).
const ERROR_BODY_LIMIT: usize = 512;

/// Sorts out the HTTP statuses that carry no value.
pub(crate) fn check_status(status: u16, body: &[u8]) -> Result<(), MetricError> {
    if status < 400 {
        return Ok(());
    }
    let body = error_text(body);
    if status >= 500 || status == 429 {
        return Err(MetricError::Unavailable(format!("error response {status}: {body}")));
    }
    Err(MetricError::Status { code: status, body })
}

/// The beginning of an error's text.
fn error_text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim().chars().take(ERROR_BODY_LIMIT).collect()
}

/// A metric backend.
pub trait MetricsProvider: Send + Sync {
    /// `MetricTemplate.spec.provider.type`.
    fn name(&self) -> &'static str;

    /// The request that asks for the value of a rendered query.
    fn request(&self, config: &ProviderConfig, query: &str, now: Timestamp) -> Result<HttpRequest, MetricError>;

    /// The value in an answer. A request that got no answer is [`MetricError::Unavailable`].
    fn parse(&self, status: u16, body: &[u8]) -> Result<f64, MetricError>;

    /// The request that shows whether the backend is there.
    fn probe(&self, config: &ProviderConfig, now: Timestamp) -> Result<HttpRequest, MetricError>;

    /// Whether the answer to a probe is the right one.
    fn check_probe(&self, status: u16, body: &[u8]) -> Result<(), MetricError>;
}

/// All backends of this version. Adding one is its file and a line here.
pub static ALL: &[&dyn MetricsProvider] = &[&Prometheus];

/// The backend of this type. Flagger takes an unknown type for `prometheus`; the schema admits none.
pub fn for_type(provider_type: &str) -> Result<&'static dyn MetricsProvider, MetricError> {
    ALL.iter().find(|provider| provider.name() == provider_type).copied().ok_or_else(|| {
        let known = ALL.iter().map(|provider| provider.name()).collect::<Vec<_>>().join(", ");
        MetricError::Invalid(format!("metric provider {provider_type:?} is not supported yet; supported: {known}"))
    })
}
