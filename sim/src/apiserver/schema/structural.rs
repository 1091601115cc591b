//! Which schemas a CustomResourceDefinition may declare: structural ones
//! (`apiextensions-apiserver/pkg/apiserver/schema/validation.go`) without what the API server does not support
//! (`apiextensions-apiserver/pkg/apis/apiextensions/validation`).

use serde_json::{Value, json};

use super::Schema;
use super::compile::compile;
use super::path::FieldPath;
use crate::store::{FieldError, FieldReason};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Where a schema stands; what it needs depends on that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// All problems of a declared schema.
pub(crate) fn problems(declared: &Value, path: &str) -> Vec<FieldError> {
    let mut unsupported = Vec::new();
    check_supported(declared, path, &mut unsupported);
    if !unsupported.is_empty() {
        return unsupported;
    }
    let mut problems = Vec::new();
    check_structure(declared, Level::Root, path, &mut problems);
    check_completeness(declared, declared, path, path, &mut problems);
    // The API server sorts them too.
    problems.sort_by_key(ToString::to_string);
    if problems.is_empty() {
        check_defaults(declared, path, &mut problems);
    }
    problems
}

/// Calls for each schema directly below: properties, items, additional properties.
fn each_child<'a>(declared: &'a Value, path: &str, mut visit: impl FnMut(&'a Value, Level, String)) {
    if declared["items"].is_object() {
        visit(&declared["items"], Level::Item, format!("{path}.items"));
    }
    for (name, child) in declared["properties"].as_object().into_iter().flatten() {
        visit(child, Level::Field, format!("{path}.properties[{name}]"));
    }
    if declared["additionalProperties"].is_object() {
        visit(&declared["additionalProperties"], Level::Field, format!("{path}.additionalProperties"));
    }
}

/// Calls for each schema of a combination.
fn each_alternative<'a>(declared: &'a Value, path: &str, mut visit: impl FnMut(&'a Value, String)) {
    for combination in ["anyOf", "allOf", "oneOf"] {
        for (index, child) in declared[combination].as_array().into_iter().flatten().enumerate() {
            visit(child, format!("{path}.{combination}[{index}]"));
        }
    }
    if declared["not"].is_object() {
        visit(&declared["not"], format!("{path}.not"));
    }
}

/// `ValidateCustomResourceDefinitionOpenAPISchema`.
fn check_supported(declared: &Value, path: &str, problems: &mut Vec<FieldError>) {
    if declared["$ref"].is_string() {
        problems.push(FieldError::forbidden(format!("{path}.$ref"), "$ref is not supported"));
    }
    if declared["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        problems.push(FieldError::forbidden(format!("{path}.uniqueItems"), detail));
    }
    let has_properties = declared["properties"].as_object().is_some_and(|fields| !fields.is_empty());
    // `additionalProperties: false` is as good as none.
    let has_additional = declared["additionalProperties"].is_object() || declared["additionalProperties"] == true;
    if has_properties && has_additional {
        let detail = "additionalProperties and properties are mutual exclusive";
        problems.push(FieldError::forbidden(format!("{path}.additionalProperties"), detail));
    }
    if declared["items"].is_array() {
        let detail = "items must be a schema object and not an array";
        problems.push(FieldError::forbidden(format!("{path}.items"), detail));
    }
    if let Some(name) = declared["type"].as_str()
        && !name.is_empty()
        && !TYPES.contains(&name)
    {
        problems.push(unsupported(format!("{path}.type"), &declared["type"], &TYPES));
    }
    check_list_type(declared, path, problems);
    check_map_type(declared, path, problems);
    each_child(declared, path, |child, _, path| check_supported(child, &path, problems));
    each_alternative(declared, path, |child, path| check_supported(child, &path, problems));
}

fn check_list_type(declared: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let Some(list_type) = declared["x-kubernetes-list-type"].as_str() else {
        return;
    };
    if declared["type"] != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        problems.push(type_problem(declared, path, detail));
    }
    let items = &declared["items"];
    match list_type {
        "atomic" => {}
        "set" => {
            let is_collection = matches!(items["type"].as_str(), Some("object" | "array"));
            let is_atomic = items["x-kubernetes-map-type"] == "atomic" || items["x-kubernetes-list-type"] == "atomic";
            if is_collection && !is_atomic {
                let kind = if items["type"] == "object" { "map" } else { "list" };
                let field = format!("{path}.items.x-kubernetes-{kind}-type");
                let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
                problems.push(FieldError::invalid(field, &items[format!("x-kubernetes-{kind}-type")], detail));
            }
        }
        "map" => check_list_map(declared, path, problems),
        _ => {
            let field = format!("{path}.x-kubernetes-list-type");
            problems.push(unsupported(field, &json!(list_type), &["atomic", "set", "map"]));
        }
    }
}

fn check_list_map(declared: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let items = &declared["items"];
    let keys_path = format!("{path}.x-kubernetes-list-map-keys");
    let keys = declared["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        problems.push(FieldError::required(&keys_path, detail));
    }
    if items["type"] != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        problems.push(type_problem(items, &format!("{path}.items"), detail));
        return;
    }
    if keys.iter().filter_map(Value::as_str).any(|key| items["properties"].get(key).is_none()) {
        let keys = &declared["x-kubernetes-list-map-keys"];
        problems.push(FieldError::invalid(keys_path, keys, "entries must all be names of item properties"));
        return;
    }
    let required = items["required"].as_array().map_or(&[][..], Vec::as_slice);
    for key in keys.iter().filter(|key| !required.contains(key)).filter_map(Value::as_str) {
        if items["properties"][key].get("default").is_none() {
            let field = format!("{path}.items.properties[{key}].default");
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            problems.push(FieldError::required(field, detail));
        }
    }
}

fn check_map_type(declared: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let Some(map_type) = declared["x-kubernetes-map-type"].as_str() else {
        return;
    };
    if declared["type"] != "object" {
        problems.push(type_problem(declared, path, "must be object if x-kubernetes-map-type is specified"));
    }
    if !matches!(map_type, "atomic" | "granular") {
        let field = format!("{path}.x-kubernetes-map-type");
        problems.push(unsupported(field, &json!(map_type), &["atomic", "granular"]));
    }
}

/// `validateStructuralInvariants`.
fn check_structure(declared: &Value, level: Level, path: &str, problems: &mut Vec<FieldError>) {
    let flag = |name: &str| declared[name] == true;
    let (is_embedded, keeps_unknown) =
        (flag("x-kubernetes-embedded-resource"), flag("x-kubernetes-preserve-unknown-fields"));
    let type_name = declared["type"].as_str().unwrap_or_default();
    if type_name == "array" && !declared["items"].is_object() {
        problems.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    if level == Level::Root && !matches!(declared["additionalProperties"], Value::Null | Value::Bool(false)) {
        let detail = "must not be used at the root";
        problems.push(FieldError::forbidden(format!("{path}.additionalProperties"), detail));
    }
    each_child(declared, path, |child, level, path| check_structure(child, level, &path, problems));
    check_pattern(declared, path, problems);
    let int_or_string = json!([{"type": "integer"}, {"type": "string"}]);
    each_alternative(declared, path, |child, child_path| {
        let is_known_form = (declared["anyOf"] == int_or_string && child_path.starts_with(&format!("{path}.anyOf")))
            || (child_path == format!("{path}.allOf[0]") && child["anyOf"] == int_or_string);
        if !is_known_form {
            check_nested(child, &child_path, problems);
        }
    });
    if is_embedded && type_name != "object" {
        problems.push(type_problem(declared, path, "must be object if x-kubernetes-embedded-resource is true"));
    } else if type_name.is_empty() && !flag("x-kubernetes-int-or-string") && !keeps_unknown {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        problems.push(FieldError::required(format!("{path}.type"), detail));
    }
    if level == Level::Root && !type_name.is_empty() && type_name != "object" {
        problems.push(type_problem(declared, path, "must be object at the root"));
    }
    check_object_fields(declared, level, is_embedded, path, problems);
    let has_fields = declared["properties"].as_object().is_some_and(|fields| !fields.is_empty());
    if is_embedded && !keeps_unknown && !has_fields {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        problems.push(FieldError::required(format!("{path}.properties"), detail));
    }
}

/// `kind`, `apiVersion` and `metadata` of an object are the server's.
fn check_object_fields(declared: &Value, level: Level, is_embedded: bool, path: &str, problems: &mut Vec<FieldError>) {
    if level != Level::Root && !is_embedded {
        return;
    }
    for field in ["kind", "apiVersion"] {
        if let Some(child) = declared["properties"].get(field)
            && child["type"] != "string"
        {
            problems.push(type_problem(child, &format!("{path}.properties[{field}]"), "must be string"));
        }
    }
    let Some(metadata) = declared["properties"].get("metadata") else {
        return;
    };
    let path = format!("{path}.properties[metadata]");
    if metadata["type"] != "object" {
        problems.push(type_problem(metadata, &path, "must be object"));
    }
    let is_restriction = |name: &str| matches!(name, "name" | "generateName");
    let only_restricts = metadata.as_object().into_iter().flatten().all(|(keyword, value)| match keyword.as_str() {
        "type" | "default" => true,
        "properties" => value.as_object().into_iter().flatten().all(|(name, _)| is_restriction(name)),
        _ => false,
    });
    if level == Level::Root && !only_restricts {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        problems.push(FieldError::forbidden(path, detail));
    }
}

/// `validateNestedValueValidation`: combinations validate, they do not declare.
fn check_nested(declared: &Value, path: &str, problems: &mut Vec<FieldError>) {
    check_pattern(declared, path, problems);
    each_alternative(declared, path, |child, path| check_nested(child, &path, problems));
    each_child(declared, path, |child, _, path| check_nested(child, &path, problems));
    let mut forbid = |keyword: &str, condition: &str| {
        let detail = format!("must be {condition} to be structural");
        problems.push(FieldError::forbidden(format!("{path}.{keyword}"), detail));
    };
    for keyword in ["type", "title", "description"] {
        if declared[keyword].as_str().is_some_and(|text| !text.is_empty()) {
            forbid(keyword, "empty");
        }
    }
    for keyword in ["additionalProperties", "default", "x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if !declared[keyword].is_null() {
            forbid(keyword, "undefined");
        }
    }
    let flags = [
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ];
    for keyword in flags {
        if declared[keyword] == true {
            forbid(keyword, "false");
        }
    }
    for keyword in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
        if declared[keyword].as_array().is_some_and(|items| !items.is_empty()) {
            forbid(keyword, "empty");
        }
    }
    if declared["properties"].get("metadata").is_some() {
        let field = format!("{path}.properties[metadata]");
        problems.push(FieldError::forbidden(field, "must not be specified in a nested context"));
    }
}

/// What a combination says of a field, the schema around it has to declare.
fn check_completeness(
    validation: &Value,
    structure: &Value,
    validation_path: &str,
    structure_path: &str,
    problems: &mut Vec<FieldError>,
) {
    each_alternative(validation, validation_path, |child, path| {
        check_nested_completeness(child, structure, &path, structure_path, problems);
    });
}

fn check_nested_completeness(
    validation: &Value,
    structure: &Value,
    validation_path: &str,
    structure_path: &str,
    problems: &mut Vec<FieldError>,
) {
    check_completeness(validation, structure, validation_path, structure_path, problems);
    let mut descend = |below: String, child: &Value, counterpart: Option<&Value>| {
        let (validation_path, structure_path) =
            (format!("{validation_path}{below}"), format!("{structure_path}{below}"));
        match counterpart {
            Some(counterpart) => {
                check_nested_completeness(child, counterpart, &validation_path, &structure_path, problems);
            }
            None => {
                let detail = format!("because it is defined in {validation_path}");
                problems.push(FieldError::required(structure_path, detail));
            }
        }
    };
    if validation["items"].is_object() {
        descend(".items".to_owned(), &validation["items"], structure.get("items"));
    }
    for (name, child) in validation["properties"].as_object().into_iter().flatten() {
        descend(format!(".properties[{name}]"), child, structure["properties"].get(name));
    }
}

fn check_pattern(declared: &Value, path: &str, problems: &mut Vec<FieldError>) {
    // Compiling tells; everything else of the schema is left out.
    let alone = json!({"type": "string", "pattern": declared["pattern"]});
    compile(&alone, path, problems);
}

/// Defaults have to be valid themselves, and complete.
fn check_defaults(declared: &Value, path: &str, problems: &mut Vec<FieldError>) {
    if let Some(default) = declared.get("default").filter(|default| !default.is_null()) {
        let schema = compile(declared, path, &mut Vec::new());
        check_default(&schema, default, &format!("{path}.default"), problems);
    }
    each_child(declared, path, |child, _, path| check_defaults(child, &path, problems));
}

fn check_default(schema: &Schema, default: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let mut pruned = default.clone();
    if !super::conform::prune_value(schema, &mut pruned).is_empty() {
        problems.push(FieldError::invalid(path, default, "must not have unknown fields"));
        return;
    }
    for mut problem in super::validate::violations(schema, default, &FieldPath::Root) {
        problem.field = if problem.field.is_empty() { path.to_owned() } else { format!("{path}.{}", problem.field) };
        problems.push(problem);
    }
}

fn type_problem(declared: &Value, path: &str, detail: &str) -> FieldError {
    let name = declared["type"].as_str().unwrap_or_default();
    if name.is_empty() && detail.contains("x-kubernetes-embedded-resource") {
        return FieldError::required(format!("{path}.type"), detail);
    }
    FieldError::invalid(format!("{path}.type"), &json!(name), detail)
}

fn unsupported(field: String, value: &Value, supported: &[&str]) -> FieldError {
    let supported: Vec<String> = supported.iter().map(|name| format!("\"{name}\"")).collect();
    FieldError {
        reason: FieldReason::NotSupported,
        field,
        value: value.to_string(),
        detail: format!("supported values: {}", supported.join(", ")),
    }
}
