//! Commands as processes, where `--allow-commands` has switched them on.

use std::io::{self, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::outcome::{Outcome, append};

/// How a command is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// `sh -c`
    Sh,
    /// `bash -c`
    Bash,
    /// `helm`, with the words of the command
    Helm,
    /// `kubectl`, with the words of the command
    Kubectl,
}

impl Program {
    fn command(self, text: &str) -> Command {
        let (program, is_shell) = match self {
            Program::Sh => ("sh", true),
            Program::Bash => ("bash", true),
            Program::Helm => ("helm", false),
            Program::Kubectl => ("kubectl", false),
        };
        let mut command = Command::new(program);
        if is_shell {
            command.args(["-c", text]);
        } else {
            // As Flagger does: no quotes.
            command.args(text.split_whitespace());
        }
        command
    }
}

/// A process with its descendants, which end when this is dropped, unless they have ended.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.0 else { return };
        // The standard library sends signals to single processes only.
        let kill = Command::new("sh").args(["-c", &format!("kill -9 -{id} 2>/dev/null")]).status();
        if let Err(error) = kill {
            tracing::warn!(%error, "processes of a command may go on");
        }
    }
}

/// Runs a command to its end. It ends at once when this future is dropped.
pub(super) async fn run(program: Program, text: &str) -> Outcome {
    match start(program, text) {
        Ok((ended, mut group)) => {
            let outcome = ended.await;
            // Its number may be another process's by now.
            group.0 = None;
            outcome.unwrap_or_else(|_| Outcome::failed(1, "the command was lost"))
        }
        Err(error) => Outcome::failed(127, format!("failed to start {program:?}: {error}")),
    }
}

fn start(program: Program, text: &str) -> io::Result<(oneshot::Receiver<Outcome>, Group)> {
    let (reader, writer) = io::pipe()?;
    let mut command = program.command(text);
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let child = command.spawn()?;
    // The writing ends that are left are those of the processes.
    drop(command);
    let (end, ended) = oneshot::channel();
    let group = Group(Some(child.id()));
    thread::Builder::new().name("command".to_owned()).spawn(move || {
        // Nobody may be waiting.
        let _ = end.send(wait(child, reader));
    })?;
    Ok((ended, group))
}

fn wait(mut child: Child, mut reader: PipeReader) -> Outcome {
    let output = Arc::new(Mutex::new(Vec::new()));
    let read = Arc::clone(&output);
    let reading = thread::Builder::new().name("output".to_owned()).spawn(move || {
        let mut bytes = [0; 16 * 1024];
        // Beyond what is kept it is read nevertheless, so that the command does not wait.
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            append(&mut read.lock(), &bytes[..count]);
        }
    });
    let status = child.wait();
    // Descendants in the background end with the command, and with them the last writing ends of the pipe.
    drop(Group(Some(child.id())));
    if let Ok(reading) = reading {
        let _ = reading.join();
    }
    let output = std::mem::take(&mut *output.lock());
    match status {
        Ok(status) if status.success() => Outcome { output, ..Outcome::default() },
        Ok(status) => Outcome { exit_code: status.code().unwrap_or(137), output, error: status.to_string() },
        Err(error) => Outcome { exit_code: 1, output, error: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn output_and_end_are_those_of_the_process() {
        let outcome = run(Program::Sh, "echo out; echo err >&2; exit 3").await;
        assert_eq!((outcome.exit_code, outcome.output.as_slice()), (3, b"out\nerr\n".as_slice()));
        assert_eq!(run(Program::Sh, "true").await, Outcome::default());
    }

    #[tokio::test]
    async fn descendants_end_with_the_command() {
        let begun = Instant::now();
        let outcome = run(Program::Sh, "sleep 300 & echo $!").await;
        assert!(begun.elapsed() < Duration::from_secs(60), "the pipe that the descendant holds is not waited for");
        until_gone(String::from_utf8(outcome.output).unwrap().trim()).await;
    }

    #[tokio::test]
    async fn a_command_ends_with_whoever_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let text = format!("echo $$ > {0}.new && mv {0}.new {0} && sleep 300 && true", file.display());
        let running = tokio::spawn(async move { run(Program::Sh, &text).await });
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.abort();
        until_gone(std::fs::read_to_string(&file).unwrap().trim()).await;
    }

    /// A process that was killed may still be listed until its parent has looked.
    async fn until_gone(id: &str) {
        let begun = Instant::now();
        let stat = format!("/proc/{id}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(begun.elapsed() < Duration::from_secs(60), "process {id} goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
