//! What a client wants to be answered with, from its `Accept` header.

/// The form of an object or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// `PartialObjectMetadata` or a list of it.
    Metadata,
    /// A table, with the version of `meta.k8s.io`.
    Table {
        version: String,
    },
}

/// The form of a discovery document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiscoveryForm {
    Plain,
    /// Everything in one document, with the version of `apidiscovery.k8s.io`.
    Aggregated(&'static str),
}

/// One entry of the header.
struct MediaType<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    fn parse(entry: &'a str) -> Self {
        let mut parts = entry.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        Self { name, parameters: parts.filter_map(|part| part.split_once('=')).collect() }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| *value)
    }

    /// JSON is the only encoding here; clients of built-in kinds ask for protobuf first and JSON second.
    fn is_json(&self) -> bool {
        matches!(self.name, "application/json" | "application/*" | "*/*" | "")
    }
}

fn accepted(accept: &str) -> impl Iterator<Item = MediaType<'_>> {
    accept.split(',').map(MediaType::parse).filter(MediaType::is_json)
}

pub(super) fn object_form(accept: &str) -> Form {
    for media_type in accepted(accept) {
        let version = media_type.parameter("v").unwrap_or("v1");
        let is_meta = media_type.parameter("g") == Some("meta.k8s.io") && matches!(version, "v1" | "v1beta1");
        match media_type.parameter("as") {
            None => return Form::Whole,
            Some("Table") if is_meta => return Form::Table { version: version.to_owned() },
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if is_meta => return Form::Metadata,
            // A form that the server does not have: the next choice.
            Some(_) => {}
        }
    }
    Form::Whole
}

pub(super) fn discovery_form(accept: &str) -> DiscoveryForm {
    for media_type in accepted(accept) {
        let is_discovery = media_type.parameter("g") == Some("apidiscovery.k8s.io");
        match (media_type.parameter("as"), media_type.parameter("v")) {
            (None, _) => return DiscoveryForm::Plain,
            (Some("APIGroupDiscoveryList"), Some("v2")) if is_discovery => return DiscoveryForm::Aggregated("v2"),
            (Some("APIGroupDiscoveryList"), Some("v2beta1")) if is_discovery => {
                return DiscoveryForm::Aggregated("v2beta1");
            }
            _ => {}
        }
    }
    DiscoveryForm::Plain
}

#[cfg(test)]
mod tests {
    use super::{DiscoveryForm, Form, discovery_form, object_form};

    #[test]
    fn the_first_form_that_is_served_wins() {
        let table = Form::Table { version: "v1".to_owned() };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(object_form(kubectl), table);
        assert_eq!(
            object_form("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json"),
            Form::Whole
        );
        assert_eq!(object_form("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Form::Metadata);
        assert_eq!(object_form("application/json;as=Chart;g=meta.k8s.io;v=v1, application/json"), Form::Whole);
        assert_eq!(object_form(""), Form::Whole);
        assert_eq!(
            discovery_form("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"),
            DiscoveryForm::Aggregated("v2")
        );
        assert_eq!(discovery_form("application/json"), DiscoveryForm::Plain);
    }
}
