//! One step of a path into an object.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

/// One step of a path (`fieldpath.PathElement`): the field of an object, or an item of a list by its key fields, by its value
/// or by its position.
///
/// Ordered as the API server orders them: fields, keys, values, positions.
#[derive(Clone, Debug)]
pub(crate) enum PathElement {
    /// A field of an object or a key of a map.
    Field(Box<str>),
    /// An item of a list of type `map`: its key fields by name, sorted.
    Key(Box<[(Box<str>, Value)]>),
    /// An item of a list of type `set`.
    Value(Box<Value>),
    /// An item by its position; the API server knows such elements and never makes them.
    Index(i64),
}

/// Why a text is no path element.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElementError {
    #[error("key must be 2 characters long")]
    TooShort,
    #[error("missing colon: {0}")]
    NoColon(String),
    #[error("failed to read the path element {text:?}")]
    NotJson { text: String, source: serde_json::Error },
    #[error("failed to read the position {0:?}")]
    NoPosition(String),
}

impl PathElement {
    pub(crate) fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// Reads the form that FieldsV1 uses as keys. `None` for kinds of elements that are not known; they are to be ignored.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, ElementError> {
        if text.len() < 2 {
            return Err(ElementError::TooShort);
        }
        let Some((kind, content)) = text.split_at_checked(2).filter(|(kind, _)| kind.ends_with(':')) else {
            return Err(ElementError::NoColon(text.to_owned()));
        };
        let not_json = |source| ElementError::NotJson { text: text.to_owned(), source };
        let element = match kind {
            "f:" => Self::field(content),
            "v:" => Self::Value(Box::new(serde_json::from_str(content).map_err(not_json)?)),
            "k:" => {
                let fields: serde_json::Map<String, Value> = serde_json::from_str(content).map_err(not_json)?;
                // The map is sorted by name already.
                Self::Key(fields.into_iter().map(|(name, value)| (name.into_boxed_str(), value)).collect())
            }
            "i:" => Self::Index(content.parse().map_err(|_| ElementError::NoPosition(content.to_owned()))?),
            _ => return Ok(None),
        };
        Ok(Some(element))
    }

    /// The form that FieldsV1 uses as keys: `f:spec`, `k:{"name":"app"}`, `v:"finalizer"`.
    pub(crate) fn serialised(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
            Self::Key(fields) => {
                let mut text = "k:{".to_owned();
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    text.push_str(&Value::from(&**name).to_string());
                    text.push(':');
                    text.push_str(&value.to_string());
                }
                text.push('}');
                text
            }
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

/// As conflicts name it: `.spec`, `[name="app"]`, `[="finalizer"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(formatter, ".{name}"),
            Self::Value(value) => write!(formatter, "[={value}]"),
            Self::Index(index) => write!(formatter, "[{index}]"),
            Self::Key(fields) => {
                formatter.write_str("[")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let separator = if index > 0 { "," } else { "" };
                    write!(formatter, "{separator}{name}={value}")?;
                }
                formatter.write_str("]")
            }
        }
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PathElement {}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(left), Self::Field(right)) => left.cmp(right),
            (Self::Value(left), Self::Value(right)) => compare_values(left, right),
            (Self::Index(left), Self::Index(right)) => left.cmp(right),
            (Self::Key(left), Self::Key(right)) => {
                for ((left_name, left_value), (right_name, right_value)) in left.iter().zip(right) {
                    let order = left_name.cmp(right_name).then_with(|| compare_values(left_value, right_value));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                left.len().cmp(&right.len())
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// A total order of JSON values (`value.Compare`): numbers by their value whatever their form, texts, booleans, lists, maps,
/// null.
fn compare_values(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            let differing = left.iter().zip(right).map(|(left, right)| compare_values(left, right));
            first_difference(differing).unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Value::Object(left), Value::Object(right)) => {
            let differing = left
                .iter()
                .zip(right)
                .map(|(left, right)| left.0.cmp(right.0).then_with(|| compare_values(left.1, right.1)));
            first_difference(differing).unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        _ => value_rank(left).cmp(&value_rank(right)),
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Option<Ordering> {
    orders.find(|order| *order != Ordering::Equal)
}

fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        return left.cmp(&right);
    }
    if let (Some(left), Some(right)) = (left.as_u64(), right.as_u64()) {
        return left.cmp(&right);
    }
    left.as_f64().unwrap_or(f64::NAN).total_cmp(&right.as_f64().unwrap_or(f64::NAN))
}

fn value_rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}
