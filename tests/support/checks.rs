//! What must hold at every instant, and what two ends of a story must have in common.

use std::collections::BTreeMap;

pub use aviary_loadtest::checks::{Watchman, final_state};

/// Says which objects differ, and how.
pub fn assert_same_end(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>, context: &str) {
    let differences = aviary_loadtest::checks::differences(expected, found);
    assert!(differences.is_empty(), "{context}: the cluster did not end as it should\n{differences}");
}
