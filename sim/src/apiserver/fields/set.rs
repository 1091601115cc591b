//! Sets of paths and their algebra.

use std::cmp::Ordering;

use super::element::PathElement;

/// A path from an object's root.
pub(crate) type Path = Vec<PathElement>;

/// A set of paths (`fieldpath.Set`), as a tree: a node says whether its own path is a member, and which paths below it are.
///
/// A path and its parent are members independently of each other: who owns `.spec.replicas` need not own `.spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// Sorted by element; none without a member in it.
    nodes: Vec<Node>,
}

/// One element of a [`Set`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) element: PathElement,
    /// Whether the path that ends here is in the set.
    pub(crate) is_member: bool,
    pub(crate) children: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.is_member && self.children.is_empty()
    }
}

impl Set {
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The number of paths in the set.
    pub(crate) fn len(&self) -> usize {
        self.nodes.iter().map(|node| usize::from(node.is_member) + node.children.len()).sum()
    }

    /// Adds a path; its parents are not added. The empty path, which means the whole object, is never tracked.
    pub(crate) fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let index = match self.position(first) {
            Ok(index) => index,
            Err(index) => {
                let node = Node { element: first.clone(), is_member: false, children: Self::default() };
                self.nodes.insert(index, node);
                index
            }
        };
        if rest.is_empty() {
            self.nodes[index].is_member = true;
        } else {
            self.nodes[index].children.insert(rest);
        }
    }

    /// Adds what a node holds to the node of the same element.
    pub(crate) fn add(&mut self, node: Node) {
        if node.is_empty() {
            return;
        }
        // Most callers come in order.
        if self.nodes.last().is_none_or(|last| last.element < node.element) {
            self.nodes.push(node);
            return;
        }
        match self.position(&node.element) {
            Ok(index) => {
                let present = &mut self.nodes[index];
                present.is_member |= node.is_member;
                present.children = present.children.union(&node.children);
            }
            Err(index) => self.nodes.insert(index, node),
        }
    }

    fn position(&self, element: &PathElement) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.element.cmp(element))
    }

    pub(crate) fn node(&self, element: &PathElement) -> Option<&Node> {
        self.position(element).ok().map(|index| &self.nodes[index])
    }

    pub(crate) fn contains(&self, path: &[PathElement]) -> bool {
        let Some((first, rest)) = path.split_first() else {
            return false;
        };
        self.node(first).is_some_and(|node| if rest.is_empty() { node.is_member } else { node.children.contains(rest) })
    }

    /// Whether some paths of both sets begin with the same element. If not, they have nothing to do with each other.
    pub(crate) fn has_common_root(&self, other: &Self) -> bool {
        self.nodes.iter().any(|node| other.position(&node.element).is_ok())
    }

    /// Paths of either set.
    pub(crate) fn union(&self, other: &Self) -> Self {
        self.combine(other, |left, right| match (left, right) {
            (Some(left), Some(right)) => Some(Node {
                element: left.element.clone(),
                is_member: left.is_member || right.is_member,
                children: left.children.union(&right.children),
            }),
            (node, None) | (None, node) => node.cloned(),
        })
    }

    /// Paths of both sets.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |left, right| {
            let (left, right) = (left?, right?);
            Some(Node {
                element: left.element.clone(),
                is_member: left.is_member && right.is_member,
                children: left.children.intersection(&right.children),
            })
        })
    }

    /// Paths of this set that are not in the other. A path stays when only its parent is taken away, and the other way round.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |left, right| {
            let left = left?;
            let Some(right) = right else {
                return Some(left.clone());
            };
            Some(Node {
                element: left.element.clone(),
                is_member: left.is_member && !right.is_member,
                children: left.children.difference(&right.children),
            })
        })
    }

    /// Paths of this set that neither are in the other nor lie below one of its paths.
    pub(crate) fn recursive_difference(&self, other: &Self) -> Self {
        self.combine(other, |left, right| {
            let left = left?;
            let Some(right) = right else {
                return Some(left.clone());
            };
            if right.is_member {
                return None;
            }
            Some(Node {
                element: left.element.clone(),
                is_member: left.is_member,
                children: left.children.recursive_difference(&right.children),
            })
        })
    }

    fn combine(&self, other: &Self, decide: impl Fn(Option<&Node>, Option<&Node>) -> Option<Node>) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let mut keep = |node: Option<Node>| nodes.extend(node.filter(|node| !node.is_empty()));
        let (mut left, mut right) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => keep(decide(left.next(), None)),
                (None, Some(_)) => keep(decide(None, right.next())),
                (Some(first), Some(second)) => match first.element.cmp(&second.element) {
                    Ordering::Less => keep(decide(left.next(), None)),
                    Ordering::Greater => keep(decide(None, right.next())),
                    Ordering::Equal => keep(decide(left.next(), right.next())),
                },
            }
        }
        Self { nodes }
    }

    /// All paths; at each level first the members, then what lies below them.
    pub(crate) fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut Path, paths: &mut Vec<Path>) {
        for node in self.nodes.iter().filter(|node| node.is_member) {
            let mut path = prefix.clone();
            path.push(node.element.clone());
            paths.push(path);
        }
        for node in &self.nodes {
            prefix.push(node.element.clone());
            node.children.collect_paths(prefix, paths);
            prefix.pop();
        }
    }

    /// A set of paths of field names.
    pub(crate) fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Path = path.iter().map(|name| PathElement::field(name)).collect();
            set.insert(&path);
        }
        set
    }
}

impl FromIterator<Node> for Set {
    fn from_iter<T: IntoIterator<Item = Node>>(nodes: T) -> Self {
        let mut set = Self::default();
        nodes.into_iter().for_each(|node| set.add(node));
        set
    }
}

/// `.spec.template.spec.containers[name="app"].image`.
pub(crate) fn path_text(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}
