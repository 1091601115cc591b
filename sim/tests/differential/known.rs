//! Differences that are there and are known. A sequence that meets one goes on if both servers refused, or if only the warnings
//! differ; it ends if the objects are not the same any more. `sim/README.md` has the same list, with reasons.

use crate::Place;
use crate::generate::Operation;
use crate::server::Answer;

/// An answer to an operation by the real server and by the embedded one.
pub(crate) struct Met<'a> {
    pub(crate) operation: &'a Operation,
    pub(crate) real: &'a Answer,
    pub(crate) here: &'a Answer,
    pub(crate) places: &'a [Place],
}

impl Met<'_> {
    fn said(&self, server: &Answer) -> String {
        server.body["message"].as_str().unwrap_or_default().to_owned()
    }

    fn is_apply(&self) -> bool {
        self.operation.content_type == "application/apply-patch+yaml"
    }

    fn says(&self, text: &str) -> bool {
        self.operation.body.contains(text)
    }

    fn are_refused(&self) -> bool {
        self.real.code >= 400 && self.here.code >= 400
    }

    /// Whether they differ in nothing but fields whose path begins so.
    fn differ_only_in(&self, prefix: &str) -> bool {
        self.real.code == self.here.code && self.places.iter().all(|place| place.path.starts_with(prefix))
    }

    fn is_custom(&self) -> bool {
        self.operation.path.contains("/canaries") || self.operation.path.contains("/gadgets")
    }
}

type Known = (&'static str, fn(&Met<'_>) -> bool);

const KNOWN: &[Known] = &[
    ("not every warning is given here", |met| {
        let is_given = |warning: &String| met.real.warnings.contains(warning);
        met.here.warnings.iter().all(is_given) && met.differ_only_in("nothing")
    }),
    ("which of several fields that an applied configuration has wrong are told, and in which order", |met| {
        met.is_apply()
            && met.real.code == 500
            && met.here.code == 500
            && met.said(met.real).starts_with("failed to create typed patch object")
            && met.said(met.here).starts_with("failed to create typed patch object")
    }),
    ("a time that is given to what is being deleted has an owner in the real one", |met| {
        met.says("deletionTimestamp") && met.real.code == met.here.code && met.differ_only_in("/metadata/managedFields")
    }),
    ("managed fields of an object that does not fit its schema are forgotten by the real one", |met| {
        met.real.code == met.here.code
            && met.places.iter().all(|place| {
                // Which is a change, and gives the object another version.
                place.path.starts_with("/metadata/managedFields")
                    || place.path == "/metadata/resourceVersion"
                    || place.is_the_same_number()
            })
            && met.real.body["metadata"]["managedFields"].is_null()
            && met.here.body["metadata"]["managedFields"].is_array()
    }),
    ("the status of a Service that is not there creates the Service", |met| {
        met.operation.path.contains("/services/a/status") && met.here.code == 404
    }),
    (
        "managed fields given with an apply are refused by whether they are null, and before the object is looked for",
        |met| met.is_apply() && met.says("managedFields") && (met.real.code == 400 || met.here.code == 400),
    ),
    ("what a Scale owns at zero replicas", |met| {
        let follows = |path: &str| path.starts_with("/metadata/managedFields") || path == "/metadata/resourceVersion";
        met.operation.path.contains("/scale")
            && met.real.code == met.here.code
            && met.places.iter().all(|place| follows(&place.path))
    }),
    ("that rules were not checked is told here in fewer cases", |met| {
        met.are_refused() && met.real.body.to_string().contains("some validation rules were not checked")
    }),
    ("a deletion time that is applied to nothing is kept by the real one", |met| {
        met.is_apply() && met.says("deletionTimestamp") && met.real.code == 201
    }),
    ("a whole number with a fraction of zero in the place of the same without is a change to the real one", |met| {
        let follows = |path: &str| {
            matches!(path, "/metadata/generation" | "/metadata/resourceVersion")
                || path.starts_with("/metadata/managedFields")
        };
        met.is_custom()
            && met.says(".0")
            && met.real.code == met.here.code
            && met.places.iter().all(|place| follows(&place.path))
    }),
    ("numbers with a fraction in the place of whole ones are refused by other words", |met| {
        met.is_custom() && met.says(".5") && met.real.code == 422 && met.here.code == 422
    }),
    ("a Service with a wrong address, or without a name, is refused by other words", |met| {
        met.operation.path.contains("/services")
            && met.real.code == 422
            && met.here.code == 422
            && format!("{}", met.real.body).contains("spec.clusterIPs")
    }),
    ("an address out of a cluster's range is taken here", |met| {
        met.real.code == 422
            && met.here.code < 300
            && met.said(met.real).contains("is not in the valid range. The range of valid IPs")
    }),
];

#[test]
fn the_readme_lists_what_is_known() {
    let readme = include_str!("../../README.md");
    let heading = "## Answers that differ in random sequences";
    let section = readme.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let listed: Vec<&str> = rows.map(|(known, _)| known).filter(|known| !known.is_empty()).collect();
    let known: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).collect();
    assert_eq!(listed, known);
}

/// What is known about a difference.
pub(crate) fn reason(met: &Met<'_>) -> Option<&'static str> {
    KNOWN.iter().find(|(_, is_met)| is_met(met)).map(|(reason, _)| *reason)
}

/// Of a hundred operations so many may differ for one reason.
pub(crate) const MOST_PERCENT: usize = 5;
