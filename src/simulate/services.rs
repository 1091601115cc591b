//! Releases of what a Service selects. Its pods belong to workloads that the user has made, and the release is that it selects
//! those of another one.

use std::collections::BTreeMap;

use aviary_crds::validated::TargetKind;
use serde_json::Value;

use super::manifests::{Manifest, Manifests};
use super::releases::next_image;
use super::subject::Subject;

const LABELS: &str = "/spec/template/metadata/labels";
const IMAGE: &str = "/spec/template/spec/containers/0/image";
/// Ending of a workload that is made up, and of its labels.
const NEXT: &str = "-next";

/// Finds what each such Service selects now and what it selects next; makes up a workload of the next version where there is
/// none, with a note.
///
/// # Errors
/// What of them is not in the input.
pub(crate) fn find_releases(manifests: &mut Manifests, subjects: &mut [Subject]) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for subject in subjects.iter_mut().filter(|subject| subject.canary.target.kind == TargetKind::Service) {
        if let Err(problem) = find_release(manifests, subject) {
            problems.push(format!("{}: spec.targetRef: {problem}", subject.id()));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn find_release(manifests: &mut Manifests, subject: &mut Subject) -> Result<(), String> {
    let (namespace, name) = (subject.namespace().to_owned(), subject.target().to_owned());
    let service = manifests.find("", "Service", &namespace, &name);
    let service = service.ok_or_else(|| {
        format!("Service {name} is not in the input; add it, and the Deployment whose pods it selects")
    })?;
    let selector = texts(&service.object["spec"]["selector"]);
    if selector.is_empty() {
        return Err(format!("Service {name} selects no pods; give it a spec.selector"));
    }
    let selects = |workload: &&Manifest| {
        let labels = labels(workload);
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let present = workloads(manifests, &namespace).find(selects).cloned().ok_or_else(|| {
        format!("no Deployment of the input has the pods that Service {name} selects ({}); add it", in_words(&selector))
    })?;
    // Another version has other values of the same labels.
    let is_other = |workload: &&Manifest| {
        let labels = labels(workload);
        !selects(workload) && selector.keys().all(|key| labels.contains_key(key))
    };
    let other = workloads(manifests, &namespace).find(is_other).cloned();
    let next = match other {
        Some(next) => next,
        None => {
            let next = next_version(&present, &selector);
            let (title, image) = (next.title(), image(&next));
            manifests.notes.push(format!("{title} is not in the input and was made up, with image {image}"));
            manifests.objects.push(next.clone());
            next
        }
    };
    let of_next = labels(&next);
    let selector: BTreeMap<String, String> =
        selector.into_keys().filter_map(|key| of_next.get(&key).map(|value| (key, value.clone()))).collect();
    manifests.notes.push(format!(
        "the release of {} is that Service {name} selects {}: the pods of {} {} instead of those of {}",
        subject.id(),
        in_words(&selector),
        next.kind(),
        next.name(),
        present.name()
    ));
    subject.workloads = [present.name().to_owned(), next.name().to_owned()];
    subject.release = Some(image(&next));
    subject.next_selector = Some(selector);
    Ok(())
}

fn workloads<'m>(manifests: &'m Manifests, namespace: &'m str) -> impl Iterator<Item = &'m Manifest> {
    let all = manifests.of("apps", "Deployment").chain(manifests.of("apps", "DaemonSet"));
    all.filter(move |workload| workload.namespace() == namespace)
}

/// The workload with the next image, and labels that neither the Service nor the workload selects now.
fn next_version(present: &Manifest, selector: &BTreeMap<String, String>) -> Manifest {
    let mut object = present.object.clone();
    object["metadata"]["name"] = format!("{}{NEXT}", present.name()).into();
    let mut own = texts(&object["spec"]["selector"]["matchLabels"]);
    own.extend(selector.clone());
    for (key, value) in own {
        let value = format!("{value}{NEXT}");
        if let Some(labels) = object.pointer_mut(LABELS) {
            labels[&key] = value.clone().into();
        }
        object["spec"]["selector"]["matchLabels"][&key] = value.into();
    }
    if let Some(image) = object.pointer_mut(IMAGE) {
        *image = next_image(image.as_str().unwrap_or_default()).into();
    }
    Manifest::made_up(object)
}

fn image(workload: &Manifest) -> String {
    workload.object.pointer(IMAGE).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn labels(workload: &Manifest) -> BTreeMap<String, String> {
    workload.object.pointer(LABELS).map(texts).unwrap_or_default()
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// `app=web,version=2`, as `kubectl set selector` takes it.
pub(crate) fn in_words(selector: &BTreeMap<String, String>) -> String {
    selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
