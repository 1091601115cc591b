//! The command line.
//!
//! `aviary run` takes Flagger's flags, in Go's notation too (see `go_flags`), so that its manifests and its chart work
//! unchanged. Whatever reads a flag reads it from here; defaults are written down once.

mod crossover;
pub mod go_flags;
mod manifests;
mod rbac;
mod run;
mod sandbox;
mod simulate;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::str::FromStr;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use crossover::CrossoverArgs;
pub use manifests::{GivenFlags, ManifestsArgs};
pub use rbac::{RbacArgs, RbacOutput};
pub use run::{LogEncoding, LogLevel, MetricsErrors, RunArgs, UnusedFlag, WebhookStatuses};
pub(crate) use run::{comma_list, is_http_url};
pub use sandbox::{SandboxArgs, SandboxOutput};
pub use simulate::{SimulateArgs, SimulateOutput};

const EXAMPLES: &str = "\
Examples:
  # Watch a whole release on this machine: no Kubernetes needed
  aviary demo

  # A cluster to try things on: no Kubernetes needed either
  aviary sandbox --kubeconfig=sandbox.yaml

  # Try a Canary out: would this release be promoted?
  aviary simulate -f canary.yaml

  # Install the CustomResourceDefinitions
  aviary crds | kubectl apply -f -

  # Grant what the operator needs, and no more
  aviary rbac | kubectl apply -f -

  # Run the operator against the cluster that kubectl talks to
  aviary run --metrics-server=http://localhost:9090

  # Run it as Flagger is run; the word `run` may be left out
  aviary -mesh-provider=istio -metrics-server=http://prometheus:9090";

/// A Kubernetes operator for progressive delivery.
///
/// Aviary moves traffic to a new version of a workload step by step, checks metrics at every
/// step, and promotes the version or rolls it back. It serves Flagger's API: a Canary that was written for Flagger works
/// unmodified.
#[derive(Parser)]
#[command(
    name = "aviary",
    version = crate::version::text(),
    after_long_help = EXAMPLES,
    max_term_width = HELP_WIDTH,
    styles = STYLES,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Width of the help at most; longer lines are hard to read.
const HELP_WIDTH: usize = 100;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The verbs.
#[derive(Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunArgs>),
    /// Show one good and one bad release on an embedded cluster.
    Demo(DemoArgs),
    /// Serve an embedded cluster to kubectl and to the operator.
    Sandbox(Box<SandboxArgs>),
    /// Try Canaries out: what would happen to a release, in virtual time.
    Simulate(Box<SimulateArgs>),
    /// Write TrafficSplits into the files of an Envoy, beside it in its pod.
    Crossover(Box<CrossoverArgs>),
    /// Print the CustomResourceDefinitions as YAML, ready for kubectl apply.
    Crds,
    /// Print the permissions that the operator needs, ready for kubectl apply.
    Rbac(Box<RbacArgs>),
    /// Print everything that an installation needs, ready for kubectl apply.
    Manifests(Box<ManifestsArgs>),
    /// Print the version.
    Version(VersionArgs),
}

/// Arguments of `aviary version`.
#[derive(clap::Args)]
pub struct VersionArgs {
    /// Format of the output.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value = "text")]
    pub output: VersionOutput,
}

/// Format of `aviary version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VersionOutput {
    /// One line.
    Text,
    /// A JSON object.
    Json,
}

const DEMO_EXAMPLES: &str = "\
The demo starts an API server, workload controllers, users and Prometheus in this process, on virtual time, and runs the \
operator against them. It releases podinfo 6.0.1, which is good, and then 6.0.2, which fails every tenth request. What it \
shows of the releases is read from the Events and the status of the Canary, as kubectl would show them.

Exit code 0 if the good release was promoted and the bad one rolled back, 1 otherwise.

Examples:
  aviary demo
  # What happens to a release that fails two percent of the requests?
  aviary demo --good-error-rate=0.02
  # In a pipeline: no pauses, plain lines
  aviary demo --speed=max --plain";

/// Arguments of `aviary demo`.
#[derive(clap::Args, Clone, Debug, PartialEq)]
#[command(after_long_help = DEMO_EXAMPLES)]
pub struct DemoArgs {
    /// How many times faster than real time the cluster's clock runs; `max` for as fast as it can.
    #[arg(long, value_name = "FACTOR", default_value = "8")]
    pub speed: Speed,
    /// Part of the requests that the good version (6.0.1) fails, 0 to 1.
    #[arg(long, value_name = "RATIO", default_value = "0", value_parser = ratio)]
    pub good_error_rate: f64,
    /// Part of the requests that the bad version (6.0.2) fails, 0 to 1.
    #[arg(long, value_name = "RATIO", default_value = "0.1", value_parser = ratio)]
    pub bad_error_rate: f64,
    /// Print plain lines even if the output is a terminal.
    #[arg(long)]
    pub plain: bool,
    /// Print no colours. They are also off if NO_COLOR is set or the output is no terminal.
    #[arg(long)]
    pub no_color: bool,
}

/// Speed of the demo's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// This many times real time.
    Times(f64),
    /// As fast as the machine can.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        match text.parse::<f64>() {
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Speed::Times(times)),
            _ => Err("expected a number above 0, or max".to_owned()),
        }
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

impl Cli {
    /// Reads a command line, program name included. `environment` looks up environment variables.
    ///
    /// # Errors
    /// For an invalid command line, and also where help or the version is asked for: [`clap::Error::exit`] does the right
    /// thing in each case.
    pub fn parse_from(
        argv: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Cli, clap::Error> {
        let mut command = Cli::command();
        command.build();
        let argv = go_flags::rewrite(argv.into_iter().collect(), &command);
        let matches = command.try_get_matches_from_mut(argv)?;
        let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let checked = match &mut cli.command {
            Command::Run(run) => {
                run.take_environment(environment);
                run.check().map_err(|problem| ("run", problem))
            }
            Command::Crossover(crossover) => {
                crossover.take_environment(environment);
                crossover.check().map_err(|problem| ("crossover", problem))
            }
            _ => Ok(()),
        };
        checked.map_err(|(verb, problem)| {
            let mut verb = command.find_subcommand(verb).cloned().unwrap_or(command);
            verb.error(clap::error::ErrorKind::InvalidValue, problem)
        })?;
        Ok(cli)
    }
}
