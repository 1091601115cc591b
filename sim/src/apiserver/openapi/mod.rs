//! The OpenAPI definitions of built-in kinds, and the documents that are served.

pub(crate) mod definitions;
mod documents;
mod version_2;

use super::response::Answer;
use crate::store::{Store, to_bytes};

/// Which document a path names.
#[derive(Debug)]
pub(crate) enum OpenApiPath {
    /// The older description of everything in one document.
    Version2,
    Index,
    Document {
        group: String,
        version: String,
    },
}

pub(super) fn answer(store: &Store, path: &OpenApiPath, accept: &str) -> Answer {
    match path {
        OpenApiPath::Version2 => version_2::answer(accept),
        OpenApiPath::Index => Answer::json(200, to_bytes(&documents::index(store))),
        OpenApiPath::Document { group, version } => match documents::document(store, group, version) {
            Some(document) => Answer::json(200, document.into()),
            None => Answer::unknown_path(),
        },
    }
}
