//! The checks that many kinds share, with the texts of `k8s.io/apimachinery/pkg/api/validation`.

use serde_json::{Value, json};

use super::super::metadata;
use crate::store::{FieldError, FieldReason};

/// What was found wrong so far.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<FieldError>);

impl Problems {
    pub(super) fn invalid(&mut self, field: impl Into<String>, value: &Value, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(field, value, detail));
    }

    /// With a value that is already printed.
    pub(super) fn invalid_text(&mut self, field: &str, value: &str, detail: &str) {
        self.0.push(FieldError {
            reason: FieldReason::Invalid,
            field: field.to_owned(),
            value: value.to_owned(),
            detail: detail.to_owned(),
        });
    }

    /// With a value that is already printed.
    pub(super) fn unsupported_text(&mut self, field: &str, value: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|name| format!("\"{name}\"")).collect();
        self.0.push(FieldError {
            reason: FieldReason::NotSupported,
            field: field.to_owned(),
            value: value.to_owned(),
            detail: format!("supported values: {}", supported.join(", ")),
        });
    }

    pub(super) fn required(&mut self, field: impl Into<String>, detail: &str) {
        self.0.push(FieldError::required(field, detail));
    }

    pub(super) fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.0.push(FieldError::forbidden(field, detail));
    }

    /// Without the value, which is long.
    pub(super) fn too_long(&mut self, field: &str, most_bytes: usize) {
        self.0.push(FieldError {
            reason: FieldReason::TooLong,
            field: field.to_owned(),
            value: String::new(),
            detail: format!("may not be more than {most_bytes} bytes"),
        });
    }

    pub(super) fn duplicate(&mut self, field: impl Into<String>, value: &Value) {
        self.push(FieldReason::Duplicate, field, value, String::new());
    }

    /// With a value that is already printed.
    pub(super) fn duplicate_text(&mut self, field: &str, value: &str) {
        self.0.push(FieldError {
            reason: FieldReason::Duplicate,
            field: field.to_owned(),
            value: value.to_owned(),
            detail: String::new(),
        });
    }

    pub(super) fn not_found(&mut self, field: impl Into<String>, value: &Value) {
        self.push(FieldReason::NotFound, field, value, String::new());
    }

    pub(super) fn unsupported(&mut self, field: impl Into<String>, value: &Value, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|name| format!("\"{name}\"")).collect();
        self.push(FieldReason::NotSupported, field, value, format!("supported values: {}", supported.join(", ")));
    }

    fn push(&mut self, reason: FieldReason, field: impl Into<String>, value: &Value, detail: String) {
        self.0.push(FieldError { reason, field: field.into(), value: value.to_string(), detail });
    }

    /// A text that has to be one of several. An absent one is none of this check's business.
    pub(super) fn one_of(&mut self, field: impl Into<String>, value: &Value, supported: &[&str]) {
        if value.as_str().is_some_and(|text| !supported.contains(&text)) {
            self.unsupported(field, value, supported);
        }
    }

    /// A number that, if it is there, may not be below zero.
    pub(super) fn not_negative(&mut self, field: impl Into<String>, value: &Value) {
        if value.as_i64().is_some_and(|number| number < 0) {
            self.invalid(field, value, "must be greater than or equal to 0");
        }
    }

    /// A text that may not be empty. Tells whether it is there.
    pub(super) fn present(&mut self, field: impl Into<String>, value: &Value) -> bool {
        let is_present = value.as_str().is_some_and(|text| !text.is_empty());
        if !is_present {
            self.required(field, "");
        }
        is_present
    }

    pub(super) fn port(&mut self, field: impl Into<String>, number: i64) {
        if !(1..=65_535).contains(&number) {
            self.invalid(field, &json!(number), "must be between 1 and 65535, inclusive");
        }
    }

    /// `IsValidPortName`.
    pub(super) fn port_name(&mut self, field: &str, name: &Value) {
        let text = name.as_str().unwrap_or_default();
        if text.len() > 15 {
            self.invalid(field, name, "must be no more than 15 characters");
        }
        let in_alphabet = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !text.bytes().all(in_alphabet) {
            self.invalid(field, name, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
        }
        if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            self.invalid(field, name, "must contain at least one letter (a-z)");
        }
        if text.contains("--") {
            self.invalid(field, name, "must not contain consecutive hyphens");
        }
        if text.starts_with('-') || text.ends_with('-') {
            self.invalid(field, name, "must not begin or end with a hyphen");
        }
    }

    /// A port by number or name (`ValidatePortNumOrName`).
    pub(super) fn port_number_or_name(&mut self, field: &str, port: &Value) {
        match port.as_str() {
            Some(_) => self.port_name(field, port),
            None => self.port(field, port.as_i64().unwrap_or(0)),
        }
    }

    pub(super) fn dns_label(&mut self, field: impl Into<String>, name: &Value) {
        if let Some(detail) = metadata::label_fault(name.as_str().unwrap_or_default()) {
            self.invalid(field, name, detail);
        }
    }

    pub(super) fn dns_subdomain(&mut self, field: impl Into<String>, name: &Value) {
        if let Some(detail) = metadata::subdomain_fault(name.as_str().unwrap_or_default()) {
            self.invalid(field, name, detail);
        }
    }

    pub(super) fn ip(&mut self, field: impl Into<String>, address: &Value) {
        if address.as_str().unwrap_or_default().parse::<std::net::IpAddr>().is_err() {
            self.invalid(field, address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
    }

    /// Labels, or what has their form.
    pub(super) fn labels(&mut self, field: &str, labels: &Value) {
        metadata::label_problems(field, labels, &mut self.0);
    }

    pub(super) fn annotations(&mut self, field: &str, annotations: &Value) {
        metadata::annotation_problems(field, annotations, &mut self.0);
    }

    /// An absolute number that is not negative, or a percentage.
    pub(super) fn amount(&mut self, field: &str, amount: &Value) {
        match amount {
            Value::Number(_) => self.not_negative(field, amount),
            Value::String(text) => {
                let digits = text.strip_suffix('%').unwrap_or_default();
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    self.invalid(
                        field,
                        amount,
                        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                         regex used for validation is '[0-9]+%')",
                    );
                }
            }
            _ => {}
        }
    }

    /// A percentage of at most 100.
    pub(super) fn at_most_all(&mut self, field: &str, amount: &Value) {
        let percent = amount.as_str().and_then(|text| text.strip_suffix('%')?.parse::<u64>().ok());
        if percent.is_some_and(|percent| percent > 100) {
            self.invalid(field, amount, "must not be greater than 100%");
        }
    }
}

/// Whether an amount is there and comes to nothing.
pub(super) fn is_zero_amount(amount: &Value) -> bool {
    match amount {
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.trim_end_matches('%').parse::<i64>() == Ok(0),
        _ => false,
    }
}

pub(super) fn items<'a>(object: &'a Value, list: &str) -> &'a [Value] {
    object[list].as_array().map_or(&[][..], Vec::as_slice)
}
