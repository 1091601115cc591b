//! Routes of the input that a user has made for both sides, and in which no weights can be set.

use aviary_actors::ControllerConfig;
use aviary_providers::traffic::{self, TrafficError};
use aviary_providers::{Subject as Seen, kinds};
use aviary_rollout::Split;

use super::manifests::Manifests;
use super::queries::Given;
use super::subject::Subject;

/// Where the rules are.
const RULES: &str = "spec.http";

/// Tells such routes, which the operator leaves alone: nothing would happen. What is not in the input is told by whoever misses it.
pub(crate) fn unusable(config: &ControllerConfig, subjects: &[Subject], manifests: &Manifests) -> Vec<String> {
    let mut problems = Vec::new();
    let objects = Given(manifests);
    for subject in subjects {
        let Some(route) = &subject.canary.user_route else { continue };
        let kind = &kinds::VIRTUAL_SERVICE;
        let Some(manifest) = manifests.find(kind.group, kind.kind, subject.namespace(), &route.virtual_service) else {
            continue;
        };
        let seen = Seen { canary: &subject.canary, settings: &config.providers, objects: &objects, cookies: None };
        let Ok(provider) = traffic::for_subject(&seen) else { continue };
        if let Err(TrafficError::Impossible { problem, .. }) = provider.set(&seen, Split::PRIMARY) {
            let message = manifest.message(RULES, &problem);
            // Two objects may share their routes.
            if !problems.contains(&message) {
                problems.push(message);
            }
        }
    }
    problems
}
