//! What is wrong with a spec: everything at once, each with its path and a way out.

use std::fmt;

use serde_json::Value;
use thiserror::Error;

use crate::decode::shorten;

/// One thing that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field from the root of the object, such as `spec.analysis.webhooks[0].timeout`.
    pub path: String,
    /// What stands there, as JSON, shortened. `None` if nothing does.
    pub value: Option<String>,
    /// What is wrong. Where Flagger refuses the same, its text.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)?;
        if let Some(value) = &self.value {
            write!(formatter, " (got {value})")?;
        }
        write!(formatter, "; {}", self.fix)
    }
}

/// Everything that is wrong with a spec; never empty when it is an error. Displays one problem per line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Error)]
#[error("{}", self.render())]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    fn render(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    /// Adds a problem with a value.
    pub(crate) fn add(
        &mut self,
        path: impl Into<String>,
        value: impl Into<Value>,
        message: impl Into<String>,
        fix: &str,
    ) {
        self.0.push(Problem {
            path: path.into(),
            value: Some(shorten(&value.into())),
            message: message.into(),
            fix: fix.to_owned(),
        });
    }

    /// Adds a problem with something that is not there.
    pub(crate) fn add_missing(&mut self, path: impl Into<String>, message: impl Into<String>, fix: &str) {
        self.0.push(Problem { path: path.into(), value: None, message: message.into(), fix: fix.to_owned() });
    }
}
