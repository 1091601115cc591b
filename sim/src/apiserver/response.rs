//! Answers: JSON bodies and watch streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;

use super::fields;
use super::table::TableForm;
use super::views::View;
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
    /// The media type, where it is not that of the body's kind.
    pub(crate) content_type: Option<String>,
    /// Further headers; they replace the usual ones.
    pub(crate) headers: Vec<(header::HeaderName, String)>,
}

#[derive(Debug)]
pub(crate) enum AnswerBody {
    Json(Bytes),
    Text(String),
    Watch(Box<WatchStream>),
}

impl Answer {
    pub(crate) fn json(code: u16, body: Bytes) -> Self {
        Self {
            code,
            body: AnswerBody::Json(body),
            changed: false,
            warnings: Vec::new(),
            content_type: None,
            headers: Vec::new(),
        }
    }

    pub(crate) fn text(code: u16, text: &str) -> Self {
        let mut answer = Self::json(code, Bytes::new());
        answer.body = AnswerBody::Text(text.to_owned());
        answer
    }

    /// What a real server says to a path that it does not serve: plain text, no `Status`.
    pub(crate) fn unknown_path() -> Self {
        Self::text(404, "404 page not found\n")
    }

    /// 304: what the client has is what it would get.
    pub(crate) fn not_modified() -> Self {
        Self::json(304, Bytes::new())
    }

    pub(crate) fn error(error: &StatusError) -> Self {
        let mut answer = Self::json(error.code(), to_bytes(&error.to_value()));
        answer.warnings.clone_from(&error.warnings);
        answer
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
        let content_type = self.content_type.map(|content_type| (header::CONTENT_TYPE, content_type));
        for (name, text) in content_type.into_iter().chain(self.headers) {
            if let Ok(value) = header::HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
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
    pub(crate) view: Option<View>,
    /// Set where the client asked for a Table.
    pub(crate) table: Option<TableForm>,
}

impl Encoder {
    pub(crate) fn object(&self, record: &Record) -> Bytes {
        if self.table.is_none() && !self.metadata_only {
            return self.served(record);
        }
        let mut body = Vec::new();
        self.write_object(record, &mut body);
        Bytes::from(body)
    }

    /// The whole object in the version that was asked for.
    pub(crate) fn served(&self, record: &Record) -> Bytes {
        if self.view.is_none() && self.api_version == self.storage_api_version {
            return record.json();
        }
        let mut body = Vec::new();
        self.write_served(record, &mut body);
        Bytes::from(body)
    }

    /// Appends the object. Versions differ in `apiVersion` alone (conversion strategy None), unless one is a view.
    pub(crate) fn write_object(&self, record: &Record, body: &mut Vec<u8>) {
        if let Some(table) = &self.table {
            body.extend_from_slice(&table.single(record, |record| self.served(record)));
        } else if self.metadata_only {
            body.extend_from_slice(
                b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":",
            );
            body.extend_from_slice(record.metadata_json());
            body.push(b'}');
        } else {
            self.write_served(record, body);
        }
    }

    fn write_served(&self, record: &Record, body: &mut Vec<u8>) {
        if let Some(view) = self.view {
            let mut value = view.show((*record.value()).clone());
            fields::text::expand(&mut value);
            value["apiVersion"] = Value::String(self.api_version.clone());
            body.extend_from_slice(&to_bytes(&value));
        } else if self.api_version == self.storage_api_version {
            body.extend_from_slice(record.json_slice());
        } else {
            record.json_as(&self.api_version, &self.kind, body);
        }
    }

    /// Appends the object as an item of a list.
    pub(crate) fn write_item(&self, record: &Record, body: &mut Vec<u8>) {
        if self.bare_items && !self.metadata_only && self.view.is_none() {
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
        if let Some(table) = &self.table {
            return table.bookmark(&object);
        }
        to_bytes(&object)
    }
}
