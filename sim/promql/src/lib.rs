//! A PromQL evaluator over any source of samples.
//!
//! The parser is a library's (`promql-parser`); this crate gives the parsed expression Prometheus' meaning: selection
//! with lookback and stale markers, `rate` and its relatives with Prometheus' extrapolation, aggregation, vector matching
//! and classic histograms. It serves the embedded cluster, so it covers what canary analyses ask and refuses the rest
//! **by name** ([`QueryError::Unsupported`]) before any sample is read: a query never gets a wrong answer because a
//! feature is missing.
//!
//! ```
//! use aviary_promql::{MemorySource, QueryValue, evaluate};
//!
//! let mut source = MemorySource::default();
//! source.append(&[("__name__", "up"), ("job", "web")], 1_000, 1.0);
//! let QueryValue::Vector(vector) = evaluate(&source, "up * 2", 2_000)? else { unreachable!() };
//! assert_eq!(vector[0].value, 2.0);
//! # Ok::<(), aviary_promql::QueryError>(())
//! ```

pub mod api;
mod engine;
mod error;
mod eval;
mod labels;
mod lower;
mod matcher;
mod number;
mod plan;
mod series;
mod syntax;

pub use aviary_promql_syntax::DEEPEST as DEEPEST_QUERY;
pub use engine::{
    EngineOptions, Query, QueryValue, RangeBoundary, VectorSample, evaluate, evaluate_range, format_query,
    parse_selector,
};
pub use error::QueryError;
pub use labels::{Labels, METRIC_NAME};
pub use matcher::{MatchOperator, Matcher};
pub use number::format_float;
pub use series::{MemorySource, Sample, Series, SeriesSource, is_stale, stale_marker};
