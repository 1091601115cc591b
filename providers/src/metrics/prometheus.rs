//! Prometheus and what speaks its HTTP API.

use std::collections::BTreeMap;
use std::fmt;

use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::Value;

use super::{HttpRequest, MetricError, MetricsProvider, ProviderConfig, check_status, error_text};

/// Prometheus' instant queries.
///
/// - Address: its path is kept (`http://host/prom` is asked at `/prom/api/v1/query`), its query is dropped.
/// - Secret: `token` is sent as a bearer token; otherwise `username` and `password` as basic auth.
/// - Of several series the last one counts, as in Flagger.
#[derive(Clone, Copy, Debug)]
pub struct Prometheus;

const PROBE: &str = "vector(1)";

impl MetricsProvider for Prometheus {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn request(&self, config: &ProviderConfig, query: &str, _now: Timestamp) -> Result<HttpRequest, MetricError> {
        let url = format!("{}?{}", query_url(&config.address)?, query_parameter(query));
        authorized(HttpRequest::get(url), config)
    }

    fn parse(&self, status: u16, body: &[u8]) -> Result<f64, MetricError> {
        let series = parse_vector(status, body)?;
        match series.last() {
            Some(last) if !last.value.is_nan() => Ok(last.value),
            _ => Err(MetricError::NoValues),
        }
    }

    fn probe(&self, config: &ProviderConfig, now: Timestamp) -> Result<HttpRequest, MetricError> {
        self.request(config, PROBE, now)
    }

    fn check_probe(&self, status: u16, body: &[u8]) -> Result<(), MetricError> {
        let value = self.parse(status, body)?;
        if value == 1.0 {
            return Ok(());
        }
        Err(MetricError::Invalid(format!("{PROBE} returned {value}, expected 1")))
    }
}

impl Prometheus {
    /// The same question as a form, for queries that are too long for an address: proxies refuse those from 8 KB on.
    ///
    /// # Errors
    /// [`MetricError::Invalid`] if the configuration cannot be used.
    pub fn form_request(&self, config: &ProviderConfig, query: &str) -> Result<HttpRequest, MetricError> {
        let mut request = HttpRequest::get(query_url(&config.address)?);
        request.method = Method::POST;
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers.insert(CONTENT_TYPE, form);
        request.body = query_parameter(query).into_bytes();
        authorized(request, config)
    }
}

/// With the headers and credentials of the backend.
fn authorized(mut request: HttpRequest, config: &ProviderConfig) -> Result<HttpRequest, MetricError> {
    request.insecure_skip_verify = config.insecure_skip_verify;
    for (name, values) in &config.headers {
        let name = HeaderName::try_from(name.as_str())
            .map_err(|_| MetricError::Invalid(format!("header name {name:?} is not valid")))?;
        for value in values {
            let mut value = HeaderValue::try_from(value.as_str())
                .map_err(|_| MetricError::Invalid(format!("value of header {name} is not valid")))?;
            // Tenants keep API keys in custom headers.
            value.set_sensitive(true);
            request.headers.append(name.clone(), value);
        }
    }
    if let Some(secret) = &config.secret {
        request.headers.insert(AUTHORIZATION, authorization(secret)?);
    }
    Ok(request)
}

/// One sample of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    status: String,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    #[serde(default)]
    result_type: String,
    #[serde(default)]
    result: Value,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Option<(Value, String)>,
    values: Option<Value>,
}

/// The samples of an instant vector, in the order of the answer. NaN is a value here.
///
/// What is not an answer of Prometheus at all (a login page, a body that was cut off) says as little about the canary as
/// no answer: somebody else answered, or half of it.
pub(crate) fn parse_vector(status: u16, body: &[u8]) -> Result<Vec<Series>, MetricError> {
    check_status(status, body)?;
    let response: Response = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if response.status == "error" {
        return Err(reported(&response));
    }
    let data = response.data.ok_or_else(|| malformed(&"it has no data"))?;
    if matches!(data.result_type.as_str(), "scalar" | "string") {
        return Err(MetricError::WrongType(data.result_type));
    }
    if data.result.is_null() {
        return Ok(Vec::new());
    }
    let entries: Vec<Entry> = serde_json::from_value(data.result).map_err(|error| malformed(&error))?;
    entries.into_iter().map(series).collect()
}

fn malformed(cause: &dyn fmt::Display) -> MetricError {
    MetricError::Unavailable(format!("error decoding the answer: {cause}"))
}

/// An error in the body of a response that claims to be good, as some proxies make of it. Prometheus gives these two types
/// with 400 and 422, the others with 5xx.
fn reported(response: &Response) -> MetricError {
    let text = format!("{}: {}", response.error_type, error_text(response.error.as_bytes()));
    match response.error_type.as_str() {
        "bad_data" | "execution" => MetricError::Invalid(text),
        _ => MetricError::Unavailable(text),
    }
}

fn series(entry: Entry) -> Result<Series, MetricError> {
    if entry.values.is_some() {
        return Err(MetricError::MultipleValues);
    }
    let Some((_, text)) = entry.value else {
        return Err(MetricError::Invalid("a series of the answer has no value (a native histogram?)".into()));
    };
    // Prometheus writes NaN, +Inf and -Inf, which Rust reads in any case.
    let value = text.parse().map_err(|_| malformed(&format_args!("value {text:?} is not a number")))?;
    Ok(Series { labels: entry.metric, value })
}

fn query_url(address: &str) -> Result<String, MetricError> {
    let invalid = |cause: &str| MetricError::Invalid(format!("address {:?} {cause}", without_userinfo(address)));
    if address.is_empty() {
        return Err(MetricError::Invalid("address is empty".into()));
    }
    let uri: http::Uri = address.parse().map_err(|_| invalid("is not a valid URL"))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(invalid("is not an http or https URL"));
    };
    let path = uri.path().trim_end_matches('/');
    Ok(format!("{scheme}://{authority}{path}/api/v1/query"))
}

fn query_parameter(query: &str) -> String {
    let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("query={}", percent_encode(&query))
}

fn without_userinfo(address: &str) -> String {
    match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}…{}", &address[..scheme + 3], &address[at..]),
        _ => address.to_owned(),
    }
}

/// RFC 3986: everything but unreserved characters is escaped.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn authorization(secret: &BTreeMap<String, Vec<u8>>) -> Result<HeaderValue, MetricError> {
    let text = |key: &str| {
        let bytes = secret.get(key)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let credentials = if let Some(token) = text("token") {
        // Secrets made from files end in a newline more often than not.
        format!("Bearer {}", token.trim_end())
    } else {
        let username = text("username").ok_or_else(|| missing_key("username"))?;
        let password = text("password").ok_or_else(|| missing_key("password"))?;
        format!("Basic {}", base64(format!("{username}:{password}").into_bytes())?)
    };
    let mut value = HeaderValue::try_from(credentials)
        .map_err(|_| MetricError::Invalid("credentials of the secret cannot be sent in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn missing_key(key: &str) -> MetricError {
    MetricError::Invalid(format!("prometheus credentials does not contain a {key}"))
}

/// The encoding that Kubernetes uses for Secret data is the one that basic auth wants.
fn base64(bytes: Vec<u8>) -> Result<String, MetricError> {
    match serde_json::to_value(ByteString(bytes)) {
        Ok(Value::String(text)) => Ok(text),
        _ => Err(MetricError::Invalid("credentials cannot be encoded".into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn value(body: &str) -> Result<f64, MetricError> {
        Prometheus.parse(200, body.as_bytes())
    }

    fn vector(values: &[&str]) -> String {
        let result: Vec<_> =
            values.iter().map(|value| serde_json::json!({"metric": {}, "value": [1.5, value]})).collect();
        serde_json::json!({"status": "success", "data": {"resultType": "vector", "result": result}}).to_string()
    }

    fn request(config: &ProviderConfig, query: &str) -> Result<HttpRequest, MetricError> {
        Prometheus.request(config, query, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn answers_are_read_as_flagger_reads_them() {
        assert_eq!(value(&vector(&["100"])), Ok(100.0));
        assert_eq!(value(&vector(&["1", "2"])), Ok(2.0));
        assert_eq!(value(&vector(&["+Inf"])), Ok(f64::INFINITY));
        assert_eq!(value(&vector(&[])), Err(MetricError::NoValues));
        assert_eq!(value(&vector(&["NaN"])), Err(MetricError::NoValues));
        assert_eq!(
            value(r#"{"status":"success","data":{"resultType":"vector","result":null}}"#),
            Err(MetricError::NoValues)
        );
        let matrix = r#"{"data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]]}]}}"#;
        assert_eq!(value(matrix), Err(MetricError::MultipleValues));
    }

    #[test]
    fn answers_without_a_value_are_errors_and_no_panic() {
        let histogram = r#"{"data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}"#;
        assert!(matches!(value(histogram), Err(MetricError::Invalid(_))));
        for (kind, result) in [("scalar", r#"[1,"1"]"#), ("string", r#"[1,"many"]"#)] {
            let body = format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#);
            assert_eq!(value(&body), Err(MetricError::WrongType(kind.into())));
        }
    }

    #[test]
    fn an_answer_that_is_not_one_of_prometheus_is_no_answer() {
        let whole = vector(&["100"]);
        let cut = &whole[..whole.len() - 9];
        for body in ["<html>Please log in</html>", "", "{}", r#"{"status":"success"}"#, "[]", cut, &vector(&["many"])] {
            let error = value(body);
            assert!(
                matches!(&error, Err(MetricError::Unavailable(text)) if text.starts_with("error decoding the answer")),
                "{body}: {error:?}"
            );
        }
    }

    #[test]
    fn an_error_in_a_good_response_is_judged_by_its_type() {
        let body = |kind: &str| format!(r#"{{"status":"error","errorType":"{kind}","error":"so it is"}}"#);
        for kind in ["timeout", "canceled", "internal", "unavailable", ""] {
            let error = MetricError::Unavailable(format!("{kind}: so it is"));
            assert_eq!(value(&body(kind)), Err(error));
        }
        assert_eq!(value(&body("bad_data")), Err(MetricError::Invalid("bad_data: so it is".into())));
        assert_eq!(value(&body("execution")), Err(MetricError::Invalid("execution: so it is".into())));
    }

    #[test]
    fn an_outage_is_told_from_a_refused_query() {
        let refused = Prometheus.parse(400, br#"{"error":"parse error"}"#);
        assert_eq!(refused, Err(MetricError::Status { code: 400, body: r#"{"error":"parse error"}"#.into() }));
        assert_eq!(refused.unwrap_err().to_string(), r#"error response 400: {"error":"parse error"}"#);
        for status in [429, 500, 503] {
            assert!(matches!(Prometheus.parse(status, b"busy"), Err(MetricError::Unavailable(_))), "{status}");
        }
    }

    #[test]
    fn the_path_of_the_address_is_kept_and_whitespace_collapsed() {
        let config = ProviderConfig::metrics_server("http://u:p@h:9090/prom/?drop=me");
        let request = request(&config, "sum(\n  rate(x{a=\"b\"}[1m])\t)").unwrap();
        assert_eq!(
            request.url,
            "http://u:p@h:9090/prom/api/v1/query?query=sum%28%20rate%28x%7Ba%3D%22b%22%7D%5B1m%5D%29%20%29"
        );
    }

    #[test]
    fn unusable_addresses_are_refused_without_showing_the_password() {
        for address in ["", "prometheus:9090", "ftp://h", "/path", "http://"] {
            assert!(
                matches!(request(&ProviderConfig::metrics_server(address), "x"), Err(MetricError::Invalid(_))),
                "{address}"
            );
        }
        let error = request(&ProviderConfig::metrics_server("ftp://u:hunter2@h"), "x").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn credentials_come_from_the_secret_and_never_pile_up() {
        let secret = |entries: &[(&str, &str)]| {
            Some(entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect())
        };
        let mut config = ProviderConfig::metrics_server("https://h");
        config.headers = BTreeMap::from([("X-Scope".into(), vec!["a".into(), "b".into()])]);
        config.secret = secret(&[("token", "t0k\n")]);
        for _ in 0..2 {
            let request = request(&config, "x").unwrap();
            assert_eq!(request.headers.get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), ["Bearer t0k"]);
            assert_eq!(request.headers.get_all("x-scope").iter().collect::<Vec<_>>(), ["a", "b"]);
            assert!(!format!("{request:?}{config:?}").contains("t0k"));
        }
        config.secret = secret(&[("username", "user"), ("password", "pass")]);
        assert_eq!(request(&config, "x").unwrap().headers[AUTHORIZATION], "Basic dXNlcjpwYXNz");
        config.secret = secret(&[("username", "user")]);
        let error = request(&config, "x").unwrap_err();
        assert_eq!(error.to_string(), "prometheus credentials does not contain a password");
    }

    #[test]
    fn the_probe_wants_a_one() {
        assert_eq!(Prometheus.check_probe(200, vector(&["1"]).as_bytes()), Ok(()));
        assert!(Prometheus.check_probe(200, vector(&["2"]).as_bytes()).is_err());
        assert!(Prometheus.check_probe(503, b"").is_err());
    }
}
