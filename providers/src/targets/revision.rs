//! (in progress)

/// Whether a revision was computed by Aviary (any version of it), and not by Flagger.
pub fn is_own_revision(revision: &str) -> bool {
    revision.starts_with("aviary-")
}
