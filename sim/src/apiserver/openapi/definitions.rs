//! The definitions of Kubernetes' own types: looked up by name, read when first used.
//!
//! `sim/openapi/README.md` says where the data comes from.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{LazyLock, OnceLock};

use serde_json::Value;

use super::super::schema::{Schema, compile_definition};

/// One line per definition: name, schema, Go types of the fields.
pub(super) static TEXT: &str = include_str!("../../../openapi/definitions.tsv");

/// Start of a reference from one definition to another.
pub(crate) const REFERENCE_PREFIX: &str = "#/components/schemas/";

static INDEX: LazyLock<HashMap<&'static str, Definition>> = LazyLock::new(|| {
    let parsed = TEXT.lines().filter_map(|line| {
        let (name, rest) = line.split_once('\t')?;
        let (schema_json, go_json) = rest.split_once('\t')?;
        Some((name, Definition { name, schema_json, go_json, schema: OnceLock::new(), go_types: OnceLock::new() }))
    });
    parsed.collect()
});

/// A type of Kubernetes, such as `io.k8s.api.core.v1.Container`.
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    schema_json: &'static str,
    go_json: &'static str,
    schema: OnceLock<Schema>,
    go_types: OnceLock<BTreeMap<&'static str, GoType>>,
}

/// How Go holds a field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoType {
    /// Such as `[]v1.Container`.
    pub(crate) name: &'static str,
    /// Left out of JSON when it is zero.
    pub(crate) omitted_when_zero: bool,
    /// A struct that is never left out.
    pub(crate) always_present: bool,
    /// The field's number in protobuf, such as `2`; `2.1` for a field of a message that JSON inlines. Empty without one.
    pub(crate) protobuf_number: &'static str,
    /// The struct that holds the field and that JSON inlines.
    pub(crate) inlined: Option<&'static str>,
}

impl fmt::Debug for Definition {
    /// The name alone: definitions refer to each other, and some to themselves.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Definition {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        INDEX.get(name)
    }

    /// The definition of a built-in kind.
    pub(crate) fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Self> {
        let package = match group {
            "" => "io.k8s.api.core".to_owned(),
            "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration".to_owned(),
            "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
            _ => format!("io.k8s.api.{}", group.split('.').next().unwrap_or_default()),
        };
        Self::find(&format!("{package}.{version}.{kind}"))
    }

    /// The Go type's own name, such as `Container`.
    pub(crate) fn type_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The compiled schema; the first call compiles it.
    pub(crate) fn schema(&'static self) -> &'static Schema {
        self.schema.get_or_init(|| compile_definition(self))
    }

    /// The schema as the OpenAPI document says it.
    pub(crate) fn declared(&self) -> Value {
        serde_json::from_str(self.schema_json).unwrap_or_default()
    }

    /// The schema's JSON.
    pub(crate) fn json(&self) -> &'static str {
        self.schema_json
    }

    /// Fields by name.
    pub(crate) fn go_types(&self) -> &BTreeMap<&'static str, GoType> {
        self.go_types.get_or_init(|| {
            let fields: BTreeMap<&'static str, &'static str> = serde_json::from_str(self.go_json).unwrap_or_default();
            fields.into_iter().map(|(field, described)| (field, GoType::parse(described))).collect()
        })
    }

    /// The names of definitions that this one refers to.
    pub(crate) fn references(&self) -> impl Iterator<Item = &'static str> {
        self.schema_json.split(REFERENCE_PREFIX).skip(1).filter_map(|rest| rest.split('"').next())
    }
}

impl GoType {
    fn parse(described: &'static str) -> Self {
        let (protobuf_number, described) = described.split_once(' ').unwrap_or(("", described));
        let (protobuf_number, inlined) = match protobuf_number.split_once('@') {
            Some((number, inlined)) => (number, Some(inlined)),
            None => (protobuf_number, None),
        };
        Self {
            protobuf_number,
            inlined,
            name: described.trim_end_matches(['?', '!']),
            omitted_when_zero: described.ends_with('?'),
            always_present: described.ends_with('!'),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Definition, INDEX};

    #[test]
    fn every_definition_can_be_read_and_refers_to_known_ones() {
        assert!(INDEX.len() > 300, "{} definitions", INDEX.len());
        for definition in INDEX.values() {
            assert!(definition.declared().is_object(), "{}", definition.name);
            for reference in definition.references() {
                assert!(Definition::find(reference).is_some(), "{} refers to {reference}", definition.name);
            }
            definition.schema();
        }
    }

    /// The schema of schemas refers to itself: printing it overflowed the stack once.
    #[test]
    fn a_definition_that_refers_to_itself_can_be_printed() {
        let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let definition = Definition::find(name).unwrap();
        assert!(format!("{:?}", definition.schema()).contains(name));
    }

    #[test]
    fn kinds_are_found_by_group_version_and_kind() {
        for (group, version, kind) in [
            ("", "v1", "Pod"),
            ("apps", "v1", "Deployment"),
            ("autoscaling", "v2", "HorizontalPodAutoscaler"),
            ("rbac.authorization.k8s.io", "v1", "Role"),
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            ("apiregistration.k8s.io", "v1", "APIService"),
        ] {
            let found = Definition::of_kind(group, version, kind).map(Definition::type_name);
            assert_eq!(found, Some(kind));
        }
    }
}
