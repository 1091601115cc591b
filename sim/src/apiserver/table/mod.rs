//! Tables: the form in which `kubectl get` asks for objects, so that the server and not the client decides what is shown.
//!
//! Columns and texts of built-in kinds are those of Kubernetes 1.36 (`pkg/printers/internalversion`), those of custom resources come
//! from the `additionalPrinterColumns` of their definition.

mod cells;
mod cluster_kinds;
pub(crate) mod custom;
mod duration;
mod event;
mod extensions;
mod json_path;
mod networking;
mod pod;
mod printers;
mod workloads;

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::request::{Query, Target};
use crate::store::{FieldError, Record, StatusError, to_bytes};
use custom::CustomColumns;
use printers::{Printer, printer};

/// What a row carries of its object beside the cells (`metav1.IncludeObjectPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IncludeObject {
    Nothing,
    Metadata,
    Object,
}

/// Where the columns of a kind come from.
#[derive(Clone, Debug)]
enum Columns {
    Builtin(&'static Printer),
    Custom(std::sync::Arc<CustomColumns>),
}

/// How the objects of one request become tables.
#[derive(Debug)]
pub(crate) struct TableForm {
    columns: Columns,
    include: IncludeObject,
    /// `apiVersion` of the tables.
    api_version: String,
    now: crate::clock::Clock,
    /// Only the first event of a watch describes the columns.
    headers_sent: AtomicBool,
}

impl Clone for TableForm {
    fn clone(&self) -> Self {
        Self {
            columns: self.columns.clone(),
            include: self.include,
            api_version: self.api_version.clone(),
            now: self.now,
            headers_sent: AtomicBool::new(self.headers_sent.load(Ordering::Relaxed)),
        }
    }
}

impl TableForm {
    /// # Errors
    /// 400 for an `includeObject` that does not exist.
    pub(crate) fn new(
        target: &Target,
        query: &Query,
        version: &str,
        now: crate::clock::Clock,
    ) -> Result<Self, StatusError> {
        let custom = target.served_version().and_then(|version| version.columns.clone());
        let columns = match custom {
            _ if target.subresource == "scale" => Columns::Builtin(printer("autoscaling", "Scale")),
            Some(columns) => Columns::Custom(columns),
            None => {
                let kind = &target.resource.group_kind;
                Columns::Builtin(printer(&kind.group, &kind.kind))
            }
        };
        Self::with_columns(columns, query, version, now)
    }

    /// Tables of a built-in kind that is not stored.
    ///
    /// # Errors
    /// As with [`Self::new`].
    pub(crate) fn of_kind(
        group: &str,
        kind: &str,
        query: &Query,
        version: &str,
        now: crate::clock::Clock,
    ) -> Result<Self, StatusError> {
        Self::with_columns(Columns::Builtin(printer(group, kind)), query, version, now)
    }

    fn with_columns(
        columns: Columns,
        query: &Query,
        version: &str,
        now: crate::clock::Clock,
    ) -> Result<Self, StatusError> {
        let include = match query.get("includeObject") {
            None | Some("Metadata") => IncludeObject::Metadata,
            Some("None") => IncludeObject::Nothing,
            Some("Object") => IncludeObject::Object,
            Some(other) => {
                let problem = FieldError::invalid(
                    "includeObject",
                    &Value::from(other),
                    "must be 'Metadata', 'Object', 'None', or empty",
                );
                return Err(StatusError::invalid("meta.k8s.io", "TableOptions", "", &[problem]));
            }
        };
        let api_version = format!("meta.k8s.io/{version}");
        Ok(Self { columns, include, api_version, now, headers_sent: AtomicBool::new(false) })
    }

    /// The table of a list. `served` gives an object in the version that was asked for.
    pub(crate) fn list<'a>(
        &self,
        metadata: &Value,
        records: impl Iterator<Item = &'a Record>,
        served: impl Fn(&Record) -> Bytes,
    ) -> Bytes {
        let rows: Vec<Value> = records.map(|record| self.row(record, &served)).collect();
        to_bytes(&self.table(metadata, &rows))
    }

    /// The table of one object: of a get, or of one event of a watch.
    pub(crate) fn single(&self, record: &Record, served: impl Fn(&Record) -> Bytes) -> Bytes {
        let metadata = json!({"resourceVersion": record.resource_version.to_string()});
        let row = self.row(record, &served);
        to_bytes(&self.table(&metadata, &[row]))
    }

    /// The table of an object that is not stored as such, as a scale.
    pub(crate) fn object(&self, object: &Value) -> Value {
        let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        self.table(&metadata, &[self.row_of(object)])
    }

    /// The table of objects that are not stored at all.
    pub(crate) fn objects(&self, objects: &[Value]) -> Value {
        let rows: Vec<Value> = objects.iter().map(|object| self.row_of(object)).collect();
        self.table(&json!({}), &rows)
    }

    fn row_of(&self, object: &Value) -> Value {
        let included = match self.include {
            IncludeObject::Nothing => Value::Null,
            IncludeObject::Metadata => self.partial(object),
            IncludeObject::Object => object.clone(),
        };
        json!({"cells": self.cells(object), "object": included})
    }

    /// A bookmark is an object like any other to a real server: a row with little in it.
    pub(crate) fn bookmark(&self, object: &Value) -> Bytes {
        let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let row = json!({"cells": self.cells(object), "object": self.partial(object)});
        to_bytes(&self.table(&metadata, &[row]))
    }

    fn table(&self, metadata: &Value, rows: &[Value]) -> Value {
        let headers = if self.headers_sent.swap(true, Ordering::Relaxed) { Value::Null } else { self.headers() };
        json!({
            "kind": "Table", "apiVersion": self.api_version, "metadata": metadata, "columnDefinitions": headers, "rows": rows,
        })
    }

    fn headers(&self) -> Value {
        match &self.columns {
            Columns::Builtin(printer) => printer.headers(),
            Columns::Custom(columns) => columns.headers(),
        }
    }

    fn cells(&self, object: &Value) -> Vec<Value> {
        let now: Timestamp = self.now.now();
        match &self.columns {
            Columns::Builtin(printer) => (printer.cells)(object, now),
            Columns::Custom(columns) => columns.cells(object, now),
        }
    }

    fn row(&self, record: &Record, served: &impl Fn(&Record) -> Bytes) -> Value {
        let object = record.value();
        let mut row = json!({"cells": self.cells(&object)});
        match self.include {
            IncludeObject::Nothing => row["object"] = Value::Null,
            IncludeObject::Metadata => row["object"] = self.partial(&object),
            IncludeObject::Object => row["object"] = serde_json::from_slice(&served(record)).unwrap_or_default(),
        }
        row
    }

    fn partial(&self, object: &Value) -> Value {
        json!({"kind": "PartialObjectMetadata", "apiVersion": self.api_version, "metadata": object["metadata"]})
    }
}
