//! Answers: JSON bodies and watch streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;

use super::watch::WatchStream;
use crate::store::{Record, StatusError, to_bytes};

/// The body of an answer.
#[derive(Debug)]
pub struct ResponseBody(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Option<Bytes>),
    Watch(Box<WatchStream>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Watch(stream) => stream.poll_next(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Watch(_) => SizeHint::default(),
        }
    }
}

/// What a handler made of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: AnswerBody,
    /// Whether the cluster changed.
    pub(crate) changed: bool,
    /// Texts for `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum AnswerBody {
    Json(Bytes),
    Text(String),
    Watch(Box<WatchStream>),
}

impl Answer {
    pub(crate) fn json(code: u16, body: Bytes) -> Self {
        Self { code, body: AnswerBody::Json(body), changed: false, warnings: Vec::new() }
    }

    pub(crate) fn text(code: u16, text: &str) -> Self {
        Self { code, body: AnswerBody::Text(text.to_owned()), changed: false, warnings: Vec::new() }
    }

    /// What a real server says to a path that it does not serve: plain text, no `Status`.
    pub(crate) fn unknown_path() -> Self {
        Self::text(404, "404 page not found\n")
    }

    pub(crate) fn error(error: &StatusError) -> Self {
        Self::json(error.code(), to_bytes(&error.to_value()))
    }

    pub(crate) fn changed(mut self, changed: bool) -> Self {
        self.changed = changed;
        self
    }

    pub(crate) fn into_response(self, retry_after: Option<u32>) -> Response<ResponseBody> {
        let (content_type, kind) = match self.body {
            AnswerBody::Json(bytes) => ("application/json", Kind::Whole(Some(bytes))),
            AnswerBody::Text(text) => ("text/plain; charset=utf-8", Kind::Whole(Some(Bytes::from(text)))),
            AnswerBody::Watch(stream) => ("application/json", Kind::Watch(stream)),
        };
        let mut response = Response::new(ResponseBody(kind));
        *response.status_mut() = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        for warning in self.warnings {
            let quoted = Value::String(warning).to_string();
            if let Ok(value) = header::HeaderValue::from_str(&format!("299 - {quoted}")) {
                headers.append(header::WARNING, value);
            }
        }
        response
    }
}

/// In which form objects leave the server: the requested version, whole or metadata only.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    pub(crate) api_version: String,
    pub(crate) storage_api_version: String,
    pub(crate) kind: String,
    /// Lists of built-in kinds carry items without `apiVersion` and `kind`.
    pub(crate) bare_items: bool,
    pub(crate) metadata_only: bool,
}

impl Encoder {
    pub(crate) fn object(&self, record: &Record) -> Bytes {
        if !self.metadata_only && self.api_version == self.storage_api_version {
            return record.json();
        }
        let mut body = Vec::new();
        self.write_object(record, &mut body);
        Bytes::from(body)
    }

    /// Appends the object. Versions differ in `apiVersion` alone (conversion strategy None).
    pub(crate) fn write_object(&self, record: &Record, body: &mut Vec<u8>) {
        if self.metadata_only {
            body.extend_from_slice(
                b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":",
            );
            body.extend_from_slice(record.metadata_json());
            body.push(b'}');
        } else if self.api_version == self.storage_api_version {
            body.extend_from_slice(record.json_slice());
        } else {
            record.json_as(&self.api_version, &self.kind, body);
        }
    }

    /// Appends the object as an item of a list.
    pub(crate) fn write_item(&self, record: &Record, body: &mut Vec<u8>) {
        if self.bare_items && !self.metadata_only {
            record.write_item(body);
        } else {
            self.write_object(record, body);
        }
    }

    pub(crate) fn list_kind(&self, list_kind: &str) -> (String, String) {
        if self.metadata_only {
            ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned())
        } else {
            (self.api_version.clone(), list_kind.to_owned())
        }
    }

    /// The body of a bookmark at a version.
    pub(crate) fn bookmark(&self, version: u64, ends_initial_events: bool) -> Bytes {
        let (api_version, kind) = if self.metadata_only {
            ("meta.k8s.io/v1", "PartialObjectMetadata")
        } else {
            (self.api_version.as_str(), self.kind.as_str())
        };
        let mut object = serde_json::json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
        });
        if ends_initial_events {
            object["metadata"]["annotations"] = serde_json::json!({"k8s.io/initial-events-end": "true"});
        }
        to_bytes(&object)
    }
}
