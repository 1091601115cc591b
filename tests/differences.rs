//! `docs/flagger-differences.md` against the tests: each quirk of Flagger has its row, and each test that a row names is there.
//! So are those of the tables of `docs/proof.md` and `docs/systems` whose last column is `Test`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const PAGE: &str = include_str!("../docs/flagger-differences.md");
const PROOF: &str = include_str!("../docs/proof.md");
/// What was wrong with the systems that Aviary grew from, and what keeps it out.
const SYSTEMS: [&str; 4] = [
    include_str!("../docs/systems/steerer.md"),
    include_str!("../docs/systems/flagger-0.1.md"),
    include_str!("../docs/systems/crossover.md"),
    include_str!("../docs/systems/birdwatch.md"),
];
/// The quirks are numbered from 1.
const QUIRKS: usize = 50;
/// Where tests are.
const TREES: [&str; 8] = ["actors", "crds", "loadtest", "providers", "rollout", "sim", "src", "tests"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names of all test functions of the project.
fn tests() -> &'static BTreeSet<String> {
    static TESTS: OnceLock<BTreeSet<String>> = OnceLock::new();
    TESTS.get_or_init(|| {
        let mut files = Vec::new();
        for tree in TREES {
            sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(tree), &mut files);
        }
        files.iter().flat_map(|file| tests_in(&std::fs::read_to_string(file).unwrap())).collect()
    })
}

/// Functions with an attribute that makes a test of them.
fn tests_in(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test") || line.starts_with("#[actix::test");
            continue;
        }
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = function.filter(|_| is_test).and_then(|rest| rest.split_once('(')) {
            found.push(name.0.to_owned());
        }
        // Comments may stand between the attribute and the function.
        is_test &= line.starts_with("//");
    }
    found
}

/// Whether there is a test of this name.
pub fn has_test(name: &str) -> bool {
    tests().contains(name)
}

/// The cells of the page's rows that begin with numbers of quirks, by number.
fn rows() -> BTreeMap<usize, Vec<Vec<&'static str>>> {
    let mut rows = BTreeMap::<usize, Vec<Vec<&str>>>::new();
    let is_row =
        |line: &&str| line.strip_prefix("| Q").is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()));
    for line in PAGE.lines().filter(is_row) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        for number in cells[0].split(", ") {
            let number = number.strip_prefix('Q').and_then(|number| number.parse().ok());
            rows.entry(number.unwrap_or_else(|| panic!("{line}: no number"))).or_default().push(cells.clone());
        }
    }
    rows
}

/// What stands in backticks.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_quirk_of_flagger_has_its_row() {
    let rows = rows();
    let numbers: Vec<usize> = rows.keys().copied().collect();
    assert_eq!(numbers, (1..=QUIRKS).collect::<Vec<_>>());
    for (number, rows) in rows {
        for row in rows {
            let [_, flagger, aviary, tests] = row.as_slice() else { panic!("Q{number} has {} cells", row.len()) };
            assert!(!flagger.is_empty(), "Q{number}");
            let is_decided = ["fixed: ", "kept: "].iter().any(|word| aviary.starts_with(word));
            assert!(is_decided, "Q{number} is neither fixed nor kept: {aviary}");
            assert!(!names(tests).is_empty(), "Q{number} names no test");
        }
    }
}

#[test]
fn each_test_that_the_pages_name_is_there() {
    let mut missing = Vec::new();
    let mut is_of_tests = false;
    let lists_tests = |page: &str| page.lines().any(|line| line.starts_with('|') && line.ends_with("| Test |"));
    assert!(
        SYSTEMS.iter().all(|page| lists_tests(page)),
        "each system has a list of its faults and the tests against them"
    );
    for line in [PAGE, PROOF].iter().chain(&SYSTEMS).flat_map(|page| page.lines()) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(last) = cells.last().filter(|_| line.starts_with('|')) else {
            is_of_tests = false;
            continue;
        };
        is_of_tests |= *last == "Test";
        if !is_of_tests || *last == "Test" || line.starts_with("|---") {
            continue;
        }
        let names = names(last);
        let is_there = |name: &str| match name.contains('/') {
            true => Path::new(env!("CARGO_MANIFEST_DIR")).join(name).exists(),
            false => has_test(name),
        };
        missing.extend(names.iter().filter(|name| !is_there(name)).map(|name| format!("{}: {name}", cells[0])));
    }
    assert!(missing.is_empty(), "not in the tree:\n{}", missing.join("\n"));
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "#[test]\nfn one() {}\nfn two() {}\n    #[tokio::test(start_paused = true)]\n    // Why.\n    async fn three() {}\n";
    assert_eq!(tests_in(source), ["one", "three"]);
}
