//! The API server of the embedded cluster.

pub mod definition;
pub mod schema;
