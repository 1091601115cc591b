//! The declared fields of an object.

use super::Property;

/// Declared fields by name. Every write looks every one of its fields up several times, so they are sorted by the lengths of
/// their names first: most comparisons are of two numbers then, where those of a map by name read both names.
#[derive(Debug, Default)]
pub(super) struct Properties(Vec<(Box<str>, Property)>);

impl Properties {
    pub(super) fn get(&self, name: &str) -> Option<&Property> {
        self.position(name).and_then(|index| self.0.get(index)).map(|(_, property)| property)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Property> {
        let index = self.position(name)?;
        self.0.get_mut(index).map(|(_, property)| property)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Property)> {
        self.0.iter().map(|(name, property)| (&**name, property))
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.0.binary_search_by(|(known, _)| key(known).cmp(&key(name))).ok()
    }
}

fn key(name: &str) -> (usize, &str) {
    (name.len(), name)
}

impl FromIterator<(String, Property)> for Properties {
    fn from_iter<T: IntoIterator<Item = (String, Property)>>(properties: T) -> Self {
        let mut sorted: Vec<(Box<str>, Property)> =
            properties.into_iter().map(|(name, property)| (name.into_boxed_str(), property)).collect();
        sorted.sort_by(|(left, _), (right, _)| key(left).cmp(&key(right)));
        Self(sorted)
    }
}
