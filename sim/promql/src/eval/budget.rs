//! How much work a query may make. There is no clock here, so work is counted, in units of about a sample that is looked at.

use std::cell::Cell;

use crate::error::QueryError;

/// A sample of a subquery, or of the answer: it is kept until the query ends. What a query may hold is thus what Prometheus allows, and
/// an optimised build has spent the whole in a few seconds. Dashboards stay below a hundredth.
pub(crate) const COLLECTED_SAMPLE: u64 = 10;
/// A node of the expression at one instant: some hundred nanoseconds.
pub(crate) const NODE: u64 = 200;
/// A selector at one instant: it looks at every series that there is.
pub(crate) const SELECTION: u64 = 1_000;

/// What is left.
#[derive(Debug)]
pub(crate) struct Budget {
    left: Cell<u64>,
}

impl Budget {
    /// Enough to collect `samples`.
    pub(crate) fn for_samples(samples: u64) -> Self {
        Self { left: Cell::new(samples.saturating_mul(COLLECTED_SAMPLE)) }
    }

    /// Takes `count` times `units`.
    ///
    /// # Errors
    /// [`QueryError::Execution`] in Prometheus' words if so much is not left.
    pub(crate) fn spend(&self, count: usize, units: u64) -> Result<(), QueryError> {
        let cost = u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(units);
        let Some(left) = self.left.get().checked_sub(cost) else {
            let message = "query processing would load too many samples into memory in query execution";
            return Err(QueryError::Execution(message.to_owned()));
        };
        self.left.set(left);
        Ok(())
    }
}
