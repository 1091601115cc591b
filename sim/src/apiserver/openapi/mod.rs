//! The OpenAPI definitions of built-in kinds, and the documents that are served.

pub(crate) mod definitions;
mod documents;

use super::response::Answer;
use crate::store::{Store, to_bytes};

/// Which document a path names.
#[derive(Debug)]
pub(crate) enum OpenApiPath {
    Index,
    Document { group: String, version: String },
}

pub(super) fn answer(store: &Store, path: &OpenApiPath) -> Answer {
    match path {
        OpenApiPath::Index => Answer::json(200, to_bytes(&documents::index(store))),
        OpenApiPath::Document { group, version } => match documents::document(store, group, version) {
            Some(document) => Answer::json(200, document.into()),
            None => Answer::unknown_path(),
        },
    }
}
