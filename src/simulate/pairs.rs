//! Releases between two workloads that the user has made, as Steerer's. In the input the canary has the new version already; the
//! simulation goes back to before that, and the canary's version is what is released.

use aviary_crds::steerer::STATUS_ANNOTATION;
use serde_json::{Value, json};

use super::manifests::{Manifest, Manifests};
use super::subject::Subject;

const IMAGE: &str = "/spec/template/spec/containers/0/image";

/// Goes back to before the release of each such canary, and notes what it releases.
///
/// # Errors
/// What of a pair is not in the input. Nothing is made up: the simulation would show what somebody else has to make.
pub(crate) fn rewind(manifests: &mut Manifests, subjects: &mut [Subject]) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for subject in subjects {
        let Some(route) = subject.canary.user_route.clone() else { continue };
        let target = subject.canary.target.clone();
        if target.primary.is_none() {
            continue;
        }
        let (primary, canary) = (target.primary_name(), target.name.clone());
        let missing: Vec<String> = [
            ("apps", "Deployment", primary.as_str()),
            ("apps", "Deployment", canary.as_str()),
            ("networking.istio.io", "VirtualService", route.virtual_service.as_str()),
        ]
        .into_iter()
        .filter(|(group, kind, name)| manifests.find(group, kind, subject.namespace(), name).is_none())
        .map(|(_, kind, name)| format!("{kind} {name}"))
        .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            problems
                .push(format!("{}: {missing} is not in the input, and nobody but you makes it; add it", subject.id()));
            continue;
        }
        let id = subject.id();
        let namespace = subject.namespace().to_owned();
        let pods = manifests
            .find("apps", "Deployment", &namespace, &primary)
            .map(|manifest| manifest.object["spec"]["template"]["spec"].clone());
        let Some(object) = object_mut(manifests, "Deployment", &namespace, &canary) else { continue };
        subject.release = object.pointer(IMAGE).and_then(Value::as_str).map(str::to_owned);
        object["spec"]["replicas"] = json!(0);
        object["spec"]["template"]["spec"] = pods.unwrap_or_default();
        let (kind, name) = (subject.kind(), subject.name().to_owned());
        if let Some(rollout) = object_mut(manifests, kind, &namespace, &name) {
            rollout["metadata"]["annotations"][STATUS_ANNOTATION] = json!("finished");
        }
        manifests.notes.push(format!(
            "{id} begins as if its last release were finished: {canary} has no pods and runs what {primary} runs; the image of \
             {canary} is what is released"
        ));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn object_mut<'m>(manifests: &'m mut Manifests, kind: &str, namespace: &str, name: &str) -> Option<&'m mut Value> {
    let is_meant = |manifest: &&mut Manifest| {
        manifest.kind() == kind && manifest.namespace() == namespace && manifest.name() == name
    };
    manifests.objects.iter_mut().find(is_meant).map(|manifest| &mut manifest.object)
}
