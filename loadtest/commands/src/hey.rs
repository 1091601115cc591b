//! `hey` (<https://github.com/rakyll/hey>): its flags and defaults.

use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};

use crate::flags::{self, Argument, Flag, Style, Takes, number};
use crate::{MOST_WORKERS, Refused, Request, bounded_rate};

/// Many HTTP requests.
#[derive(Clone, Debug)]
pub struct HttpLoad {
    /// `hey` or `wrk`.
    pub program: &'static str,
    /// What is sent.
    pub request: Request,
    /// Requests under way at once, where nothing else bounds them.
    pub workers: u32,
    /// Requests per second and worker; without it each worker sends its next one when the last was answered.
    pub rate_per_worker: Option<f64>,
    /// How much.
    pub amount: Amount,
    /// A request without an answer after this time has failed; none waits as long as the command runs.
    pub timeout: Option<Duration>,
    /// HTTP/2 where the server offers it over TLS.
    pub is_http2: bool,
    /// Connections are used again.
    pub keeps_alive: bool,
    /// Redirections are followed.
    pub follows_redirects: bool,
}

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many requests.
    Requests(u64),
    /// For this time.
    Time(Duration),
}

impl HttpLoad {
    /// Requests per second of all workers, if they are bounded.
    #[must_use]
    pub fn requests_per_second(&self) -> Option<f64> {
        self.rate_per_worker.map(|rate| rate * f64::from(self.workers))
    }

    pub(crate) fn summary(&self) -> String {
        let amount = match self.amount {
            Amount::Requests(number) => format!("{number} requests"),
            Amount::Time(time) => format!("{time:?}"),
        };
        let rate = match self.requests_per_second() {
            Some(rate) => format!("{rate} requests per second"),
            None => format!("{} at a time", self.workers),
        };
        format!("{} {}, {amount}, {rate}", self.program, self.request.summary())
    }
}

const FILE: &str = ": it reads a file of the load tester's image";

const FLAGS: &[Flag] = &[
    Flag(&["n"], Takes::Value),
    Flag(&["c"], Takes::Value),
    Flag(&["q"], Takes::Value),
    Flag(&["z"], Takes::Value),
    Flag(&["o"], Takes::Value),
    Flag(&["m"], Takes::Value),
    Flag(&["H"], Takes::Value),
    Flag(&["t"], Takes::Value),
    Flag(&["A"], Takes::Value),
    Flag(&["d"], Takes::Value),
    Flag(&["D"], Takes::Refused(FILE)),
    Flag(&["T"], Takes::Value),
    Flag(&["U"], Takes::Value),
    Flag(&["a"], Takes::Value),
    Flag(&["x"], Takes::Refused(": proxies are not served")),
    Flag(&["h2"], Takes::Nothing),
    Flag(&["host"], Takes::Value),
    Flag(&["disable-compression"], Takes::Nothing),
    Flag(&["disable-keepalive"], Takes::Nothing),
    Flag(&["disable-redirects"], Takes::Nothing),
    Flag(&["cpus"], Takes::Value),
];

const HEY: &str = "hey";

pub(crate) fn parse(words: &[String]) -> Result<HttpLoad, Refused> {
    let arguments = flags::read(HEY, Style::Go, FLAGS, words)?;
    let url = crate::flags::only_word(HEY, &arguments)?;
    let mut load = HttpLoad {
        program: HEY,
        request: Request::get(HEY, url)?,
        workers: 50,
        rate_per_worker: None,
        amount: Amount::Requests(200),
        timeout: Some(Duration::from_secs(20)),
        is_http2: false,
        keeps_alive: true,
        follows_redirects: true,
    };
    let mut compresses = true;
    for argument in &arguments {
        let Argument::Flag(name, value) = argument else { continue };
        match *name {
            "n" if matches!(load.amount, Amount::Requests(_)) => {
                load.amount = Amount::Requests(number(HEY, "-n", value, 1..=u64::MAX, "a number above 0")?);
            }
            "z" => load.amount = Amount::Time(flags::go_duration(HEY, "-z", value)?),
            "c" => load.workers = workers(HEY, "-c", value)?,
            "q" => load.rate_per_worker = flags::rate(HEY, "-q", value)?,
            "t" => load.timeout = Some(crate::seconds(HEY, "-t", value)?).filter(|timeout| !timeout.is_zero()),
            "m" => load.request.set_method(HEY, "-m", &value.to_ascii_uppercase())?,
            "H" => load.request.add_header(HEY, "-H", value)?,
            "A" => load.request.set_header(HEY, "-A", ACCEPT, value)?,
            "T" => load.request.set_header(HEY, "-T", http::header::CONTENT_TYPE, value)?,
            "U" => load.request.set_header(HEY, "-U", USER_AGENT, value)?,
            "d" => load.request.body = value.clone().into_bytes(),
            "a" => load.request.set_credentials(value),
            "host" => load.request.set_host(HEY, "-host", value)?,
            "h2" => load.is_http2 = true,
            "disable-keepalive" => load.keeps_alive = false,
            "disable-redirects" => load.follows_redirects = false,
            "disable-compression" => compresses = false,
            // The form of a report that nobody reads, and the number of CPUs.
            _ => {}
        }
    }
    if compresses {
        load.request.set_header(HEY, "-disable-compression", ACCEPT_ENCODING, "gzip")?;
    }
    load.request.default_content_type("text/html");
    bounded_rate(HEY, load.requests_per_second())?;
    Ok(load)
}

/// A number of workers.
pub(crate) fn workers(program: &'static str, flag: &'static str, text: &str) -> Result<u32, Refused> {
    let workers = number(program, flag, text, 1..=u64::from(MOST_WORKERS), "a number from 1 to 1000")?;
    Ok(u32::try_from(workers).unwrap_or(MOST_WORKERS))
}
