//! Structural schemas.

use crate::store::FieldError;
use serde_json::Value;

/// A compiled structural schema.
#[derive(Debug)]
pub struct Schema;

impl Schema {
    pub(crate) fn compile(_declared: &Value, _path: &str) -> Result<Self, Vec<FieldError>> {
        Ok(Self)
    }
}
