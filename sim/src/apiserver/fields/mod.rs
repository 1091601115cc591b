//! Ownership of fields: `metadata.managedFields` and server-side apply.
//!
//! The algorithms are those of structured-merge-diff v6 and of the API server's field managers around it
//! (`k8s.io/apimachinery/pkg/util/managedfields`), over JSON values and the schemas of the served resources.
//!
//! | module | |
//! |---|---|
//! | `element`, `set`, `json` | paths, sets of paths, and FieldsV1 |
//! | `types`, `skeleton` | what the kinds say of their fields |
//! | `compare`, `merge`, `validate` | walks over values |
//! | `managed`, `text` | the list of managers, and how objects keep it |
//! | `created`, `update`, `apply`, `last_applied`, `scale` | what requests do to it |

mod apply;
mod compare;
mod created;
mod element;
mod json;
mod last_applied;
mod managed;
mod merge;
mod scale;
mod set;
mod skeleton;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod types;
mod update;
mod validate;

pub(crate) use apply::{Apply, ApplyError, describe, drop_nulls};
pub(crate) use managed::is_same_but_for_times;
pub(crate) use scale::{apply_scale, track_scale};
pub(crate) use skeleton::of as empty_object;
pub(crate) use text::{expand, restore, store as store_text, stored as stored_text, take as take_text};
pub(crate) use update::{Before, Conflict, Writer, track_controller, track_update};
pub(crate) use validate::{go_text, go_type};
