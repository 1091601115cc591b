//! The objects of the input, and where each stands.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Value, json};

use super::files::Text;
use super::yaml::{self, Node, Place};

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// The object, with its namespace filled in.
    pub(crate) object: Value,
    /// Where its fields stand; `None` if it was made up.
    pub(crate) source: Option<Source>,
}

/// Where an object stands.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) file: Rc<str>,
    pub(crate) node: Rc<Node>,
}

/// What the files hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) objects: Vec<Manifest>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
    /// Positions of the objects of the files. One file may hold ten thousand.
    by_key: HashMap<[String; 4], usize>,
}

/// Kinds that have no namespace.
const CLUSTER_KINDS: [(&str, &str); 2] = [("v1", "Namespace"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition")];

impl Manifest {
    /// An object that the files do not hold.
    pub(crate) fn made_up(object: Value) -> Manifest {
        Manifest { object, source: None }
    }

    pub(crate) fn api_version(&self) -> &str {
        text(&self.object["apiVersion"])
    }

    pub(crate) fn kind(&self) -> &str {
        text(&self.object["kind"])
    }

    pub(crate) fn name(&self) -> &str {
        text(&self.object["metadata"]["name"])
    }

    /// Empty for an object of the cluster.
    pub(crate) fn namespace(&self) -> &str {
        text(&self.object["metadata"]["namespace"])
    }

    /// API group; empty for core.
    pub(crate) fn group(&self) -> &str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.kind() == kind && self.group() == group
    }

    /// `Canary test/podinfo`.
    pub(crate) fn title(&self) -> String {
        match self.namespace() {
            "" => format!("{} {}", self.kind(), self.name()),
            namespace => format!("{} {namespace}/{}", self.kind(), self.name()),
        }
    }

    /// A message about a field (or with an empty path about the whole object), with file, line and column.
    pub(crate) fn message(&self, path: &str, message: &str) -> String {
        let title = self.title();
        match &self.source {
            Some(source) => format!("{}:{}: {title}: {message}", source.file, source.node.place_of(path)),
            None => format!("{title} (made up): {message}"),
        }
    }

    /// Messages for the lines of a refusal, each of which begins with the path of a field.
    pub(crate) fn messages(&self, refusal: &str) -> Vec<String> {
        refusal
            .lines()
            .map(|line| {
                let path = line.split_once(':').map_or("", |(path, _)| path);
                let path = if path.contains(' ') { "" } else { path };
                self.message(path, line)
            })
            .collect()
    }
}

/// Reads the objects of files, and tells everything that is not an object, with its line. An object that two files hold counts
/// as the last one says, as if both were applied.
pub(crate) fn read(texts: &[Text], namespace: &str) -> (Manifests, Vec<String>) {
    let mut manifests = Manifests::default();
    let mut problems = Vec::new();
    for Text { name, text } in texts {
        let file: Rc<str> = name.as_str().into();
        let found = yaml::parse(text);
        problems.extend(found.errors.iter().map(|error| at(&file, error.place, &error.message)));
        manifests.notes.extend(
            found.duplicates.iter().map(|key| at(&file, key.place, &format!("{}; the last one counts", key.message))),
        );
        for document in found.documents {
            let source = Source { file: file.clone(), node: Rc::new(document) };
            manifests.add(source, namespace, &mut problems);
        }
    }
    (manifests, problems)
}

fn at(file: &str, place: Place, message: &str) -> String {
    format!("{file}:{place}: {message}")
}

impl Manifests {
    fn add(&mut self, source: Source, namespace: &str, problems: &mut Vec<String>) {
        let (file, node) = (source.file.clone(), source.node.clone());
        let (Some(api_version), Some(kind)) = (node.text("apiVersion"), node.text("kind")) else {
            // Kustomize needs neither.
            let name = file.rsplit('/').next().unwrap_or_default();
            if ["kustomization.yaml", "kustomization.yml"].contains(&name) {
                self.pass_over(&file, node.place, "Kustomization");
                return;
            }
            problems.push(at(&file, node.place, "not an object of Kubernetes: apiVersion or kind is missing"));
            return;
        };
        if api_version.starts_with("kustomize.config.k8s.io/")
            || api_version.starts_with("kustomize.toolkit.fluxcd.io/")
        {
            self.pass_over(&file, node.place, kind);
            return;
        }
        if kind.ends_with("List") && node.get("items").is_some() {
            for item in node.get("items").map(Node::items).unwrap_or_default() {
                self.add(Source { file: file.clone(), node: Rc::new(item.clone()) }, namespace, problems);
            }
            return;
        }
        if node.get("metadata").and_then(|metadata| metadata.text("name")).is_none_or(str::is_empty) {
            let place = node.place_of("metadata.name");
            problems.push(at(&file, place, &format!("{kind}: metadata.name is missing or no text")));
            return;
        }
        let mut object = node.to_value();
        let is_namespaced = !CLUSTER_KINDS.contains(&(api_version, kind));
        if is_namespaced && text(&object["metadata"]["namespace"]).is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.insert(Manifest { object, source: Some(source) });
    }

    fn pass_over(&mut self, file: &str, place: Place, kind: &str) {
        let note = format!("{kind} is ignored; to use it: kubectl kustomize DIR | aviary simulate -f -");
        self.notes.push(at(file, place, &note));
    }

    fn insert(&mut self, manifest: Manifest) {
        let key = [manifest.group(), manifest.kind(), manifest.namespace(), manifest.name()].map(str::to_owned);
        let next = self.objects.len();
        let position = *self.by_key.entry(key).or_insert(next);
        let Some(earlier) = self.objects.get_mut(position) else {
            self.objects.push(manifest);
            return;
        };
        let place = earlier.source.as_ref().map(|source| format!("{}:{}", source.file, source.node.place.line));
        let note = format!("the one in {} is replaced by this one", place.unwrap_or_default());
        self.notes.push(manifest.message("", &note));
        *earlier = manifest;
    }

    /// The object of this group, kind and name.
    pub(crate) fn find(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<&Manifest> {
        self.objects
            .iter()
            .find(|manifest| manifest.is(group, kind) && manifest.namespace() == namespace && manifest.name() == name)
    }

    /// All objects of a kind.
    pub(crate) fn of<'a>(&'a self, group: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Manifest> {
        self.objects.iter().filter(move |manifest| manifest.is(group, kind))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn parse(text: &str) -> Result<Manifests, Vec<String>> {
        let (manifests, problems) = read(&[Text { name: "a.yaml".to_owned(), text: text.to_owned() }], "shop");
        if problems.is_empty() { Ok(manifests) } else { Err(problems) }
    }

    const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n";

    #[test]
    fn objects_get_a_namespace_unless_they_have_none() {
        let text = format!(
            "{SECRET}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: one}}\n---\n{SECRET}  namespace: one\n"
        );
        let titles: Vec<String> = parse(&text).unwrap().objects.iter().map(Manifest::title).collect();
        assert_eq!(titles, ["Secret shop/s", "Namespace one", "Secret one/s"]);
    }

    #[test]
    fn lists_are_opened_and_kustomizations_left_out() {
        let text = "apiVersion: v1\nkind: List\nitems:\n  - {apiVersion: v1, kind: Secret, metadata: {name: a}}\n---\n\
                    apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
        let manifests = parse(text).unwrap();
        assert_eq!(manifests.objects.len(), 1);
        assert_eq!(manifests.objects[0].message("metadata.name", "x"), "a.yaml:4:47: Secret shop/a: x");
        assert!(manifests.notes[0].starts_with("a.yaml:6:1: Kustomization is ignored"), "{:?}", manifests.notes);
    }

    #[test]
    fn the_last_of_two_counts() {
        let manifests = parse(&format!("{SECRET}---\n{SECRET}type: x\n")).unwrap();
        assert_eq!(manifests.objects.len(), 1);
        assert_eq!(manifests.objects[0].object["type"], "x");
        assert_eq!(manifests.notes, ["a.yaml:6:1: Secret shop/s: the one in a.yaml:1 is replaced by this one"]);
    }

    #[test]
    fn what_is_no_object_is_told_with_its_line() {
        let problems =
            parse("a: 1\n---\napiVersion: v1\nkind: Secret\nmetadata: {}\n---\n- 1\n").expect_err("no object");
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("a.yaml:1:1: not an object of Kubernetes"), "{problems:?}");
        assert_eq!(problems[1], "a.yaml:5:1: Secret: metadata.name is missing or no text");
        let problems = parse("a: {\n").expect_err("no YAML");
        assert!(problems[0].starts_with("a.yaml:1:4: "), "{problems:?}");
    }
}
