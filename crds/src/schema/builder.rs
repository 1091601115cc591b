//! Small helpers that build OpenAPI v3 schemas as JSON.

use serde_json::{Map, Value, json};

/// A schema under construction.
pub(super) struct Schema(Map<String, Value>);

impl Schema {
    fn of_type(name: &str, description: &str) -> Schema {
        Schema(Map::new()).with("type", name).described(description)
    }

    pub(super) fn string(description: &str) -> Schema {
        Schema::of_type("string", description)
    }

    pub(super) fn boolean(description: &str) -> Schema {
        Schema::of_type("boolean", description)
    }

    /// What Flagger's schema has for integers of its own. Fractions are admitted here and refused later.
    pub(super) fn number(description: &str) -> Schema {
        Schema::of_type("number", description)
    }

    pub(super) fn integer(description: &str) -> Schema {
        Schema::of_type("integer", description)
    }

    pub(super) fn port(description: &str) -> Schema {
        Schema::integer(description).with("format", "int32").with("minimum", 1).with("maximum", 65535)
    }

    pub(super) fn int_or_string(description: &str) -> Schema {
        Schema(Map::new()).with("x-kubernetes-int-or-string", true).described(description)
    }

    pub(super) fn time(description: &str) -> Schema {
        Schema::string(description).with("format", "date-time")
    }

    pub(super) fn list(description: &str, items: Schema) -> Schema {
        Schema::of_type("array", description).with("items", items.into_value())
    }

    pub(super) fn strings(description: &str) -> Schema {
        Schema::list(description, Schema::string(""))
    }

    pub(super) fn map(description: &str, values: Schema) -> Schema {
        Schema::plain_object().described(description).with("additionalProperties", values.into_value())
    }

    pub(super) fn string_map(description: &str) -> Schema {
        Schema::map(description, Schema::string(""))
    }

    /// An object of which nothing is said.
    pub(super) fn plain_object() -> Schema {
        Schema::of_type("object", "")
    }

    pub(super) fn object<'a>(description: &str, fields: impl IntoIterator<Item = (&'a str, Schema)>) -> Schema {
        let properties: Map<String, Value> =
            fields.into_iter().map(|(name, field)| (name.to_owned(), field.into_value())).collect();
        Schema::plain_object().described(description).with("properties", properties)
    }

    /// An object with one more field.
    pub(super) fn and(mut self, name: &str, field: Schema) -> Schema {
        if let Some(properties) = self.0.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert(name.to_owned(), field.into_value());
        }
        self
    }

    /// Sets a keyword.
    pub(super) fn with(mut self, keyword: &str, value: impl Into<Value>) -> Schema {
        self.0.insert(keyword.to_owned(), value.into());
        self
    }

    fn described(self, description: &str) -> Schema {
        if description.is_empty() { self } else { self.with("description", description) }
    }

    pub(super) fn require(self, fields: &[&str]) -> Schema {
        self.with("required", json!(fields))
    }

    pub(super) fn values(self, allowed: &[&str]) -> Schema {
        self.with("enum", json!(allowed))
    }

    /// Exactly one of these sets of fields must be present.
    pub(super) fn exactly_one_of(self, sets: &[&[&str]]) -> Schema {
        let alternatives: Vec<Value> = sets.iter().map(|fields| json!({"required": fields})).collect();
        self.with("oneOf", alternatives)
    }

    /// At most one of these fields may be present.
    pub(super) fn at_most_one_of(self, fields: &[&str]) -> Schema {
        let one: Vec<Value> = fields.iter().map(|field| json!({"required": [field]})).collect();
        let alternatives: Vec<Value> =
            std::iter::once(json!({"not": {"anyOf": one}})).chain(one.iter().cloned()).collect();
        self.with("oneOf", alternatives)
    }

    /// A rule in the Common Expression Language. `reason` and `field` are what a violation is told as.
    pub(super) fn rule(self, rule: &str, message: &str, reason: &str, field: &str) -> Schema {
        let rule = json!({"rule": rule, "message": message, "reason": reason, "fieldPath": field});
        self.with("x-kubernetes-validations", json!([rule]))
    }

    /// A name in the style of a DNS subdomain, within these lengths. `empty` allows none at all.
    pub(super) fn subdomain(self, empty: bool) -> Schema {
        const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
        let pattern = if empty { format!("^$|{SUBDOMAIN}") } else { SUBDOMAIN.to_owned() };
        let schema = self.with("maxLength", 253).with("pattern", pattern);
        if empty { schema } else { schema.with("minLength", 1) }
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}
