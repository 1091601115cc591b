//! The TrafficSplit, as a cluster has it on which some part of the Service Mesh Interface is installed.

use serde_json::Value;

/// In all its versions, with one schema: weights are numbers or, as the first version writes them, quantities.
pub(super) fn definition() -> Value {
    serde_saphyr::from_str(include_str!("trafficsplits.split.smi-spec.io.yaml")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::apiserver::definition::{checks, establish, resource_type};

    #[test]
    fn every_version_is_served_and_knows_its_fields() {
        let mut definition = super::definition();
        establish(&mut definition, &crate::clock::Clock::new(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(checks::problems(&definition), []);
        let resource = resource_type(&definition).unwrap();
        let versions: Vec<&str> = resource.versions.iter().map(|version| version.name.as_str()).collect();
        assert_eq!(versions, ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"]);
        let backends =
            serde_json::json!([{"service": "a", "weight": "100m", "typo": 1}, {"service": "b", "weight": 9}]);
        let mut object = serde_json::json!({"spec": {"service": "podinfo", "backends": backends}});
        let found = resource.versions[3].schema.as_ref().unwrap().conform(&mut object);
        assert_eq!(found.unknown_fields, ["spec.backends[0].typo"]);
    }
}
