#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;

use super::*;
use crate::args::{Cli, Command};

fn args(flags: &[&str]) -> RbacArgs {
    let argv = ["aviary", "rbac"].iter().chain(flags).map(OsString::from);
    let Ok(Cli { command: Command::Rbac(args) }) = Cli::parse_from(argv, |_| None) else { panic!("{flags:?}") };
    *args
}

/// Kind, namespace and name of every object.
fn names(flags: &[&str]) -> Vec<String> {
    let name = |object: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or("*").to_owned();
        format!(
            "{} {}/{}",
            text(&object["kind"]),
            text(&object["metadata"]["namespace"]),
            text(&object["metadata"]["name"])
        )
    };
    manifests(&args(flags)).iter().map(name).collect()
}

#[test]
fn an_operator_for_the_whole_cluster_has_a_cluster_role() {
    assert_eq!(
        names(&[]),
        ["ServiceAccount aviary-system/aviary", "ClusterRole */aviary", "ClusterRoleBinding */aviary"]
    );
}

#[test]
fn an_operator_for_some_namespaces_has_no_rights_elsewhere() {
    assert_eq!(
        names(&["--namespace=a,b", "--enable-leader-election", "--service-account-namespace=ops"]),
        [
            "ServiceAccount ops/aviary",
            "Role a/aviary",
            "RoleBinding a/aviary",
            "Role b/aviary",
            "RoleBinding b/aviary",
            "Role a/aviary-leader-election",
            "RoleBinding a/aviary-leader-election",
        ]
    );
    let elsewhere = names(&["--enable-leader-election", "--leader-election-namespace=ops"]);
    assert_eq!(elsewhere.last().unwrap(), "RoleBinding ops/aviary-leader-election");
}

#[test]
fn the_lease_of_the_election_is_where_the_operator_looks_for_it() {
    for flags in [&[][..], &["--namespace=b,a"], &["--leader-election-namespace=ops"]] {
        let argv = ["aviary", "run", "--enable-leader-election"].iter().chain(flags).map(OsString::from);
        let Ok(Cli { command: Command::Run(run) }) = Cli::parse_from(argv, |_| None) else { panic!("{flags:?}") };
        let expected = format!("Role {}/aviary-leader-election", run.election_namespace());
        assert!(names(&[&["--enable-leader-election"], flags].concat()).contains(&expected), "{flags:?}");
    }
}

#[test]
fn nothing_is_granted_wholesale() {
    let text = render(&args(&["--enable-leader-election", "-o", "json"])).unwrap();
    assert!(!text.contains('*'), "{text}");
    for verb in ["deletecollection", "impersonate", "escalate", "bind"] {
        assert!(!text.contains(&format!("\"{verb}\"")), "{verb}");
    }
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["kind"], "List");
    // Only what is asked for by the object itself is deleted.
    let rules = list["items"].as_array().unwrap().iter().filter_map(|item| item["rules"].as_array()).flatten();
    let deleted = rules.filter(|rule| rule["verbs"].as_array().unwrap().contains(&Value::from("delete")));
    assert_eq!(deleted.map(|rule| &rule["resources"]).collect::<Vec<_>>(), [&Value::from(vec!["birdwatches"])]);
}

#[test]
fn yaml_and_json_say_the_same() {
    let json: Value = serde_json::from_str(&render(&args(&["-o", "json"])).unwrap()).unwrap();
    let yaml: Vec<Value> = serde_saphyr::from_multiple(&render(&args(&[])).unwrap()).unwrap();
    assert_eq!(json["items"], Value::Array(yaml));
}

#[test]
fn each_permission_stands_once_and_a_provider_that_is_served_has_its_kinds() {
    let mut seen = BTreeSet::new();
    for permission in PERMISSIONS {
        for verb in permission.verbs {
            let key = (permission.group, permission.resource, *verb, format!("{:?}", permission.feature));
            assert!(seen.insert(key), "{permission:?} twice");
        }
    }
    for provider in aviary_providers::traffic::ALL {
        for kind in provider.watched() {
            for verb in WRITE {
                assert!(
                    is_granted(verb, Some(kind.group), kind.plural),
                    "{verb} {} of {}",
                    kind.plural,
                    provider.name()
                );
            }
        }
    }
}

#[test]
fn an_unknown_provider_is_refused() {
    let parse = |provider: &str| {
        let argv = ["aviary", "rbac", "--mesh-provider", provider].map(OsString::from);
        Cli::parse_from(argv, |_| None).err().map(|error| error.to_string())
    };
    assert_eq!(parse("istio"), None);
    assert!(parse("isto").unwrap().contains("supported: istio"));
    let without = manifests(&RbacArgs { mesh_provider: vec!["another".into()], ..args(&[]) });
    assert!(!json!(without).to_string().contains("istio"));
}

/// `UPDATE_GENERATED=1 cargo test` rewrites the page.
#[test]
fn the_checked_in_page_of_permissions_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/permissions.md");
    let mut page = String::from(
        "<!-- Generated: UPDATE_GENERATED=1 cargo test -p aviary -->\n# Permissions\n\nWhat the operator asks for, and why. \
         `aviary rbac` writes it as manifests. Tests fail on a call that the table lacks, and on a permission that no call needs.\n\n\
         | group | resource | verbs | needed by | why |\n|---|---|---|---|---|\n",
    );
    for Permission { group, resource, verbs, name, feature, why } in PERMISSIONS {
        let group = if group.is_empty() { "core" } else { group };
        let name = name.map(|name| format!(" `{name}`")).unwrap_or_default();
        let feature = match feature {
            Feature::Core => "everybody".to_owned(),
            Feature::Provider(provider) => format!("provider {provider}"),
            Feature::LeaderElection => "`--enable-leader-election`".to_owned(),
        };
        writeln!(page, "| {group} | {resource}{name} | {} | {feature} | {why} |", verbs.join(", ")).unwrap();
    }
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(checked_in == page, "{path} is out of date: run UPDATE_GENERATED=1 cargo test -p aviary");
}
