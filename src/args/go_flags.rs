//! Go's flag notation, which Flagger's manifests use: `-name=value`, `-name value`, `-switch`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Flags of the Go logging library that Flagger carries, and whether they take a value. They say nothing that matters
/// here and are dropped.
const KLOG_FLAGS: [(&str, Takes); 15] = [
    ("add_dir_header", Takes::Nothing),
    ("alsologtostderr", Takes::Nothing),
    ("alsologtostderrthreshold", Takes::Value),
    ("legacy_stderr_threshold_behavior", Takes::Nothing),
    ("log_backtrace_at", Takes::Value),
    ("log_dir", Takes::Value),
    ("log_file", Takes::Value),
    ("log_file_max_size", Takes::Value),
    ("logtostderr", Takes::Nothing),
    ("one_output", Takes::Nothing),
    ("skip_headers", Takes::Nothing),
    ("skip_log_headers", Takes::Nothing),
    ("stderrthreshold", Takes::Value),
    ("v", Takes::Value),
    ("vmodule", Takes::Value),
];

/// The verb of a command line that has none.
const RUN: &str = "run";
/// What stands in for Crossover.
const CROSSOVER: &str = "crossover";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Value,
    /// A switch takes its value only behind an equals sign.
    Nothing,
}

/// Rewrites a command line of `flagger`, `aviary run`, `aviary demo` or `aviary crossover` to the notation that clap reads, and leaves every
/// other command line alone. `root` is the built command with all its verbs.
///
/// - A command line that begins with a flag, or that of a binary called `flagger`, is one of `run`.
/// - A flag's value is joined to it, so that a value is never taken for a flag.
pub(super) fn rewrite(argv: Vec<OsString>, root: &clap::Command) -> Vec<OsString> {
    let mut argv = argv.into_iter();
    let Some(program) = argv.next() else { return Vec::new() };
    let rest: Vec<OsString> = argv.collect();
    let is_flagger = Path::new(&program).file_stem() == Some(OsStr::new("flagger"));
    let mut rewritten = vec![program];
    match rest.first().and_then(|first| first.to_str()) {
        None if is_flagger && rest.is_empty() => rewritten.push(RUN.into()),
        Some(verb @ (RUN | "demo" | CROSSOVER)) => {
            rewritten.push(verb.into());
            rewrite_flags(rest.iter().skip(1).cloned(), verb, root, &mut rewritten);
        }
        Some("-version") => rewritten.push("--version".into()),
        Some("-help" | "-h" | "--help") if !is_flagger => rewritten.push("--help".into()),
        Some("-V" | "--version") => rewritten.extend(rest),
        Some(first) if first.starts_with('-') => {
            rewritten.push(RUN.into());
            rewrite_flags(rest.into_iter(), RUN, root, &mut rewritten);
        }
        _ => rewritten.extend(rest),
    }
    rewritten
}

/// Rewrites the arguments of this verb, which another binary has, to the notation that clap reads.
pub fn rewrite_verb(given: impl Iterator<Item = OsString>, verb: &str, root: &clap::Command) -> Vec<OsString> {
    let mut rewritten = Vec::new();
    rewrite_flags(given, verb, root, &mut rewritten);
    rewritten
}

fn rewrite_flags(
    mut given: impl Iterator<Item = OsString>,
    verb: &str,
    root: &clap::Command,
    rewritten: &mut Vec<OsString>,
) {
    let known = root.find_subcommand(verb).map(known_flags).unwrap_or_default();
    // Only `run` stands in for Flagger.
    let dropped: &[(&str, Takes)] = if verb == RUN { &KLOG_FLAGS } else { &[] };
    while let Some(argument) = given.next() {
        let Some((name, value)) = argument.to_str().and_then(split_flag) else {
            rewritten.push(argument);
            continue;
        };
        let klog = dropped.iter().find(|(klog, _)| *klog == name).map(|(_, takes)| *takes);
        let takes = known.get(name).copied().or(klog).unwrap_or(Takes::Nothing);
        let value = match value {
            Some(value) => Some(OsString::from(value)),
            None if takes == Takes::Value => given.next(),
            None => None,
        };
        if klog.is_some() {
            continue;
        }
        // Its switches are plain ones.
        let is_on = verb == CROSSOVER && takes == Takes::Nothing;
        let value = value.filter(|value| !is_on || value != "true");
        // `-h` stays short; every other name is long, known or not, so that an error shows it whole.
        let mut flag = OsString::from(if name.len() == 1 { "-" } else { "--" });
        flag.push(name);
        if let Some(value) = value {
            flag.push("=");
            flag.push(value);
        }
        rewritten.push(flag);
    }
}

/// Splits `-name`, `--name` and both with `=value`.
fn split_flag(argument: &str) -> Option<(&str, Option<&str>)> {
    let flag = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'))?;
    if flag.is_empty() || flag.starts_with('-') {
        return None;
    }
    Some(match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    })
}

fn known_flags(verb: &clap::Command) -> BTreeMap<&str, Takes> {
    let takes = |argument: &clap::Arg| {
        let needs_value = argument.get_num_args().is_some_and(|count| count.min_values() > 0);
        if needs_value { Takes::Value } else { Takes::Nothing }
    };
    verb.get_arguments().filter_map(|argument| Some((argument.get_long()?, takes(argument)))).collect()
}
