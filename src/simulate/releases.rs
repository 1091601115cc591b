//! What is released when, and how versions are told apart.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_crds::birdwatch;
use aviary_crds::validated::TargetKind;
use serde_json::Value;

use super::manifests::Manifests;
use super::scenario::{Config, Problem, Release, Scenario, nearest};
use super::subject::Subject;

/// One change of one target.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// After the first release.
    pub(crate) at: Duration,
    /// Which canary, by position.
    pub(crate) subject: usize,
    /// The container and its new image.
    pub(crate) image: Option<(String, String)>,
    pub(crate) config: Option<Config>,
    /// The object that is the release itself.
    pub(crate) object: Option<Value>,
    /// What a Service selects.
    pub(crate) selector: Option<BTreeMap<String, String>>,
}

/// Everything that is released, and the images that take part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Releases {
    pub(crate) planned: Vec<Planned>,
    /// By canary: the image before the first release.
    pub(crate) current: Vec<String>,
    /// The image that is released without being set: of an object that is the release itself, or of the pods that a Service selects
    /// next. By position.
    pub(crate) new: BTreeMap<usize, String>,
    pub(crate) notes: Vec<String>,
}

impl Releases {
    /// What a scenario (or nothing) asks for.
    ///
    /// The second list has releases of what does not exist, or that change nothing.
    pub(crate) fn plan(scenario: &Scenario, subjects: &[Subject], manifests: &Manifests) -> (Releases, Vec<Problem>) {
        let mut releases = Releases::default();
        let mut problems = Vec::new();
        let mut present = Vec::new();
        for subject in subjects {
            let containers = containers(subject, manifests);
            let before = self::containers_of(subject.primary_workload(), subject, manifests);
            let has_both = subject.is_release_itself() || subject.next_selector.is_some();
            let before = if has_both { &before } else { &containers };
            releases.current.push(before.first().map(|(_, image)| image.clone()).unwrap_or_default());
            present.push(containers);
        }
        for (index, subject) in subjects.iter().enumerate().filter(|(_, subject)| subject.is_release_itself()) {
            let manifest = manifests.find(birdwatch::GROUP, subject.kind(), subject.namespace(), subject.name());
            let image = present.get(index).and_then(|containers| containers.first()).map(|(_, image)| image.clone());
            releases.new.insert(index, image.unwrap_or_default());
            releases.planned.push(Planned {
                at: Duration::ZERO,
                subject: index,
                image: None,
                config: None,
                object: manifest.map(|manifest| manifest.object.clone()),
                selector: None,
            });
        }
        for (index, subject) in subjects.iter().enumerate().filter(|(_, subject)| subject.next_selector.is_some()) {
            releases.new.insert(index, subject.release.clone().unwrap_or_default());
        }
        if scenario.releases.is_empty() {
            for (index, subject) in subjects.iter().enumerate().filter(|(_, subject)| !subject.is_release_itself()) {
                match &subject.next_selector {
                    Some(selector) => releases.add_selection(Duration::ZERO, index, selector),
                    None => releases.add_made_up(Duration::ZERO, index, subject, &mut present),
                }
            }
            return (releases, problems);
        }
        let mut entries: Vec<_> = scenario.releases.iter().enumerate().collect();
        entries.sort_by_key(|(_, release)| release.at.unwrap_or_default());
        for (position, release) in entries {
            let path = format!("releases[{position}]");
            let at = release.at.unwrap_or_default();
            let chosen: Vec<usize> = subjects
                .iter()
                .enumerate()
                .filter(|(_, subject)| release.canary.as_deref().is_none_or(|name| name == subject.name()))
                .filter(|(_, subject)| release.namespace.as_deref().is_none_or(|name| name == subject.namespace()))
                .map(|(index, _)| index)
                .collect();
            if chosen.is_empty() {
                let field = if release.canary.is_some() { "canary" } else { "namespace" };
                let message = match (&release.canary, &release.namespace) {
                    (None, Some(namespace)) => no_canary_in(namespace, subjects),
                    (Some(name), Some(namespace)) if subjects.iter().any(|subject| subject.name() == name) => {
                        format!("{name}: {}", no_canary_in(namespace, subjects))
                    }
                    _ => no_such_canary(release.canary.as_deref(), subjects),
                };
                problems.push(scenario.problem(&format!("{path}.{field}"), message));
            }
            for index in chosen {
                let Some(subject) = subjects.get(index) else { continue };
                if let Some(selector) = &subject.next_selector {
                    match not_by_selection(release, &releases, index, subject) {
                        Some((field, message)) => {
                            problems.push(scenario.problem(&format!("{path}{field}"), message));
                        }
                        None => releases.add_selection(at, index, selector),
                    }
                    continue;
                }
                let image = match (&release.image, &release.tag) {
                    (Some(image), _) => Ok(Some(image.clone())),
                    (None, Some(tag)) => Ok(present.get(index).and_then(|containers| {
                        let (_, image) = chosen_container(containers, release.container.as_deref())?;
                        Some(with_tag(image, tag))
                    })),
                    (None, None) if release.config.is_some() => Ok(None),
                    (None, None) => Err(()),
                };
                let Ok(image) = image else {
                    releases.add_made_up(at, index, subject, &mut present);
                    continue;
                };
                let containers = present.get_mut(index);
                let container = containers.and_then(|containers| match &release.container {
                    Some(name) => containers.iter_mut().find(|(container, _)| container == name),
                    None => containers.first_mut(),
                });
                let Some(container) = container else {
                    let wanted = release.container.clone().unwrap_or_default();
                    let message = format!("{} has no container {wanted:?}", subject.target());
                    problems.push(scenario.problem(&format!("{path}.container"), message));
                    continue;
                };
                if let Some(image) = image.as_ref().filter(|image| **image == container.1 && release.config.is_none()) {
                    let field = if release.image.is_some() { "image" } else { "tag" };
                    let what = format!("{} {}", subject.canary.target.kind.as_str(), subject.target());
                    let message =
                        format!("{what} runs {image} already, so nothing would be released; give another {field}");
                    problems.push(scenario.problem(&format!("{path}.{field}"), message));
                }
                let image = image.map(|image| {
                    container.1.clone_from(&image);
                    (container.0.clone(), image)
                });
                if let Some(config) = &release.config
                    && manifests.find("", config_kind(config), subject.namespace(), &config.name).is_none()
                {
                    let message = format!(
                        "there is no {} {} in namespace {}",
                        config_kind(config),
                        config.name,
                        subject.namespace()
                    );
                    problems.push(scenario.problem(&format!("{path}.config.name"), message));
                }
                releases.planned.push(Planned {
                    at,
                    subject: index,
                    image,
                    config: release.config.clone(),
                    object: None,
                    selector: None,
                });
            }
        }
        (releases, problems)
    }

    fn add_made_up(&mut self, at: Duration, index: usize, subject: &Subject, present: &mut [Vec<(String, String)>]) {
        let Some(container) = present.get_mut(index).and_then(|containers| containers.first_mut()) else { return };
        let given = subject.release.clone().filter(|image| *image != container.1);
        let image = given.clone().unwrap_or_else(|| next_image(&container.1));
        if given.is_none() {
            self.notes.push(format!(
                "the release of {} is made up: image {} becomes {image}",
                subject.id(),
                container.1
            ));
        }
        container.1.clone_from(&image);
        self.planned.push(Planned {
            at,
            subject: index,
            image: Some((container.0.clone(), image)),
            config: None,
            object: None,
            selector: None,
        });
    }

    fn add_selection(&mut self, at: Duration, subject: usize, selector: &BTreeMap<String, String>) {
        let selector = Some(selector.clone());
        self.planned.push(Planned { at, subject, image: None, config: None, object: None, selector });
    }

    /// Images that a key of `versions` stands for, for one canary; `None` if it is none of them.
    pub(crate) fn images_of(&self, key: &str, subject: usize) -> Vec<String> {
        let current = self.current.get(subject).cloned().unwrap_or_default();
        let mut new: Vec<String> = self
            .planned
            .iter()
            .filter(|planned| planned.subject == subject)
            .filter_map(|planned| planned.image.as_ref().map(|(_, image)| image.clone()))
            .chain(self.new.get(&subject).cloned())
            .filter(|image| *image != current)
            .collect();
        new.dedup();
        match key {
            "current" => vec![current],
            "new" => new,
            _ => std::iter::once(current)
                .chain(new)
                .filter(|image| image == key || tag(image) == Some(key) || image.rsplit('/').next() == Some(key))
                .collect(),
        }
    }
}

/// The field of a release that a Service cannot have, and why.
fn not_by_selection(
    release: &Release,
    releases: &Releases,
    index: usize,
    subject: &Subject,
) -> Option<(&'static str, String)> {
    let fields = [
        (".image", release.image.is_some()),
        (".tag", release.tag.is_some()),
        (".container", release.container.is_some()),
        (".config", release.config.is_some()),
    ];
    let (service, next) = (subject.target(), subject.canary_workload());
    if let Some((field, _)) = fields.into_iter().find(|(_, is_given)| *is_given) {
        let message =
            format!("Service {service} is released by selecting other pods, here those of {next}; leave it out");
        return Some((field, message));
    }
    let is_released = releases.planned.iter().any(|planned| planned.subject == index);
    is_released.then(|| {
        let message =
            format!("Service {service} selects the pods of {next} already, so nothing would be released; leave it out");
        ("", message)
    })
}

pub(crate) fn config_kind(config: &Config) -> &str {
    config.kind.as_deref().unwrap_or("ConfigMap")
}

pub(crate) fn no_such_canary(name: Option<&str>, subjects: &[Subject]) -> String {
    let known: Vec<&str> = subjects.iter().map(Subject::name).collect();
    let name = name.unwrap_or_default();
    match nearest(name, &known) {
        Some(meant) if meant != name => format!("there is no canary {name:?}; did you mean {meant:?}?"),
        _ => {
            let known: Vec<String> = subjects.iter().map(Subject::id).collect();
            format!("there is no canary {name:?}; there are: {}", known.join(", "))
        }
    }
}

fn no_canary_in(namespace: &str, subjects: &[Subject]) -> String {
    let known: Vec<String> = subjects.iter().map(Subject::id).collect();
    format!("there is no such canary in namespace {namespace:?}; there are: {}", known.join(", "))
}

fn chosen_container<'a>(containers: &'a [(String, String)], name: Option<&str>) -> Option<&'a (String, String)> {
    match name {
        Some(name) => containers.iter().find(|(container, _)| container == name),
        None => containers.first(),
    }
}

/// Names and images of the containers of a target.
fn containers(subject: &Subject, manifests: &Manifests) -> Vec<(String, String)> {
    containers_of(subject.canary_workload(), subject, manifests)
}

fn containers_of(workload: &str, subject: &Subject, manifests: &Manifests) -> Vec<(String, String)> {
    let kinds = match subject.canary.target.kind {
        TargetKind::Subset | TargetKind::Service => vec![TargetKind::Deployment, TargetKind::DaemonSet],
        kind => vec![kind],
    };
    let mut found =
        kinds.into_iter().filter_map(|kind| manifests.find("apps", kind.as_str(), subject.namespace(), workload));
    let Some(manifest) = found.next() else { return Vec::new() };
    let containers = manifest.object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let text = |container: &Value, field: &str| container[field].as_str().unwrap_or_default().to_owned();
    containers.into_iter().flatten().map(|container| (text(container, "name"), text(container, "image"))).collect()
}

/// The tag of an image; a colon before the last slash belongs to the registry's port.
pub(crate) fn tag(image: &str) -> Option<&str> {
    let name = image.rsplit('/').next().unwrap_or(image);
    let name = name.split('@').next().unwrap_or(name);
    name.split_once(':').map(|(_, tag)| tag)
}

/// The image with another tag, and without a digest.
fn with_tag(image: &str, new: &str) -> String {
    let without_digest = image.split('@').next().unwrap_or(image);
    let base = match tag(without_digest) {
        Some(tag) => without_digest.strip_suffix(tag).map_or(without_digest, |base| base.trim_end_matches(':')),
        None => without_digest,
    };
    format!("{base}:{new}")
}

/// The image with the next tag: the last number of a version is raised, anything else gets an ending.
pub(crate) fn next_image(image: &str) -> String {
    let Some(tag) = tag(image) else { return with_tag(image, "next") };
    let digits_from = usize::from(tag.starts_with('v'));
    let (prefix, rest) = tag.split_at(digits_from);
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
    let (version, ending) = rest.split_at(end);
    let (before, last) = match version.rsplit_once('.') {
        Some((before, last)) => (format!("{before}."), last),
        None => (String::new(), version),
    };
    match last.parse::<u64>() {
        Ok(number) => with_tag(image, &format!("{prefix}{before}{}{ending}", number.saturating_add(1))),
        Err(_) => with_tag(image, &format!("{tag}-next")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_raised() {
        for (image, next) in [
            ("ghcr.io/stefanprodan/podinfo:6.0.0", "ghcr.io/stefanprodan/podinfo:6.0.1"),
            ("localhost:5000/a:v1.9", "localhost:5000/a:v1.10"),
            ("localhost:5000/a", "localhost:5000/a:next"),
            ("nginx:1.25.3-alpine", "nginx:1.25.4-alpine"),
            ("nginx:latest", "nginx:latest-next"),
            ("nginx:20240101", "nginx:20240102"),
            ("a:1.0@sha256:00", "a:1.1"),
            ("a@sha256:00", "a:next"),
            ("a:1.", "a:1.-next"),
        ] {
            assert_eq!(next_image(image), next, "{image}");
        }
        assert_eq!(with_tag("localhost:5000/a:1:", "2"), "localhost:5000/a:2");
    }
}
