//! `grpc_health_probe` and `ghz`: calls of `grpc.health.v1.Health/Check`.

use std::sync::Arc;

use aviary_load_commands::{Amount, GrpcLoad, GrpcTarget, HealthProbe, HttpVersion};
use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use reqwest::{Client, Url};
use tokio::time::Instant;

use super::Context;
use super::client::{How, SetUpError, builder, why};
use super::outcome::Outcome;
use super::pace::{Pace, Record, drive};

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{}", why(.0))]
    Http(#[from] reqwest::Error),
    #[error("the server answered with status {0}, which is no gRPC")]
    Status(u16),
    #[error("the server answered with code {}{}", code_name(*.0), if .1.is_empty() { String::new() } else { format!(": {}", .1) })]
    Code(u32, String),
    #[error("the server's answer is no HealthCheckResponse")]
    Answer,
}

/// An answer of a health check is some bytes long.
const ANSWER_LIMIT: usize = 4096;

/// Text of a server that is told.
const MESSAGE_LIMIT: usize = 200;

#[derive(Clone)]
struct Caller {
    client: Client,
    url: Url,
    metadata: HeaderMap,
    message: Bytes,
}

impl Caller {
    fn new(target: &GrpcTarget, context: &Context) -> Result<Caller, SetUpError> {
        let (host, port) = target.destination();
        context.targets.check(&host, port)?;
        let how = How {
            version: HttpVersion::Http2,
            timeout: Some(target.timeout),
            connect_timeout: Some(target.connect_timeout),
            redirects: 0,
            keeps_alive: true,
            is_insecure: target.skips_verification,
        };
        let resolver = match &target.authority {
            Some(_) => context.targets.resolver_of(&host, port),
            None => context.targets.resolver(),
        };
        let client = builder(&how).http2_prior_knowledge().dns_resolver(resolver).build();
        let authority = target.authority.as_ref().unwrap_or(&target.address);
        let scheme = if target.is_tls { "https" } else { "http" };
        let url: Url =
            format!("{scheme}://{authority}/grpc.health.v1.Health/Check").parse().map_err(|_| SetUpError::Url)?;
        match target.authority {
            None => context.targets.check_url(&url)?,
            // An address in the place of the name would be connected to.
            Some(_) if url.domain().is_none() => return Err(SetUpError::Url),
            Some(_) => {}
        }
        let mut metadata = target.metadata.clone();
        metadata.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        metadata.insert(TE, HeaderValue::from_static("trailers"));
        let client = client.map_err(SetUpError::Client)?;
        Ok(Caller { client, url, metadata, message: request(&target.service) })
    }

    async fn call(&self) -> Result<Health, CallError> {
        let request = self.client.post(self.url.clone()).headers(self.metadata.clone()).body(self.message.clone());
        let response = http::Response::<reqwest::Body>::from(request.send().await?);
        if response.status() != http::StatusCode::OK {
            return Err(CallError::Status(response.status().as_u16()));
        }
        let (head, mut body) = response.into_parts();
        let (mut message, mut trailers) = (BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) if message.len() + data.len() <= ANSWER_LIMIT => message.extend_from_slice(&data),
                Ok(_) => return Err(CallError::Answer),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        // An answer without a message has its end in the head.
        let end = trailers.unwrap_or(head.headers);
        let text = |name: &str| end.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text("grpc-status").parse() {
            Ok(0) => answer(message.freeze()).ok_or(CallError::Answer),
            Ok(code) => Err(CallError::Code(code, text("grpc-message").chars().take(MESSAGE_LIMIT).collect())),
            Err(_) => Err(CallError::Answer),
        }
    }
}

/// `HealthCheckRequest { string service = 1; }` in a frame of gRPC.
fn request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or_default());
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    [&[0], length.as_slice(), &message].concat().into()
}

/// `HealthCheckResponse { ServingStatus status = 1; }` in a frame of gRPC; other fields are passed over.
fn answer(mut frame: Bytes) -> Option<Health> {
    if frame.len() < 5 || frame.get_u8() != 0 {
        return None;
    }
    let length = usize::try_from(frame.get_u32()).ok()?;
    if length != frame.len() {
        return None;
    }
    let mut status = 0;
    while frame.has_remaining() {
        let tag = varint(&mut frame)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut frame)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            2 => {
                let length = usize::try_from(varint(&mut frame)?).ok().filter(|length| *length <= frame.len())?;
                frame.advance(length);
            }
            _ => return None,
        }
    }
    match status {
        0 => Some(Health::Unknown),
        1 => Some(Health::Serving),
        2 => Some(Health::NotServing),
        3 => Some(Health::ServiceUnknown),
        _ => None,
    }
}

fn varint(bytes: &mut Bytes) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        if !bytes.has_remaining() {
            return None;
        }
        let byte = bytes.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Names of gRPC's codes.
fn code_name(code: u32) -> String {
    let names = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let name = usize::try_from(code).ok().and_then(|code| names.get(code));
    name.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Health::Unknown => "UNKNOWN",
            Health::Serving => "SERVING",
            Health::NotServing => "NOT_SERVING",
            Health::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

/// Exit codes of `grpc_health_probe`.
mod exit {
    pub(super) const SET_UP: i32 = 1;
    pub(super) const CONNECT: i32 = 2;
    pub(super) const CALL: i32 = 3;
    pub(super) const UNHEALTHY: i32 = 4;
}

/// One call: good if the server serves.
pub(super) async fn probe(probe: &HealthProbe, context: &Context) -> Outcome {
    let caller = match Caller::new(&probe.target, context) {
        Ok(caller) => caller,
        Err(error) => return Outcome::failed(exit::SET_UP, error.to_string()),
    };
    let end = caller.call().await;
    let code = if end.is_ok() { "OK" } else { "error" };
    context.metrics.requests.with_label_values(&["grpc_health_probe", code]).inc();
    match end {
        Ok(Health::Serving) => Outcome { output: b"status: SERVING\n".to_vec(), ..Outcome::default() },
        Ok(health) => {
            Outcome::failed(exit::UNHEALTHY, format!("service unhealthy (responded with {:?})", health.name()))
        }
        Err(CallError::Http(error)) if error.is_connect() => Outcome::failed(
            exit::CONNECT,
            format!("failed to connect service {:?}: {}", probe.target.address.as_str(), why(&error)),
        ),
        Err(error) => Outcome::failed(exit::CALL, format!("health rpc failed: {error}")),
    }
}

/// Many calls, until it is enough.
pub(super) async fn load(load: &GrpcLoad, context: &Context) -> Outcome {
    let caller = match Caller::new(&load.target, context) {
        Ok(caller) => caller,
        Err(error) => return Outcome::failed(1, error.to_string()),
    };
    let requests = context.metrics.requests.clone();
    let send = move || {
        let (caller, requests) = (caller.clone(), requests.clone());
        async move {
            let end = match caller.call().await {
                Ok(_) => "OK".to_owned(),
                Err(CallError::Code(code, _)) => code_name(code),
                Err(error) => error.to_string(),
            };
            requests.with_label_values(&["ghz", if end == "OK" { "OK" } else { "error" }]).inc();
            end
        }
    };
    let pace = Pace { workers: load.workers, per_second: load.calls_per_second, amount: load.amount };
    let record = Arc::new(Mutex::new(Record::default()));
    let begun = Instant::now();
    let longest = load.longest.filter(|_| matches!(load.amount, Amount::Requests(_)));
    let limit = longest.map_or(context.timeout, |longest| longest.min(context.timeout));
    // At the limit it is enough, too.
    let _ = tokio::time::timeout(limit, drive(pace, &record, send)).await;
    let report = record.lock().report(begun.elapsed());
    Outcome { output: report.into_bytes(), ..Outcome::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_health_protocol() {
        assert_eq!(request("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(request("web").as_ref(), [0, 0, 0, 0, 5, 0x0a, 3, b'w', b'e', b'b']);
        assert_eq!(request(&"x".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        let read = |bytes: &'static [u8]| answer(Bytes::from_static(bytes));
        assert_eq!(read(&[0, 0, 0, 0, 0]), Some(Health::Unknown));
        assert_eq!(read(&[0, 0, 0, 0, 2, 8, 1]), Some(Health::Serving));
        assert_eq!(read(&[0, 0, 0, 0, 2, 8, 2]), Some(Health::NotServing));
        assert_eq!(read(&[0, 0, 0, 0, 5, 18, 1, 7, 8, 3]), Some(Health::ServiceUnknown), "a field that is not known");
        for broken in
            [&[][..], &[0, 0, 0, 0, 2, 8], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 2, 8, 9], &[0, 0, 0, 0, 2, 18, 9]]
        {
            assert_eq!(read(broken), None, "{broken:?}");
        }
    }
}
