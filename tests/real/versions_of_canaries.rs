//! Both versions of a Canary, on a real API server that converts nothing.

use super::{Inside, in_bench};
use crate::flagger_v1alpha1::both_versions_round_trip;

#[test]
fn both_versions_of_a_canary_hand_out_the_same_object() {
    in_bench(
        "real::versions_of_canaries::both_versions_of_a_canary_hand_out_the_same_object",
        async |bench: Inside| {
            both_versions_round_trip(&bench.client("admin").await).await;
        },
    );
}
