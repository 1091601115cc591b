//! Label sets.

use std::ops::Index;
use std::sync::Arc;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";

/// The labels of a series, sorted by name, the metric name among them under [`METRIC_NAME`].
///
/// Names and values are shared strings: series of one workload differ in a label or two, so a source builds the labels of
/// hundreds of series from the same few strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    pairs: Vec<(Arc<str>, Arc<str>)>,
}

impl Labels {
    /// No labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.position(name).ok().map(|position| &*self.pairs[position].1)
    }

    /// Whether the label exists.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Sets a label.
    pub fn insert(&mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) {
        let name = name.into();
        match self.position(&name) {
            Ok(position) => self.pairs[position].1 = value.into(),
            Err(position) => self.pairs.insert(position, (name, value.into())),
        }
    }

    /// Removes a label if it exists.
    pub fn remove(&mut self, name: &str) {
        if let Ok(position) = self.position(name) {
            self.pairs.remove(position);
        }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.pairs.binary_search_by(|(candidate, _)| (**candidate).cmp(name))
    }
}

impl<N: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(N, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut labels = Self::new();
        for (name, value) in pairs {
            labels.insert(name, value);
        }
        labels
    }
}

impl Index<&str> for Labels {
    type Output = str;

    /// The value of a label, empty if there is none: Prometheus makes no difference between the two.
    fn index(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stay_sorted_and_unique() {
        let mut labels: Labels = [("b", "1"), ("a", "2"), ("b", "3")].into_iter().collect();
        labels.insert("__name__", "up");
        labels.remove("missing");
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("__name__", "up"), ("a", "2"), ("b", "3")]);
        labels.remove("a");
        assert_eq!((labels.get("a"), &labels["a"], &labels["b"]), (None, "", "3"));
    }
}
