//! Both versions of a Canary, and the examples of the older systems, on a real API server that converts nothing.

use super::{Inside, in_bench};
use crate::examples::are_taken_as_they_are;
use crate::flagger_v1alpha1::both_versions_round_trip;

#[test]
fn both_versions_of_a_canary_hand_out_the_same_object() {
    in_bench(
        "real::versions_of_canaries::both_versions_of_a_canary_hand_out_the_same_object",
        async |bench: Inside| {
            let client = bench.client("admin").await;
            both_versions_round_trip(&client).await;
            are_taken_as_they_are(&client).await;
        },
    );
}
