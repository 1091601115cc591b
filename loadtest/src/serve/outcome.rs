//! What a command came to.

/// Most of an output that is kept: what a person reads in a log or an answer. What comes behind it is not looked at by a
/// filter either.
pub(super) const OUTPUT_LIMIT: usize = 1024 * 1024;

/// How a command ended, and what it wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// As of a process.
    pub(super) exit_code: i32,
    /// Standard output.
    pub(super) output: Vec<u8>,
    /// What went wrong.
    pub(super) error: String,
}

impl Outcome {
    pub(super) fn failed(exit_code: i32, error: impl Into<String>) -> Outcome {
        Outcome { exit_code, output: Vec::new(), error: error.into() }
    }

    pub(super) fn is_success(&self) -> bool {
        self.exit_code == 0
    }

    /// Output and error, as Flagger answers and logs them: at most so many bytes.
    pub(super) fn text(&self, limit: usize) -> String {
        let output = String::from_utf8_lossy(&self.output[..self.output.len().min(limit)]);
        let more = if self.output.len() > limit { "…" } else { "" };
        [output.trim_end(), more, &self.error]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Appends what there is room for.
pub(super) fn append(output: &mut Vec<u8>, bytes: &[u8]) {
    let room = OUTPUT_LIMIT.saturating_sub(output.len());
    output.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
