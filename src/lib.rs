//! The `aviary` binary, as a library so that tests can call it: command line, wiring, HTTP endpoints, demo, sandbox. Nothing here
//! decides anything about a release.

pub mod admin;
pub mod api_calls;
pub mod args;
mod colors;
pub mod crossover;
pub mod demo;
pub mod embedded;
pub mod kubernetes;
pub mod leader;
pub mod logging;
pub mod manifests;
pub mod rbac;
pub mod requests;
pub mod run;
pub mod sandbox;
pub mod settings;
pub mod simulate;
pub mod throttle;
pub mod version;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use args::{Cli, Command, LogEncoding, LogLevel, VersionArgs, VersionOutput};

// A canary whose actor panics is restarted alone; with `panic = "abort"` it would take the process with it.
const _: () = assert!(cfg!(panic = "unwind"), "supervision needs panic = \"unwind\"");

/// Runs the command line and returns what the process exits with.
pub fn main(argv: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::parse_from(argv, |name| std::env::var(name).ok()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // The last resort: there may be no log yet, and standard error may be closed.
            let _ = writeln!(io::stderr(), "error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match command {
        Command::Run(run) if run.version => writeln!(out, "aviary {}", version::text())?,
        Command::Run(run) => return run::run(&run),
        Command::Demo(demo) => return run_demo(demo, &mut out),
        Command::Sandbox(sandbox) => return sandbox::run(&sandbox, &mut out),
        Command::Simulate(simulate) => return Ok(run_simulate(&simulate, &mut out)),
        Command::Crossover(args) => return crossover::run(&args, &mut out),
        Command::Crds => write!(out, "{}", aviary_crds::schema::to_yaml()?)?,
        Command::Rbac(args) => write!(out, "{}", rbac::render(&args)?)?,
        Command::Manifests(args) => match manifests::render(&args)? {
            Ok(text) => write!(out, "{text}")?,
            Err(refusal) => refusal.exit(),
        },
        Command::Version(VersionArgs { output: VersionOutput::Text }) => writeln!(out, "aviary {}", version::text())?,
        Command::Version(VersionArgs { output: VersionOutput::Json }) => writeln!(out, "{:#}", version::json())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_demo(demo: args::DemoArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    if std::env::var_os("RUST_LOG").is_some() {
        logging::init(LogLevel::Off, LogEncoding::Console).context("start logging")?;
    }
    let is_terminal = io::stdout().is_terminal();
    let live = is_terminal && !demo.plain;
    let color = colors::are_wanted(demo.no_color);
    let report = demo::run(&demo::Options { live, color, ..demo::Options::from(demo) }, out).context("run the demo")?;
    Ok(if report.is_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Exit code 1 says that a release was rolled back; whatever goes wrong besides exits with 2.
fn run_simulate(args: &args::SimulateArgs, out: &mut dyn Write) -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        // Without a log the simulation is as good.
        let _ = logging::init(LogLevel::Off, LogEncoding::Console);
    }
    match simulate::run(args, colors::are_wanted(args.no_color), out, &mut io::stderr()) {
        Ok(report) => ExitCode::from(report.exit_code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", one_line(&error));
            ExitCode::from(simulate::Verdict::NotUnderstood.exit_code())
        }
    }
}

/// An error with its causes, without those that it repeats.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// `aviary crds | head` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow!("no such file").context("read x: no such file").context("start");
        assert_eq!(super::one_line(&error), "start: read x: no such file");
    }
}
