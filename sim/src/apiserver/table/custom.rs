//! Columns of custom resources (`apiextensions-apiserver/pkg/registry/customresource/tableconvertor`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration;
use super::json_path::{JsonPath, JsonPathError};

/// The columns that a definition declares for one version.
#[derive(Debug)]
pub(crate) struct CustomColumns {
    columns: Vec<CustomColumn>,
}

#[derive(Debug)]
struct CustomColumn {
    name: String,
    column_type: String,
    format: String,
    description: String,
    priority: i64,
    path: JsonPath,
}

impl CustomColumns {
    /// Reads `additionalPrinterColumns`; without any, the age is shown. A definition is not refused for a path that does not parse:
    /// the columns before it are shown, and none after it.
    pub(crate) fn parse(declared: &Value) -> Self {
        let age = json!([{
            "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "time since creation",
        }]);
        let declared = declared.as_array().filter(|columns| !columns.is_empty()).or(age.as_array());
        Self { columns: declared.into_iter().flatten().map_while(|column| CustomColumn::parse(column).ok()).collect() }
    }

    pub(super) fn headers(&self) -> Value {
        let mut headers =
            vec![json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0})];
        headers.extend(self.columns.iter().map(|column| {
            json!({
                "name": column.name, "type": column.column_type, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        }));
        Value::Array(headers)
    }

    pub(super) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![super::cells::name(object)];
        cells.extend(self.columns.iter().map(|column| column.cell(object, now)));
        cells
    }
}

impl CustomColumn {
    fn parse(declared: &Value) -> Result<Self, JsonPathError> {
        let text = |name: &str| declared[name].as_str().unwrap_or_default().to_owned();
        let path = text("jsonPath");
        let parsed = JsonPath::parse(&path)?;
        let mut description = text("description");
        if description.is_empty() {
            description = format!("Custom resource definition column (in JSONPath format): {path}");
        }
        Ok(Self {
            name: text("name"),
            column_type: text("type"),
            format: text("format"),
            description,
            priority: declared["priority"].as_i64().unwrap_or(0),
            path: parsed,
        })
    }

    /// The first value that the path finds, where it is of the declared type.
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(found) = self.path.first(object) else {
            return Value::Null;
        };
        match (self.column_type.as_str(), found) {
            ("string", Value::Null) => json!("<nil>"),
            ("string", Value::String(text)) => json!(text),
            ("string", other) => json!(other.to_string()),
            ("integer", Value::Number(number)) => {
                // A whole number may be written with a fraction of zero; Go cuts what is behind the point.
                #[allow(clippy::cast_possible_truncation)]
                let whole = number.as_i64().or_else(|| number.as_f64().map(|number| number as i64));
                json!(whole)
            }
            ("number", Value::Number(number)) => json!(number.as_f64()),
            ("boolean", Value::Bool(flag)) => json!(flag),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(_) => json!(duration::since(found, now)),
                Err(_) => json!("<invalid>"),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::CustomColumns;

    #[test]
    fn values_are_shown_by_their_declared_type() {
        let columns = json!([
            {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
            {"name": "Weight", "type": "string", "jsonPath": ".status.weight"},
            {"name": "Weights", "type": "string", "jsonPath": ".spec.weights"},
            {"name": "Count", "type": "integer", "jsonPath": ".status.weight", "priority": 1},
            {"name": "Wrong", "type": "integer", "jsonPath": ".status.phase"},
            {"name": "Missing", "type": "string", "jsonPath": ".status.none"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "Bad", "type": "date", "jsonPath": ".status.phase"},
        ]);
        let columns = CustomColumns::parse(&columns);
        let object = json!({
            "metadata": {"name": "x", "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": {"weights": [1, 2]},
            "status": {"phase": "Progressing", "weight": 50, "conditions": [{"type": "A", "status": "F"}, {"type": "Ready", "status": "True"}]},
        });
        let cells = columns.cells(&object, Timestamp::from_second(200).unwrap());
        let expected = json!(["x", "Progressing", "50", "[1,2]", 50, null, null, "True", "3m20s", "<invalid>"]);
        assert_eq!(Value::Array(cells), expected);
        assert_eq!(columns.headers()[4]["priority"], 1);
    }

    #[test]
    fn without_columns_the_age_is_shown_and_none_from_a_bad_path_on() {
        assert_eq!(CustomColumns::parse(&Value::Null).headers()[1]["name"], "Age");
        let column = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
        let shown = CustomColumns::parse(&json!([column("A", ".a"), column("B", ".b["), column("C", ".c")])).headers();
        assert_eq!((shown.as_array().unwrap().len(), &shown[1]["name"]), (2, &json!("A")));
    }
}
