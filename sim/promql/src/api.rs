//! Prometheus' HTTP API: the JSON of answers and errors, and the text forms of parameters that need no calendar.

use std::fmt::Write as _;

use crate::engine::QueryValue;
use crate::error::QueryError;
use crate::labels::Labels;
use crate::number::format_float;
use crate::series::Sample;

/// An error as the HTTP API reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status code.
    pub status: u16,
    /// Prometheus' class of errors: `bad_data`, `execution`, `timeout`, `unavailable`, …
    pub error_type: &'static str,
    /// The text for people.
    pub message: String,
}

impl ApiError {
    /// A malformed request (400).
    #[must_use]
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self { status: 400, error_type: "bad_data", message: message.into() }
    }

    /// A query that cannot be evaluated (422).
    #[must_use]
    pub fn execution(message: impl Into<String>) -> Self {
        Self { status: 422, error_type: "execution", message: message.into() }
    }

    /// A query that took too long (503).
    #[must_use]
    pub fn timeout(message: impl Into<String>) -> Self {
        Self { status: 503, error_type: "timeout", message: message.into() }
    }

    /// A server that does not answer queries now (503).
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { status: 503, error_type: "unavailable", message: message.into() }
    }

    /// The body of the response.
    #[must_use]
    pub fn body(&self) -> String {
        let mut json = String::from("{\"status\":\"error\",\"errorType\":");
        push_string(&mut json, self.error_type);
        json.push_str(",\"error\":");
        push_string(&mut json, &self.message);
        json.push('}');
        json
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::BadData(message) => Self::bad_data(message),
            QueryError::Execution(message) => Self::execution(message),
            unsupported @ QueryError::Unsupported { .. } => Self::execution(unsupported.to_string()),
        }
    }
}

/// The body of a successful response.
#[must_use]
pub fn success_body(value: &QueryValue) -> String {
    let (result_type, result) = match value {
        QueryValue::Scalar { at_ms, value } => ("scalar", point((*at_ms, *value))),
        QueryValue::Text { at_ms, value } => {
            let mut json = format!("[{},", timestamp(*at_ms));
            push_string(&mut json, value);
            json.push(']');
            ("string", json)
        }
        QueryValue::Vector(samples) => {
            let elements = samples.iter().map(|sample| {
                format!("{},\"value\":{}}}", opened(&sample.labels), point((sample.at_ms, sample.value)))
            });
            ("vector", list(elements))
        }
        QueryValue::Matrix(series) => {
            let elements = series.iter().map(|series| {
                format!("{},\"values\":{}}}", opened(&series.labels), list(series.samples.iter().copied().map(point)))
            });
            ("matrix", list(elements))
        }
    };
    format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"{result_type}\",\"result\":{result}}}}}")
}

/// The `step` or `timeout` parameter, seconds or a Prometheus duration, in milliseconds.
///
/// # Errors
/// [`ApiError`] `bad_data` in Prometheus' words; `name` is the parameter's.
#[allow(clippy::cast_possible_truncation)]
pub fn parse_duration(name: &str, text: &str) -> Result<i64, ApiError> {
    let refuse = |reason: String| ApiError::bad_data(format!("invalid parameter \"{name}\": {reason}"));
    if let Ok(seconds) = text.parse::<f64>() {
        let milliseconds = seconds * 1000.0;
        // Beyond this the server's nanoseconds overflow; Prometheus refuses at the same point.
        if !milliseconds.is_finite() || milliseconds.abs() > 9.223_372_036e12 {
            return Err(refuse(format!("cannot parse {text:?} to a valid duration. It overflows int64")));
        }
        return Ok(milliseconds as i64);
    }
    promql_parser::util::parse_duration(text)
        .ok()
        .and_then(|duration| i64::try_from(duration.as_millis()).ok())
        .ok_or_else(|| refuse(format!("cannot parse {text:?} to a valid duration")))
}

fn opened(labels: &Labels) -> String {
    let mut json = String::from("{\"metric\":{");
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        push_string(&mut json, name);
        json.push(':');
        push_string(&mut json, value);
    }
    json.push('}');
    json
}

fn list(elements: impl Iterator<Item = String>) -> String {
    let mut json = String::from("[");
    for (index, element) in elements.enumerate() {
        if index > 0 {
            json.push(',');
        }
        json.push_str(&element);
    }
    json.push(']');
    json
}

fn point((at_ms, value): Sample) -> String {
    format!("[{},\"{}\"]", timestamp(at_ms), format_float(value))
}

/// Seconds with exactly three decimals, or none at a whole second.
fn timestamp(at_ms: i64) -> String {
    let sign = if at_ms < 0 { "-" } else { "" };
    let magnitude = at_ms.unsigned_abs();
    let mut text = format!("{sign}{}", magnitude / 1000);
    if !magnitude.is_multiple_of(1000) {
        // Writing to a String cannot fail.
        let _ = write!(text, ".{:03}", magnitude % 1000);
    }
    text
}

fn push_string(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::series::MemorySource;
    use crate::{evaluate, evaluate_range};

    fn source() -> MemorySource {
        let mut source = MemorySource::default();
        source.append(&[("__name__", "up"), ("job", "a\"b")], 1_000, 0.5);
        source
    }

    #[test]
    fn answers_have_the_shape_of_prometheus() {
        let instant = |query| success_body(&evaluate(&source(), query, 1_050).unwrap());
        assert_eq!(
            instant("up"),
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a\"b"},"value":[1.050,"0.5"]}]}}"#
        );
        assert_eq!(
            instant("vector(0) / 0"),
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.050,"NaN"]}]}}"#
        );
        assert_eq!(instant("nothing"), r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
        assert_eq!(instant("1"), r#"{"status":"success","data":{"resultType":"scalar","result":[1.050,"1"]}}"#);
        assert_eq!(instant("\"x\""), r#"{"status":"success","data":{"resultType":"string","result":[1.050,"x"]}}"#);
        assert_eq!(
            instant("up[1m]"),
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"a\"b"},"values":[[1,"0.5"]]}]}}"#
        );
        assert_eq!(
            success_body(&evaluate_range(&source(), "-up", 1_000, 3_000, 1_500).unwrap()),
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"job":"a\"b"},"values":[[1,"-0.5"],[2.500,"-0.5"]]}]}}"#
        );
    }

    #[test]
    fn errors_have_class_and_status() {
        let error = |query| ApiError::from(evaluate(&source(), query, 0).unwrap_err());
        let malformed = error("sum(");
        assert_eq!((malformed.status, malformed.error_type), (400, "bad_data"));
        assert_eq!(malformed.message, "invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis");
        let unsupported = error("predict_linear(up[5m], 60)");
        assert_eq!((unsupported.status, unsupported.error_type), (422, "execution"));
        assert_eq!(
            unsupported.body(),
            r#"{"status":"error","errorType":"execution","error":"evaluate query: function predict_linear is not supported by this engine"}"#
        );
    }

    #[test]
    fn durations_are_seconds_or_prometheus_durations() {
        assert_eq!(parse_duration("step", "15"), Ok(15_000));
        assert_eq!(parse_duration("step", "0.5"), Ok(500));
        assert_eq!(parse_duration("step", "1m30s"), Ok(90_000));
        assert_eq!(
            parse_duration("step", "soon").unwrap_err().message,
            "invalid parameter \"step\": cannot parse \"soon\" to a valid duration"
        );
    }
}
