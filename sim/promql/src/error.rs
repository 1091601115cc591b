//! Why a query has no answer.

use thiserror::Error;

/// Why a query has no answer, in the classes that Prometheus' HTTP API distinguishes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// The query or one of its parameters is malformed (`bad_data`, HTTP 400).
    #[error("{0}")]
    BadData(String),
    /// The query is well formed but cannot be evaluated on this data, for example because a vector match is ambiguous
    /// (`execution`, HTTP 422).
    #[error("{0}")]
    Execution(String),
    /// The query is valid PromQL that this engine does not implement. `what` names the construct, for example
    /// `function predict_linear` (`execution`, HTTP 422).
    #[error("evaluate query: {what} is not supported by this engine")]
    Unsupported {
        /// The construct, as a user would call it.
        what: String,
    },
}

impl QueryError {
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }
}
