//! The API server's error answers (`metav1.Status`), with its codes, reasons and message texts.

use kube::core::response::{Status, StatusCause, StatusDetails, StatusSummary};
use serde_json::Value;

use super::registry::ResourceType;

/// A refused request, exactly as a client sees it.
///
/// Texts follow `k8s.io/apimachinery/pkg/api/errors`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .status.message)]
pub struct StatusError {
    /// The answer's body.
    pub status: Box<Status>,
    /// Texts for `Warning` headers: what there was to be said about the request before it was refused.
    pub(crate) warnings: Vec<String>,
}

impl StatusError {
    /// An error with any code, reason and message.
    #[must_use]
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: Box::new(Status {
                status: Some(StatusSummary::Failure),
                code,
                message: message.into(),
                metadata: None,
                reason: reason.to_owned(),
                details: None,
            }),
            warnings: Vec::new(),
        }
    }

    /// The HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.status.code
    }

    /// The machine-readable reason, e.g. `NotFound`.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.status.reason
    }

    /// The human-readable message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.status.message
    }

    /// The body of the answer, a `v1` `Status` object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut body = serde_json::to_value(&self.status).unwrap_or_default();
        if let Some(fields) = body.as_object_mut() {
            fields.insert("kind".to_owned(), "Status".into());
            fields.insert("apiVersion".to_owned(), "v1".into());
            fields.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
        }
        body
    }

    fn details(&mut self) -> &mut StatusDetails {
        self.status.details.get_or_insert_with(|| StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        })
    }

    pub(crate) fn with_details(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.name = name.to_owned();
        self
    }

    pub(crate) fn with_causes(mut self, causes: Vec<StatusCause>) -> Self {
        self.details().causes = causes;
        self
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    pub(crate) fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details().retry_after_seconds = seconds;
        self
    }

    /// 404 `NotFound`: `canaries.flagger.app "podinfo" not found`.
    #[must_use]
    pub fn not_found(resource: &ResourceType, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", resource.qualified_resource())).with_details(
            &resource.group,
            &resource.plural,
            name,
        )
    }

    /// 404 `NotFound` of a path within a built-in group.
    pub(crate) fn unknown_resource() -> Self {
        let mut error = Self::new(404, "NotFound", "the server could not find the requested resource".to_owned());
        error.details();
        error
    }

    /// 409 `AlreadyExists`.
    #[must_use]
    pub fn already_exists(resource: &ResourceType, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", resource.qualified_resource()))
            .with_details(&resource.group, &resource.plural, name)
    }

    /// 409 `AlreadyExists` of an object that has a name and what to make one of: it is said that the server made it
    /// (`CheckGeneratedNameError`).
    pub(crate) fn name_taken(resource: &ResourceType, name: &str, object: &Value) -> Self {
        let mut error = Self::already_exists(resource, name);
        if object["metadata"]["generateName"].as_str().is_some_and(|base| !base.is_empty()) {
            error.status.message.push_str(", the server was not able to generate a unique name for the object");
            return error.with_retry_after(1);
        }
        error
    }

    /// 409 `Conflict` of a deletion, where the API server names the kind in the place of the resource (`rest.BeforeDelete`).
    pub(crate) fn conflict_of_kind(resource: &ResourceType, name: &str, cause: &str) -> Self {
        let kind = resource.group_kind.to_string();
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {kind} \"{name}\": {cause}")).with_details(
            &resource.group,
            &resource.kind,
            name,
        )
    }

    /// 409 `Conflict` with any cause.
    #[must_use]
    pub fn conflict(resource: &ResourceType, name: &str, cause: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{name}\": {cause}", resource.qualified_resource()),
        )
        .with_details(&resource.group, &resource.plural, name)
    }

    /// 409 `Conflict` of an optimistic lock (`registry.OptimisticLockErrorMsg`).
    #[must_use]
    pub fn modified(resource: &ResourceType, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 `Forbidden`.
    #[must_use]
    pub fn forbidden(resource: &ResourceType, name: &str, cause: &str) -> Self {
        let subject = if name.is_empty() {
            resource.qualified_resource()
        } else {
            format!("{} \"{name}\"", resource.qualified_resource())
        };
        Self::new(403, "Forbidden", format!("{subject} is forbidden: {cause}")).with_details(
            &resource.group,
            &resource.plural,
            name,
        )
    }

    /// 400 `BadRequest`.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 500 `InternalError` (`errors.NewInternalError`).
    pub(crate) fn internal(cause: &str) -> Self {
        let told = StatusCause { reason: String::new(), message: cause.to_owned(), field: String::new() };
        Self::new(500, "InternalError", format!("Internal error occurred: {cause}")).with_causes(vec![told])
    }

    /// 403 `Forbidden` for a new object in a namespace that is being deleted.
    pub(crate) fn namespace_terminating(resource: &ResourceType, namespace: &str, name: &str) -> Self {
        let cause = StatusCause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        };
        let message = format!("unable to create new content in namespace {namespace} because it is being terminated");
        Self::forbidden(resource, name, &message).with_causes(vec![cause])
    }

    /// 405 `MethodNotAllowed`.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 410 `Expired`.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 422 `Invalid` for an object of `kind` (`errors.NewInvalid`).
    ///
    /// One problem stands alone, several are listed in brackets, equal texts once, as `utilerrors.Aggregate` prints them.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, problems: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for problem in problems {
            let text = problem.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let joined = match texts.as_slice() {
            [only] => only.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let qualified_kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let causes = problems
            .iter()
            .map(|problem| StatusCause {
                reason: problem.reason.as_str().to_owned(),
                message: problem.body(),
                field: problem.field.clone(),
            })
            .collect();
        Self::new(422, "Invalid", format!("{qualified_kind} \"{name}\" is invalid: {joined}"))
            .with_details(group, kind, name)
            .with_causes(causes)
    }
}

/// The answer to a finished delete (`Status` with `Success`).
pub(crate) fn success_status(resource: &ResourceType, name: &str, uid: &str) -> Value {
    let details = StatusDetails {
        name: name.to_owned(),
        group: resource.group.to_string(),
        kind: resource.plural.to_string(),
        uid: uid.to_owned(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    };
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": serde_json::to_value(details).unwrap_or_default(),
    })
}

/// What is wrong with a field (`field.ErrorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldReason {
    /// `Required value`
    Required,
    /// `Invalid value`
    Invalid,
    /// `Invalid value` of a wrong JSON type
    TypeInvalid,
    /// `Unsupported value`
    NotSupported,
    /// `Duplicate value`
    Duplicate,
    /// `Not found`
    NotFound,
    /// `Forbidden`
    Forbidden,
    /// `Too long`
    TooLong,
    /// `Too many`
    TooMany,
}

impl FieldReason {
    /// The `reason` of a `StatusCause`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

/// One problem of one field (`field.Error`).
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub reason: FieldReason,
    /// Path in the object, e.g. `spec.analysis.metrics[0].name`.
    pub field: String,
    /// The offending value, already in the form in which the API server prints it; empty where it prints none.
    pub value: String,
    /// The explanation; may be empty.
    pub detail: String,
}

impl FieldError {
    /// An `Invalid value` with the value printed as Go's `field.Error` does: JSON for scalars and objects.
    #[must_use]
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl Into<String>) -> Self {
        Self { reason: FieldReason::Invalid, field: field.into(), value: value.to_string(), detail: detail.into() }
    }

    /// A `Required value`.
    #[must_use]
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: FieldReason::Required, field: field.into(), value: String::new(), detail: detail.into() }
    }

    /// A `Forbidden` field.
    #[must_use]
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: FieldReason::Forbidden, field: field.into(), value: String::new(), detail: detail.into() }
    }

    /// The text without the path (`field.Error.ErrorBody`).
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.reason.label().to_owned();
        let prints_value =
            !matches!(self.reason, FieldReason::Required | FieldReason::Forbidden | FieldReason::TooLong);
        if prints_value && !self.value.is_empty() {
            text.push_str(": ");
            text.push_str(&self.value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.field, self.body())
    }
}
