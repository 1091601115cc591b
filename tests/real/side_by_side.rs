//! Benches keep to themselves: they use the same addresses at the same time, nobody outside reaches them, and a panic ends them.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;

use super::bench::{Bench, turn};
use super::scripts::{script, tools};

/// The output of `kubectl` on this bench.
fn kubectl(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(directory.join("kubectl")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn is_up(directory: &Path) -> bool {
    script("down").arg("--check").arg(directory).status().unwrap().success()
}

#[test]
fn benches_have_the_same_addresses_side_by_side_and_end_with_a_panic() {
    let _turn = turn();
    let directories = ["first", "second"].map(|name| tempfile::Builder::new().prefix(name).tempdir().unwrap());
    let [first, second] = directories.each_ref().map(tempfile::TempDir::path);
    let up = |directory: &Path| Bench::up_with(&["--only", "api-server"], directory);
    let Some(first_bench) = up(first) else { return };
    let second_bench = up(second).expect("what the first one had is there");

    for (directory, name) in [(first, "of-the-first"), (second, "of-the-second")] {
        kubectl(directory, &["create", "namespace", name]);
    }
    let namespaces = |directory| kubectl(directory, &["get", "namespaces", "--output", "name"]);
    assert!(namespaces(first).contains("of-the-first") && !namespaces(first).contains("of-the-second"));
    assert!(namespaces(second).contains("of-the-second") && !namespaces(second).contains("of-the-first"));
    // Some networks take a connection to any address; none of them has this API server's certificate.
    let mut outside = Command::new(tools().unwrap().join("kubectl"));
    outside.arg("--kubeconfig").arg(first.join("admin.kubeconfig")).args(["get", "namespaces", "--request-timeout=5s"]);
    let outside = outside.output().unwrap();
    assert!(!outside.status.success(), "reached from outside: {}", String::from_utf8_lossy(&outside.stdout));

    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let _bench = second_bench;
        panic!("a test that fails");
    }));
    assert!(panicked.is_err() && !is_up(second), "the second one has outlived a panic");
    assert!(is_up(first) && namespaces(first).contains("of-the-first"), "the first one has ended with the second");
    drop(first_bench);
    assert!(!is_up(first));
}
