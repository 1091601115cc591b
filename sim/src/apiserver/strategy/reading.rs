//! Reading: whether what a request leaves is an object of the resource at all, and the words that refuse what is none.

use serde_json::Value;

use super::{FieldValidation, Strategy, differs_beside_status};
use crate::apiserver::fields;
use crate::apiserver::patch::{self, Origin};
use crate::apiserver::schema::SchemaRef;
use crate::apiserver::schema::decode::{self, DecodeError};
use crate::apiserver::write::Body;
use crate::apiserver::{body, metadata};
use crate::store::StatusError;

impl<'a> Strategy<'a> {
    /// Remembers the JSON that the object was read from.
    pub(in crate::apiserver) fn set_document(&mut self, document: &'a [u8], repeats_fields: bool) {
        self.document = document;
        self.repeats_fields = repeats_fields;
    }

    /// Notes which fields a merge patch names twice; of those the last one counts.
    pub(in crate::apiserver) fn look_for_repeats(&mut self, patch: &Body<'_>) {
        let merges =
            matches!(patch.content_type, "application/merge-patch+json" | "application/strategic-merge-patch+json");
        // A patch that cannot be read is refused where it is applied.
        if merges && matches!(body::parse(patch.bytes), Ok((_, true))) {
            self.repeated_in_patch = body::strict_errors(patch.bytes, &[]);
        }
    }

    /// Reads an object by its type or schema: wrong types of built-in kinds and of metadata are refused, unknown fields dropped,
    /// told or refused.
    pub(in crate::apiserver) fn decode(&mut self, value: &mut Value, origin: Origin) -> Result<(), StatusError> {
        self.origin = origin;
        if self.target.resource.custom && self.target.subresource != "scale" {
            return self.decode_custom(value);
        }
        let Some(schema) = self.schema() else {
            return Ok(());
        };
        // An empty list of managed fields means something; Go would leave it out.
        let managed_fields = fields::take_text(value);
        let decoded = decode::decode(&schema, value);
        fields::restore(value, managed_fields);
        match decoded {
            Ok(unknown) => self.report_unknown_fields(&unknown, value),
            Err(error) => Err(self.undecodable(value, &error)),
        }
    }

    /// Reads what a patch made of an object. What it left alone was read before: a status is read when the object is completed.
    pub(in crate::apiserver) fn decode_patched(
        &mut self,
        value: &mut Value,
        origin: Origin,
        present: &Value,
    ) -> Result<(), StatusError> {
        let is_custom_status = self.target.resource.custom && self.target.subresource == "status";
        if is_custom_status && !differs_beside_status(value, present) {
            self.origin = origin;
            return Ok(());
        }
        self.decode(value, origin)
    }

    /// Reads a custom resource by its schema. One that says that it is something else is not looked into.
    fn decode_custom(&mut self, value: &mut Value) -> Result<(), StatusError> {
        if value.get("apiVersion").is_some_and(Value::is_null) {
            return Err(
                self.unreadable(value, ".apiVersion accessor error: <nil> is of the type <nil>, expected string")
            );
        }
        if matches!(self.origin, Origin::Patch) && value["kind"].as_str().is_none_or(str::is_empty) {
            let text = value.to_string();
            let cause = metadata::kind_is_missing(&text);
            return Err(patch::invalid(text, &cause));
        }
        // Managed fields are kept as a text and have a reader of their own.
        let managed_fields = fields::take_text(value);
        let decoded = match value.get_mut("metadata").filter(|metadata| !metadata.is_null()) {
            Some(metadata) => decode::decode_metadata(metadata),
            None => Ok(Vec::new()),
        };
        fields::restore(value, managed_fields);
        let unknown = decoded.map_err(|error| self.undecodable(value, &error))?;
        let mut unknown: Vec<String> = unknown.into_iter().map(|field| format!("metadata.{field}")).collect();
        let schema = self.target.served_version().and_then(|version| version.schema.clone());
        if let Some(schema) = schema.filter(|_| metadata::wrong_type(self.target, value).is_none()) {
            unknown.extend(schema.conform(value).unknown_fields);
            self.is_conformed = true;
        }
        self.report_unknown_fields(&unknown, value)
    }

    /// Whether what a JSON or merge patch leaves of a built-in object can be read at all. Without version it is read by the names of
    /// Go's internal type, which has none of those that the API has: nothing is left of it.
    pub(in crate::apiserver) fn check_type_is_left(&self, name: &str, patched: &Value) -> Result<(), StatusError> {
        let version = patched.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if self.target.resource.custom {
            return Ok(());
        }
        if !version.is_empty() {
            let kind = patched.get("kind").and_then(Value::as_str).filter(|kind| !kind.is_empty());
            let cause = kind.and_then(|kind| metadata::unregistered(version, kind));
            return cause.map_or(Ok(()), |cause| Err(patch::invalid(patched.to_string(), &cause)));
        }
        let kind = patched["kind"].as_str().unwrap_or_default();
        if !kind.is_empty() && kind != self.target.resource.kind {
            let group = &self.target.resource.group;
            let cause = format!(
                "no kind \"{kind}\" is registered for the internal version of group \"{group}\" in scheme \
                 \"pkg/runtime/scheme.go:111\""
            );
            return Err(patch::invalid(patched.to_string(), &cause));
        }
        if self.options.field_validation == FieldValidation::Strict {
            let fields = patched.as_object().into_iter().flatten().map(|(field, _)| field);
            let unknown = fields.filter(|field| !matches!(field.as_str(), "apiVersion" | "kind"));
            let texts: Vec<String> = unknown.map(|field| format!("unknown field \"{field}\"")).collect();
            return Err(patch::invalid(patched.to_string(), &format!("strict decoding error: {}", texts.join(", "))));
        }
        Err(metadata::no_name(name))
    }

    /// The schema of what is written: the object's, or that of a `Scale`.
    pub(in crate::apiserver) fn schema(&self) -> Option<SchemaRef> {
        if self.target.subresource == "scale" {
            return SchemaRef::builtin("autoscaling", "v1", "Scale");
        }
        self.target.served_version().and_then(|version| version.schema.clone())
    }

    fn undecodable(&self, value: &Value, error: &DecodeError) -> StatusError {
        match &self.origin {
            Origin::StrategicPatch(patch) => patch::invalid(patch::print_as_go(patch), &error.in_converter_words()),
            Origin::Applied(name) if !self.target.resource.custom => {
                self.unconvertible(name, &error.in_converter_words())
            }
            _ => self.unreadable(value, &error.to_string()),
        }
    }

    /// The refusal of an object that cannot be read, by what it was read from.
    pub(super) fn unreadable(&self, value: &Value, cause: &str) -> StatusError {
        match &self.origin {
            Origin::Body | Origin::Applied(_) => self.unhandled(value, cause),
            Origin::Patch => patch::invalid(value.to_string(), cause),
            Origin::StrategicPatch(patch) => patch::invalid(patch::print_as_go(patch), cause),
        }
    }

    /// `transformDecodeError`. A custom resource is called what it calls itself.
    fn unhandled(&self, value: &Value, cause: &str) -> StatusError {
        let resource = &self.target.resource;
        let (mut kind, mut version) = (resource.kind.as_str(), self.target.version.as_str());
        let mut wanted = kind;
        if self.target.subresource == "scale" {
            if resource.custom {
                // The registry of definitions has no such type, and so no words for what is wrong with it.
                let cause = "no kind is registered for the type v1.Scale in scheme \"pkg/runtime/scheme.go:111\"";
                return StatusError::bad_request(cause);
            }
            (kind, version, wanted) = ("Scale", "v1", "Scale");
        } else if resource.custom {
            let api_version = value["apiVersion"].as_str().unwrap_or_default();
            kind = value["kind"].as_str().unwrap_or_default();
            version = api_version.split_once('/').map_or(api_version, |(_, version)| version);
        }
        StatusError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {wanted}: {cause}"))
    }

    /// What an applied configuration is refused with whose types are wrong. It is no status error in the API server, and so a plain
    /// 500.
    fn unconvertible(&self, name: &str, cause: &str) -> StatusError {
        let (resource, version) = (&self.target.resource, &self.target.version);
        let what = format!("{}/{version}, Kind={}", resource.group, resource.kind);
        StatusError::new(
            500,
            "",
            format!(
                "failed to convert new object ({name}; {what}) to proper version: unable to convert unstructured object to {what}: \
                 {cause}"
            ),
        )
    }

    pub(super) fn report_unknown_fields(&mut self, unknown: &[String], value: &Value) -> Result<(), StatusError> {
        let nothing_found = unknown.is_empty() && !self.repeats_fields && self.repeated_in_patch.is_empty();
        if nothing_found || self.options.field_validation == FieldValidation::Ignore {
            return Ok(());
        }
        let texts: Vec<String> = if self.document.is_empty() {
            let repeated = std::mem::take(&mut self.repeated_in_patch);
            repeated.into_iter().chain(unknown.iter().map(|field| format!("unknown field \"{field}\""))).collect()
        } else {
            body::strict_errors(self.document, unknown)
        };
        if self.options.field_validation == FieldValidation::Strict {
            let cause = format!("strict decoding error: {}", texts.join(", "));
            return Err(self.unreadable(value, &cause));
        }
        self.warnings.extend(texts);
        Ok(())
    }
}
