//! The JSON schema of scenario files, from the table that they are checked by.

use serde_json::{Map, Value, json};

use super::shape::{Field, MOST_REQUESTS, SCENARIO, Shape};

/// The schema, for editors and other checkers.
pub fn json_schema() -> Value {
    let mut schema = object(SCENARIO);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Scenario of aviary simulate");
    schema
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!({"type": "string"}),
        Shape::Name => json!({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}),
        Shape::Image => json!({"type": "string", "pattern": "^[^\\s]+$"}),
        Shape::Tag => json!({"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"}),
        Shape::Choice(choices) => json!({"enum": choices}),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Whole(least, u64::MAX) => json!({"type": "integer", "minimum": least}),
        Shape::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Shape::Number => json!({"type": "number", "minimum": 0, "maximum": MOST_REQUESTS}),
        Shape::AnyNumber => json!({"type": "number"}),
        Shape::Ratio => json!({"type": "number", "minimum": 0, "maximum": 1}),
        Shape::Duration | Shape::Time => json!({
            "type": "string",
            "pattern": "^\\+?(0|([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$",
            "examples": ["90s", "1m30s", "500ms"],
        }),
        Shape::Object(fields) => object(fields),
        Shape::List(items) => json!({"type": "array", "items": of(items)}),
        Shape::Map(values) => json!({"type": "object", "additionalProperties": of(values)}),
        Shape::AnyObject => json!({"type": "object"}),
    }
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| {
            let mut property = of(&field.shape);
            property["description"] = json!(field.about);
            (field.name.to_owned(), property)
        })
        .collect();
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}
