//! Which version this is.

use std::sync::LazyLock;

/// Version of the release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit that was built; set `AVIARY_REVISION` when building.
pub const REVISION: &str = match option_env!("AVIARY_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Version of Flagger whose API, flags, events and metrics this version follows.
pub const FLAGGER_VERSION: &str = "1.44";

static TEXT: LazyLock<String> = LazyLock::new(|| format!("version {VERSION} revision {REVISION}"));

/// One line for people.
pub fn text() -> &'static str {
    &TEXT
}

/// The same for programs.
pub fn json() -> serde_json::Value {
    serde_json::json!({"version": VERSION, "revision": REVISION, "flaggerVersion": FLAGGER_VERSION})
}
