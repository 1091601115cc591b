//! The scripts of this directory, for every crate whose tests need a real component.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set within a bench: its directory. `DIR/inside` sets it.
pub const INSIDE: &str = "AVIARY_BENCH";
/// With it a missing part fails the test, and parts that are not there are built.
pub const REQUIRED: &str = "AVIARY_REQUIRE_REAL";

/// One of the scripts, to be run outside of any bench.
pub fn script(name: &str) -> Command {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let path = crates.map(|root| root.join("tests/real").join(name)).find(|path| path.exists());
    let mut command = Command::new(path.unwrap());
    // A command within a bench takes itself to be there already.
    command.stdin(Stdio::null()).env_remove(INSIDE);
    command
}

/// Whether the parts are there. Says aloud what is missing.
pub fn are_tools_there() -> bool {
    tools().is_some()
}

/// A directory that has all parts. Says aloud what is missing.
pub fn tools() -> Option<PathBuf> {
    let is_required = std::env::var_os(REQUIRED).is_some();
    let arguments: &[&str] = if is_required { &[] } else { &["--check"] };
    let output = script("tools").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        // That one of them is not the pinned version, for instance.
        if !said.is_empty() {
            say_aloud(said.trim());
        }
        return Some(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    assert!(output.status.code() == Some(3) && !is_required, "tests/real/tools failed:\n{said}");
    say_aloud(&format!("SKIPPED: {said}"));
    None
}

/// Aloud, which `eprintln!` is not: its lines are kept back where a test passes.
pub fn say_aloud(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
