//! How much was compared, and how much known differences hid.

use std::collections::BTreeMap;
use std::fmt;

use crate::generate::Operation;
use crate::known::{self, Met};
use crate::server::Answer;
use crate::{Difference, Place};

/// Of one sequence, or of many.
#[derive(Default)]
pub(crate) struct Tally {
    /// Whose answers were compared.
    pub(crate) operations: usize,
    /// That a known difference in an object left unseen, since it ended their sequence.
    pub(crate) unseen: usize,
    /// Sequences that ended so.
    pub(crate) ended: usize,
    /// Whose events were compared.
    pub(crate) watches: usize,
    /// Sequences in which no object ever was.
    pub(crate) unwatched: usize,
    /// How often each known difference was met, and an example.
    known: BTreeMap<&'static str, (usize, String)>,
}

impl Tally {
    /// Answers that are not the same, and are not known not to be.
    pub(crate) fn judge(
        &mut self,
        position: usize,
        operation: &Operation,
        answers: (Answer, Answer),
    ) -> Option<Difference> {
        let (real, here) = answers;
        if real == here {
            return None;
        }
        let difference = Difference::at(position, real, here);
        let met = Met { operation, real: &difference.real, here: &difference.here, places: &difference.places };
        let Some(reason) = known::reason(&met) else { return Some(difference) };
        self.known.entry(reason).or_insert_with(|| (0, example(&met))).0 += 1;
        None
    }

    pub(crate) fn add(&mut self, other: Tally) {
        self.operations += other.operations;
        self.unseen += other.unseen;
        self.ended += other.ended;
        self.watches += other.watches;
        self.unwatched += other.unwatched;
        for (reason, (times, example)) in other.known {
            self.known.entry(reason).or_insert((0, example)).0 += times;
        }
    }

    /// Of a run of so many sequences, of some six operations each.
    pub(crate) fn assert_that_enough_was_compared(&self, sequences: u64) {
        let sequences = usize::try_from(sequences).unwrap();
        assert!(self.operations >= 4 * sequences, "{self}");
        assert!(self.watches * 10 >= 8 * sequences, "{self}");
        assert!(self.unseen * 100 <= 10 * self.operations, "{self}");
        for (reason, (times, example)) in &self.known {
            assert!(times * 100 <= known::MOST_PERCENT * self.operations, "{times} times {reason}: {example}");
        }
    }
}

fn example(met: &Met<'_>) -> String {
    let Operation { method, path, content_type, body } = met.operation;
    let codes =
        format!("real {} {:?}, here {} {:?}", met.real.code, met.real.warnings, met.here.code, met.here.warnings);
    let places: Vec<String> = met
        .places
        .iter()
        .take(3)
        .map(|Place { path, real, here }| format!("{path}: real {real}, here {here}"))
        .collect();
    format!("{method} {path} {content_type} {body}: {codes}; {}", places.join("; ")).chars().take(900).collect()
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (reason, (times, example)) in &self.known {
            writeln!(out, "{times} times: {reason}\n    {example}")?;
        }
        let Self { operations, unseen, ended, watches, unwatched, .. } = self;
        write!(
            out,
            "{operations} operations and {watches} watches were compared; {ended} sequences ended early, which left {unseen} \
             operations unseen, and {unwatched} had no object to watch"
        )
    }
}
