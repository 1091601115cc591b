//! What the scripts say to a wrong word: one line that names it, and a failure.

use std::path::Path;
use std::process::{Command, Output};

use super::scripts::{INSIDE, REQUIRED, script};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn refused(name: &str, arguments: &[&str]) -> String {
    let output = script(name).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{name} {arguments:?}");
    let said = said(&output);
    assert_eq!(said.lines().count(), 1, "{name} {arguments:?}: {said}");
    said
}

#[test]
fn a_wrong_word_is_named() {
    let nothing = tempfile::tempdir().unwrap();
    let (nothing, quoted) = (nothing.path().to_str().unwrap(), nothing.path().join("it's"));
    for (name, arguments, expected) in [
        ("up", vec!["--only"], "--only takes api-server, not 'nothing'"),
        ("up", vec!["--only", "mesh", nothing], "--only takes api-server, not 'mesh'"),
        ("up", vec!["--quick", nothing], "there is no option '--quick'"),
        ("up", vec![], "name one directory"),
        ("up", vec![nothing, nothing], "name one directory"),
        ("up", vec![quoted.to_str().unwrap()], "may have quotes or backslashes"),
        ("up", vec![env!("CARGO_MANIFEST_DIR")], "has files that no bench made"),
        ("down", vec![nothing], "there is no bench in"),
        ("down", vec![], "usage"),
        ("grant", vec![nothing, "operator"], "is down; to bring it up"),
        ("tools", vec!["everthing"], "there is no 'everthing' to build"),
    ] {
        let said = refused(name, &arguments);
        assert!(said.contains(expected), "{name} {arguments:?}: {said}");
    }
}

#[test]
fn each_script_tells_what_it_does() {
    for name in ["up", "down", "grant", "tools"] {
        let output = script(name).arg("--help").output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.starts_with(name) && !told.contains('#'),
            "{name}: {told}{}",
            said(&output)
        );
    }
}

/// `component`, over the settings of a bench that is not up.
#[test]
fn a_component_that_does_not_exist_is_named_with_those_that_do() {
    let bench = tempfile::tempdir().unwrap();
    let directory = bench.path().to_str().unwrap();
    let settings = |only: &str| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
        let text = format!("here='{}'\ndir='{directory}'\ntools=''\nnetwork=''\nonly='{only}'\n", here.display());
        std::fs::write(bench.path().join("settings"), text).unwrap();
    };
    settings("");
    for (arguments, expected) in [
        (vec!["stop", "bogus"], "there is no component 'bogus'"),
        (vec!["stop"], "stop what? One or more of: etcd"),
        (vec!["pause", "etcd"], "there is no action 'pause'"),
        (vec!["restart", "-STOP", "etcd"], "-STOP does not"),
    ] {
        let arguments: Vec<&str> = [directory].into_iter().chain(arguments).collect();
        let said = refused("component", &arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    settings("api-server");
    let said = refused("component", &[directory, "start", "envoy"]);
    assert!(said.contains("there is no component 'envoy'") && said.ends_with("kube-controller-manager"), "{said}");
}

/// One that needs a bench, where none of the parts is there, nor can be.
fn test_without_tools(required: Option<&str>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "real::versions_of_canaries::both_versions_of_a_canary_hand_out_the_same_object"]);
    command.env_remove(INSIDE).env_remove(REQUIRED).env("AVIARY_REAL_CACHE", "/dev/null/nothing");
    let output = command.envs(required.map(|value| (REQUIRED, value))).output().unwrap();
    (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output)))
}

#[test]
fn a_test_is_skipped_aloud_without_the_tools_unless_they_are_required() {
    let (passed, told) = test_without_tools(None);
    assert!(passed && told.contains("1 passed"), "{told}");
    for part in ["SKIPPED", "Kubernetes", "istiod", "kwok", "Envoy"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (passed, told) = test_without_tools(Some("1"));
    assert!(!passed && told.contains("1 failed") && told.contains("tests/real/tools failed"), "{told}");
}
