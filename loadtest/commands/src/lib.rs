//! What webhooks of canaries have a load tester do: `hey`, `wrk`, `ghz`, `grpc_health_probe` and `curl`, the latter with
//! `| grep WORD`, as their authors' command lines have it.
//!
//! The grammar is closed: a text either is understood entirely, or it is refused with what is wrong with it. Nothing is
//! run here, and nothing of it ever needs a shell.

mod curl;
mod flags;
mod ghz;
mod grep;
mod grpc_health_probe;
mod hey;
mod request;
#[cfg(test)]
mod tests;
mod words;
mod wrk;

use std::time::Duration;

pub use curl::{Curl, HttpVersion, WritePart};
pub use ghz::GrpcLoad;
pub use grep::Grep;
pub use grpc_health_probe::{GrpcTarget, HealthProbe};
pub use hey::{Amount, HttpLoad};
pub use request::{Request, is_host_name};

/// A command line that was understood.
#[derive(Clone, Debug)]
pub struct Task {
    /// What is run.
    pub command: Command,
    /// What its output goes through, in order. The last one's end is that of the whole, as in a shell.
    pub filters: Vec<Grep>,
    /// Its output goes to `/dev/null`.
    pub is_silent: bool,
}

/// One of the programs that are understood.
#[derive(Clone, Debug)]
pub enum Command {
    /// `hey` or `wrk`: many HTTP requests.
    HttpLoad(Box<HttpLoad>),
    /// `curl`: one HTTP request.
    Curl(Box<Curl>),
    /// `ghz`: many calls of a gRPC service's health check.
    GrpcLoad(GrpcLoad),
    /// `grpc_health_probe`: one of them.
    HealthProbe(HealthProbe),
}

/// Programs that are understood.
pub const PROGRAMS: [&str; 5] = ["hey", "wrk", "ghz", "grpc_health_probe", "curl"];

/// Why a text is not understood. None of these shows a header, a body, a query or a password, nor what may be one because it
/// stands at a wrong place: values are shown as far as they look like a number, a duration or a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is nothing.
    #[error("the command is empty")]
    Empty,
    /// Something that only a shell does.
    #[error("{0} needs a shell")]
    Shell(String),
    /// A quote without an end.
    #[error("the quote {0} is not closed")]
    Quote(char),
    /// Another program.
    #[error(
        "{0:?} is none of the programs that are understood (hey, wrk, ghz, grpc_health_probe, curl, each with | grep)"
    )]
    Program(String),
    /// A flag that the program does not have, or that is not understood.
    #[error("{program}: the flag {flag} is not understood{why}")]
    Flag {
        /// Of which program.
        program: &'static str,
        /// The flag as it was given.
        flag: String,
        /// Empty, or what it is about it, with a colon before it.
        why: &'static str,
    },
    /// A flag whose value is missing.
    #[error("{program}: the flag {flag} needs a value")]
    NoValue {
        /// Of which program.
        program: &'static str,
        /// The flag.
        flag: &'static str,
    },
    /// A value that cannot be.
    #[error("{program}: {flag} {value}: expected {expected}")]
    Value {
        /// Of which program.
        program: &'static str,
        /// The flag, or what the value is of.
        flag: &'static str,
        /// The value, or `(not shown)` where it may be secret.
        value: String,
        /// What can be.
        expected: &'static str,
    },
    /// A program without what it needs.
    #[error("{program}: {what}")]
    Missing {
        /// Of which program.
        program: &'static str,
        /// What is missing.
        what: &'static str,
    },
}

impl Task {
    /// Understands a command line, or says why not.
    ///
    /// # Errors
    /// If it is not understood entirely.
    pub fn parse(text: &str) -> Result<Task, Refused> {
        let words::Line { mut commands, is_silent } = words::split(text)?;
        let filters = commands.split_off(commands.len().min(1));
        let words = commands.pop().ok_or(Refused::Empty)?;
        let (program, words) = words.split_first().ok_or(Refused::Empty)?;
        let command = match program.rsplit('/').next().unwrap_or_default() {
            "hey" => Command::HttpLoad(Box::new(hey::parse(words)?)),
            "wrk" => Command::HttpLoad(Box::new(wrk::parse(words)?)),
            "curl" => Command::Curl(Box::new(curl::parse(words)?)),
            "ghz" => Command::GrpcLoad(ghz::parse(words)?),
            "grpc_health_probe" => Command::HealthProbe(grpc_health_probe::parse(words)?),
            _ => return Err(flags::no_program(program)),
        };
        let filters = filters.iter().map(|words| grep::parse(words)).collect::<Result<_, _>>()?;
        Ok(Task { command, filters, is_silent })
    }

    /// What it does, in one line without anything that may be secret: for logs.
    #[must_use]
    pub fn summary(&self) -> String {
        match &self.command {
            Command::HttpLoad(load) => load.summary(),
            Command::Curl(curl) => format!("curl {}", curl.request.summary()),
            Command::GrpcLoad(load) => load.summary(),
            Command::HealthProbe(probe) => format!("grpc_health_probe {}", probe.target.address),
        }
    }

    /// Where it connects to: a host and a port.
    #[must_use]
    pub fn destination(&self) -> (String, u16) {
        match &self.command {
            Command::HttpLoad(load) => load.request.destination(),
            Command::Curl(curl) => curl.request.destination(),
            Command::GrpcLoad(load) => load.target.destination(),
            Command::HealthProbe(probe) => probe.target.destination(),
        }
    }
}

/// Workers of one command at most. Each may have a connection, and a process may commonly have some thousand files open.
pub const MOST_WORKERS: u32 = 1_000;
/// Requests per second of one command at most: what one core can send and read with room to spare.
pub const MOST_PER_SECOND: f64 = 20_000.0;

/// The bound of a command whose workers or rate are beyond what is served.
fn bounded_rate(program: &'static str, rate: Option<f64>) -> Result<(), Refused> {
    match rate {
        Some(rate) if rate > MOST_PER_SECOND => Err(Refused::Value {
            program,
            flag: "the rate",
            value: format!("{rate} requests per second"),
            expected: "at most 20000",
        }),
        _ => Ok(()),
    }
}

/// A duration that is given in seconds, with a fraction.
fn seconds(program: &'static str, flag: &'static str, text: &str) -> Result<Duration, Refused> {
    let parsed = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    parsed.ok_or_else(|| flags::bad(program, flag, text, "seconds"))
}
