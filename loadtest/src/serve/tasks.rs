//! Tasks: what a webhook's metadata ask for.

use std::collections::BTreeMap;

use aviary_load_commands::{Command, Refused, Task};

use super::Context;
use super::outcome::Outcome;
use super::process::{self, Program};
use super::{curl, grpc, http_load};

/// What is to be run.
#[derive(Debug)]
pub(super) struct Order {
    /// `cmd`, `bash` …, for metrics.
    pub(super) kind: &'static str,
    /// The command, which with its canary identifies the task.
    pub(super) command: String,
    pub(super) work: Work,
    /// It is started, and nobody waits for its end.
    pub(super) is_background: bool,
    pub(super) logs_output: bool,
    pub(super) answers_output: bool,
}

/// How it is run.
#[derive(Debug)]
pub(super) enum Work {
    /// Without a process.
    Native(Box<Task>),
    /// As a process.
    Process(Program),
}

/// An order that is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OrderError {
    #[error("metadata not found in payload")]
    NoMetadata,
    #[error("cmd not found in metadata")]
    NoCommand,
    #[error("task type {0:?} is not served: use cmd or bash with hey, wrk, ghz, grpc_health_probe or curl")]
    Unserved(String),
    #[error("task type {0:?} runs commands, which is switched off: start the load tester with --allow-commands")]
    SwitchedOff(&'static str),
    #[error("{0}; to run commands in a shell, start the load tester with --allow-commands")]
    NotUnderstood(Refused),
}

impl Order {
    pub(super) fn new(metadata: Option<&BTreeMap<String, String>>, allows_commands: bool) -> Result<Order, OrderError> {
        let metadata = metadata.ok_or(OrderError::NoMetadata)?;
        let kind = metadata.get("type").map(String::as_str).filter(|kind| !kind.is_empty()).unwrap_or("cmd");
        let (kind, program) = match kind {
            "cmd" => ("cmd", Program::Sh),
            "bash" => ("bash", Program::Bash),
            "helm" => ("helm", Program::Helm),
            "helmv3" => ("helmv3", Program::Helm),
            "kubectl" => ("kubectl", Program::Kubectl),
            other => return Err(OrderError::Unserved(other.to_owned())),
        };
        let is_shell = matches!(program, Program::Sh | Program::Bash);
        if !is_shell && !allows_commands {
            return Err(OrderError::SwitchedOff(kind));
        }
        let command = metadata.get("cmd").map(|command| command.trim()).filter(|command| !command.is_empty());
        let command = command.ok_or(OrderError::NoCommand)?;
        let work = match Task::parse(command) {
            Ok(task) if is_shell => Work::Native(Box::new(task)),
            Err(refused) if !allows_commands => return Err(OrderError::NotUnderstood(refused)),
            _ => Work::Process(program),
        };
        // What Go's strconv.ParseBool takes for true.
        let is_true = |key: &str| {
            metadata.get(key).is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True"))
        };
        Ok(Order {
            kind,
            command: command.to_owned(),
            work,
            is_background: kind == "cmd",
            logs_output: is_true("logCmdOutput"),
            answers_output: is_true("returnCmdOutput"),
        })
    }

    /// In one line, without anything that may be secret.
    pub(super) fn summary(&self) -> String {
        match &self.work {
            Work::Native(task) => task.summary(),
            Work::Process(program) => format!("a command of {} bytes with {program:?}", self.command.len()),
        }
    }

    /// Runs it to its end or its time limit. When this future is dropped, it ends.
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let work = async {
            match &self.work {
                Work::Native(task) => run_native(task, context).await,
                Work::Process(program) => process::run(*program, &self.command).await,
            }
        };
        // Load has a limit of its own, at which it still tells what became of its requests.
        let is_load = matches!(&self.work, Work::Native(task) if matches!(task.command, Command::HttpLoad(_) | Command::GrpcLoad(_)));
        if is_load {
            return work.await;
        }
        let ended = tokio::time::timeout(context.timeout, work).await;
        ended.unwrap_or_else(|_| Outcome::failed(124, "ended at the time limit (-timeout)"))
    }
}

async fn run_native(task: &Task, context: &Context) -> Outcome {
    let mut outcome = match &task.command {
        Command::HttpLoad(load) => http_load::run(load, context).await,
        Command::Curl(curl) => curl::run(curl, context).await,
        Command::GrpcLoad(load) => grpc::load(load, context).await,
        Command::HealthProbe(probe) => grpc::probe(probe, context).await,
    };
    for filter in &task.filters {
        let (output, found) = filter.filter(&outcome.output);
        // As in a shell, the last command of a pipe decides; what the ones before it said of themselves is told.
        outcome = Outcome { exit_code: i32::from(!found), output, error: outcome.error };
    }
    if !task.filters.is_empty() && !outcome.is_success() && outcome.error.is_empty() {
        "grep found nothing".clone_into(&mut outcome.error);
    }
    if task.is_silent {
        outcome.output.clear();
    }
    outcome
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn order(entries: &[(&str, &str)], allows_commands: bool) -> Result<Order, String> {
        let metadata = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Order::new(Some(&metadata), allows_commands).map_err(|error| error.to_string())
    }

    #[test]
    fn cmd_is_the_default_and_runs_in_the_background() {
        let taken = order(&[("cmd", " hey -z 1m http://a/ "), ("logCmdOutput", "true")], false).unwrap();
        assert!(taken.is_background && taken.logs_output && matches!(taken.work, Work::Native(_)));
        assert_eq!((taken.kind, taken.command.as_str()), ("cmd", "hey -z 1m http://a/"));
        let taken = order(&[("type", "bash"), ("cmd", "curl http://a/"), ("returnCmdOutput", "1")], false).unwrap();
        assert!(!taken.is_background && taken.answers_output);
    }

    #[test]
    fn nothing_is_run_unless_commands_are_allowed() {
        for kind in ["cmd", "bash"] {
            let refused = order(&[("type", kind), ("cmd", "bats /tests/a.bats")], false).unwrap_err();
            assert!(refused.contains("\"bats\" is none") && refused.ends_with("with --allow-commands"), "{refused}");
        }
        for kind in ["helm", "helmv3", "kubectl"] {
            let refused = order(&[("type", kind), ("cmd", "test podinfo")], false).unwrap_err();
            assert_eq!(
                refused,
                format!(
                    "task type {kind:?} runs commands, which is switched off: start the load tester with --allow-commands"
                )
            );
        }
        for (kind, cmd, program) in [
            ("cmd", "bats a", Program::Sh),
            ("bash", "bats a && true", Program::Bash),
            ("helm", "test podinfo", Program::Helm),
            ("kubectl", "get pods", Program::Kubectl),
        ] {
            let taken = order(&[("type", kind), ("cmd", cmd)], true).unwrap();
            assert!(matches!(taken.work, Work::Process(with) if with == program), "{kind}");
        }
        let taken = order(&[("cmd", "hey http://a/")], true).unwrap();
        assert!(matches!(taken.work, Work::Native(_)), "what is understood needs no process");
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        for kind in ["concord", "ngrinder", "smoke"] {
            let refused = order(&[("type", kind), ("cmd", "curl http://a/")], true).unwrap_err();
            assert!(refused.starts_with(&format!("task type {kind:?} is not served")), "{refused}");
        }
        assert_eq!(order(&[], false).unwrap_err(), "cmd not found in metadata");
        assert_eq!(order(&[("cmd", " ")], false).unwrap_err(), "cmd not found in metadata");
        assert_eq!(Order::new(None, false).unwrap_err(), OrderError::NoMetadata);
    }
}
