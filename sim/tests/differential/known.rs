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

    fn is_json_patch(&self) -> bool {
        self.operation.content_type == "application/json-patch+json"
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
    ("a refused write has no warnings here", |met| {
        met.are_refused() && met.here.warnings.is_empty() && met.differ_only_in("nothing")
    }),
    ("not every warning is given here", |met| met.here.warnings.is_empty() && met.differ_only_in("nothing")),
    ("an applied configuration that cannot be read is refused by other words, and later", |met| {
        met.is_apply() && met.real.code == 500 && matches!(met.here.code, 400 | 404 | 500)
    }),
    ("unknown fields of a custom resource are found after what else is wrong with a write", |met| {
        met.is_custom()
            && met.real.code == 400
            && met.here.code >= 400
            && met.said(met.real).contains("strict decoding error")
    }),
    ("a custom resource whose apiVersion is null is refused by other words", |met| {
        met.real.code == 400 && met.here.code == 400 && met.said(met.real).contains("accessor error")
    }),
    ("a custom resource that a patch leaves without apiVersion is refused by other words", |met| {
        met.is_custom()
            && met.operation.method == "PATCH"
            && met.real.code == 500
            && met.here.code == 400
            && met.said(met.real).contains("Object 'apiVersion' is missing")
    }),
    ("nulls within a strategic merge patch are shown here in the text that refuses it", |met| {
        (met.said(met.real) + &met.real.body["details"].to_string()).contains("cannot restore ")
            && met.real.code == met.here.code
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
    ("objects without generation keep none that they are given", |met| {
        met.differ_only_in("/metadata/generation") && met.real.body["metadata"]["generation"] == 7
    }),
    ("a rehearsed deletion is answered as one in the background", |met| {
        met.operation.method == "DELETE" && met.says("dryRun") && met.real.code == 200 && met.here.code == 200
    }),
    ("the status of a Service that is not there creates the Service", |met| {
        met.operation.path.contains("/services/a/status") && matches!(met.real.code, 201 | 422) && met.here.code == 404
    }),
    ("a patch of a built-in object's type is refused here in the words for bodies, or at all", |met| {
        met.operation.method == "PATCH"
            && (met.says("\"kind\"") || met.says("/kind") || met.says("piVersion"))
            && met.said(met.here).contains("is registered for version")
    }),
    ("a JSON patch that empties managed fields and changes more", |met| {
        let is_theirs = |path: &str| path.starts_with("/metadata/managedFields") || path == "/metadata/resourceVersion";
        met.is_json_patch()
            && met.says("managedFields")
            && met.real.code == met.here.code
            && met.places.iter().all(|place| is_theirs(&place.path))
    }),
    (
        "managed fields given with an apply are refused by whether they are null, and before the object is looked for",
        |met| met.is_apply() && met.says("managedFields") && (met.real.code == 400 || met.here.code == 400),
    ),
    ("what a Scale owns at zero replicas", |met| {
        met.operation.path.contains("/scale") && met.differ_only_in("/metadata/managedFields")
    }),
    ("a Scale of a custom resource that cannot be read is refused by other words", |met| {
        met.is_custom() && met.operation.path.contains("/scale") && met.real.code == 400 && met.here.code == 400
    }),
    ("a custom resource of another version is refused by other words", |met| {
        met.is_custom()
            && met.real.code == 422
            && met.here.code == 400
            && met.said(met.here).contains("does not match the expected API version")
    }),
    ("that rules were not checked is told here in fewer cases", |met| {
        met.are_refused() && met.real.body.to_string().contains("some validation rules were not checked")
    }),
    ("the words for negative replicas of custom resources", |met| {
        met.operation.path.contains("/scale") && met.real.code == 422 && met.here.code == 422
    }),
    ("a deletion time that is applied to nothing is kept by the real one", |met| {
        met.is_apply() && met.says("deletionTimestamp") && met.real.code == 201
    }),
    ("a copy or move of nothing is null to the real one", |met| {
        met.is_json_patch() && (met.says("\"copy\"") || met.says("\"move\"")) && met.here.code >= 400
    }),
    ("a name that was generated and is taken is told by other words", |met| {
        met.says("generateName") && met.real.code == 409 && met.here.code == 409
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
    ("the deprecated name of serviceAccountName keeps the value that an apply lets go", |met| {
        met.is_apply()
            && met.operation.path.contains("/deployments")
            && met.here.body["spec"]["template"]["spec"]["serviceAccountName"].is_null()
            && met.real.body["spec"]["template"]["spec"]["serviceAccountName"] == "robot"
    }),
    ("which of two sources of a volume is the one too many", |met| {
        met.are_refused() && met.said(met.real).contains("more than 1 volume type")
    }),
    ("a strategy that does not exist is shown with its defaults", |met| {
        met.said(met.real).contains("spec.strategy: Unsupported value") && met.real.code == met.here.code
    }),
    ("a Service with a wrong address, or without a name, is refused by other words", |met| {
        met.operation.path.contains("/services")
            && met.real.code == 422
            && met.here.code == 422
            && format!("{}", met.real.body).contains("spec.clusterIPs")
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
