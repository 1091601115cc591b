//! `wrk` (<https://github.com/wg/wrk>): its flags and defaults.

use std::time::Duration;

use crate::flags::{self, Argument, Flag, Style, Takes, bad};
use crate::hey::{Amount, HttpLoad, workers};
use crate::{Refused, Request};

const FLAGS: &[Flag] = &[
    Flag(&["c", "connections"], Takes::Value),
    Flag(&["d", "duration"], Takes::Value),
    Flag(&["t", "threads"], Takes::Value),
    Flag(&["s", "script"], Takes::Refused(": Lua scripts are not run")),
    Flag(&["H", "header"], Takes::Value),
    Flag(&["L", "latency"], Takes::Nothing),
    Flag(&["T", "timeout"], Takes::Value),
    Flag(&["R", "rate"], Takes::Refused(": it is wrk2's; use hey -q")),
];

const WRK: &str = "wrk";

pub(crate) fn parse(words: &[String]) -> Result<HttpLoad, Refused> {
    let arguments = flags::read(WRK, Style::Getopt, FLAGS, words)?;
    let url = flags::only_word(WRK, &arguments)?;
    let mut load = HttpLoad {
        program: WRK,
        request: Request::get(WRK, url)?,
        workers: 10,
        rate_per_worker: None,
        amount: Amount::Time(Duration::from_secs(10)),
        timeout: Some(Duration::from_secs(2)),
        is_http2: false,
        keeps_alive: true,
        follows_redirects: false,
    };
    for argument in &arguments {
        let Argument::Flag(name, value) = argument else { continue };
        match *name {
            "c" => load.workers = workers(WRK, "-c", value)?,
            "d" => load.amount = Amount::Time(duration("-d", value)?),
            "T" => load.timeout = Some(duration("--timeout", value)?),
            "H" => load.request.add_header(WRK, "-H", value)?,
            // Threads are up to the runtime, and the report is not read.
            _ => {}
        }
    }
    Ok(load)
}

/// A whole number of seconds, or with one of `s`, `m` and `h`.
fn duration(flag: &'static str, text: &str) -> Result<Duration, Refused> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 's' | 'S')) => (&text[..at], 1),
        Some((at, 'm' | 'M')) => (&text[..at], 60),
        Some((at, 'h' | 'H')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| bad(WRK, flag, text, "a duration such as 30s or 1m"))
}
