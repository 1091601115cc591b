//! The log, on standard error.
//!
//! JSON lines carry the keys of Flagger's logging library (`level`, `ts`, `logger`, `caller`, `msg`), so that pipelines
//! which read Flagger's log read this one.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::args::{LogEncoding, LogLevel};

/// Starts logging. RUST_LOG wins over `level` if it is set.
///
/// # Errors
/// If the process logs already.
pub fn init(level: LogLevel, encoding: LogEncoding) -> Result<(), TryInitError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::new(directives),
        _ => EnvFilter::new(directives(level)),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match encoding {
        LogEncoding::Json => registry.with(layer.fmt_fields(JsonFields::new()).event_format(ZapJson)).try_init(),
        LogEncoding::Console => registry.with(layer.with_ansi(io::stderr().is_terminal())).try_init(),
    }
}

/// Libraries say at `debug` what only their authors want to know, and kube logs every failed request, which its caller
/// logs too.
fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => {
            "info,kube_client::client::builder=off,aviary=debug,aviary_actors=debug,aviary_providers=debug"
        }
        LogLevel::Info => "info,kube_client::client::builder=off",
        LogLevel::Warn => "warn,kube_client::client::builder=off",
        LogLevel::Error => "error,kube_client::client::builder=off",
        LogLevel::Off => "off",
    }
}

/// One JSON object per event, with the fields of the spans around it.
struct ZapJson;

impl<S, N> FormatEvent<S, N> for ZapJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            let extensions = span.extensions();
            let formatted = extensions.get::<FormattedFields<N>>().map_or("", |formatted| formatted.fields.as_str());
            if let Ok(Value::Object(of_span)) = serde_json::from_str(formatted) {
                fields.0.extend(of_span);
            }
        }
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap_or_default();
        let metadata = event.metadata();
        #[expect(clippy::disallowed_methods, reason = "a log line carries the time at which it is written")]
        let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        write!(writer, "{{\"level\":\"{}\",\"ts\":\"{time}\"", level_name(*metadata.level()))?;
        write!(writer, ",\"logger\":{}", Value::from(metadata.target()))?;
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            write!(writer, ",\"caller\":{}", Value::from(format!("{file}:{line}")))?;
        }
        write!(writer, ",\"msg\":{message}")?;
        for (name, value) in &fields.0 {
            write!(writer, ",{}:{value}", Value::from(name.as_str()))?;
        }
        writer.write_str("}\n")
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a String only fails where a Debug implementation does.
        let _ = write!(text, "{value:?}");
        self.put(field, text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_keys_that_pipelines_know() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer().fmt_fields(JsonFields::new()).event_format(ZapJson);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("canary.step", namespace = "test", epoch = 3).entered();
            tracing::info!(canary = "podinfo.test", "Advance {} canary \"weight\" {}", "podinfo.test", 10);
            tracing::warn!(error = %"refused", "watch failed");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["level"], "info");
        assert_eq!(lines[0]["msg"], "Advance podinfo.test canary \"weight\" 10");
        assert_eq!(lines[0]["canary"], "podinfo.test");
        assert_eq!((&lines[0]["namespace"], &lines[0]["epoch"]), (&Value::from("test"), &Value::from(3)));
        assert!(lines[0]["caller"].as_str().unwrap().contains("logging.rs:"));
        assert!(lines[0]["ts"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!((&lines[1]["level"], &lines[1]["error"]), (&Value::from("warn"), &Value::from("refused")));
    }
}
