//! `ghz` (<https://ghz.sh>): its flags and defaults, as far as it calls `grpc.health.v1.Health/Check`. Other calls need the
//! schema of their messages and are refused.

use std::time::Duration;

use serde_json::Value;

use crate::flags::{self, Argument, Flag, HIDDEN, Style, Takes, bad, number};
use crate::hey::{Amount, workers};
use crate::{GrpcTarget, Refused, bounded_rate};

/// Many calls of a health check.
#[derive(Clone, Debug)]
pub struct GrpcLoad {
    /// Where and what.
    pub target: GrpcTarget,
    /// Calls under way at once, where nothing else bounds them.
    pub workers: u32,
    /// Calls per second of all workers together; without it each worker makes its next call when the last was answered.
    pub calls_per_second: Option<f64>,
    /// How much.
    pub amount: Amount,
    /// The longest that [`Amount::Requests`] may take.
    pub longest: Option<Duration>,
}

impl GrpcLoad {
    pub(crate) fn summary(&self) -> String {
        let rate = match self.calls_per_second {
            Some(rate) => format!("{rate} calls per second"),
            None => format!("{} at a time", self.workers),
        };
        format!("ghz grpc.health.v1.Health/Check {}, {rate}", self.target.address)
    }
}

const ONLY_HEALTH: &str = ": only grpc.health.v1.Health/Check is called";
const FILE: &str = ": it reads a file of the load tester's image";

const FLAGS: &[Flag] = &[
    Flag(&["insecure"], Takes::Nothing),
    Flag(&["skipTLS"], Takes::Nothing),
    Flag(&["proto"], Takes::Value),
    Flag(&["protoset"], Takes::Refused(ONLY_HEALTH)),
    Flag(&["import-paths", "i"], Takes::Value),
    Flag(&["call"], Takes::Value),
    Flag(&["concurrency", "c"], Takes::Value),
    Flag(&["total", "n"], Takes::Value),
    // Up to 0.40 the short name was -q, and Flagger's guide has it.
    Flag(&["rps", "r", "q"], Takes::Value),
    Flag(&["timeout", "t"], Takes::Value),
    Flag(&["duration", "z"], Takes::Value),
    Flag(&["max-duration", "x"], Takes::Value),
    Flag(&["data", "d"], Takes::Value),
    Flag(&["data-file", "D"], Takes::Refused(FILE)),
    Flag(&["binary", "b"], Takes::Refused(ONLY_HEALTH)),
    Flag(&["binary-file", "B"], Takes::Refused(FILE)),
    Flag(&["metadata", "m"], Takes::Value),
    Flag(&["metadata-file", "M"], Takes::Refused(FILE)),
    Flag(&["authority"], Takes::Value),
    Flag(&["cname"], Takes::Value),
    Flag(&["cacert"], Takes::Refused(FILE)),
    Flag(&["cert"], Takes::Refused(FILE)),
    Flag(&["key"], Takes::Refused(FILE)),
    Flag(&["config"], Takes::Refused(FILE)),
    Flag(&["connect-timeout"], Takes::Value),
    Flag(&["connections"], Takes::Value),
    Flag(&["keepalive"], Takes::Value),
    Flag(&["async"], Takes::Nothing),
    Flag(&["name"], Takes::Value),
    Flag(&["tags"], Takes::Value),
    Flag(&["cpus"], Takes::Value),
    Flag(&["format", "O"], Takes::Value),
    Flag(&["duration-stop"], Takes::Value),
    Flag(&["count-errors"], Takes::Nothing),
];

const GHZ: &str = "ghz";

pub(crate) fn parse(words: &[String]) -> Result<GrpcLoad, Refused> {
    let arguments = flags::read(GHZ, Style::Go, FLAGS, words)?;
    let address = flags::only_word(GHZ, &arguments)?;
    let address = address.ok_or(Refused::Missing { program: GHZ, what: "there is no HOST:PORT" })?;
    let mut target = GrpcTarget { is_tls: true, ..GrpcTarget::new(GHZ, address)? };
    (target.connect_timeout, target.timeout) = (Duration::from_secs(10), Duration::from_secs(20));
    let amount = Amount::Requests(200);
    let mut load = GrpcLoad { target, workers: 50, calls_per_second: None, amount, longest: None };
    for argument in &arguments {
        let Argument::Flag(name, value) = argument else { continue };
        set(&mut load, name, value)?;
    }
    bounded_rate(GHZ, load.calls_per_second)?;
    Ok(load)
}

fn set(load: &mut GrpcLoad, flag: &str, value: &str) -> Result<(), Refused> {
    match flag {
        "insecure" => load.target.is_tls = false,
        "skipTLS" => load.target.skips_verification = true,
        "proto" if !value.ends_with("health.proto") => {
            return Err(bad(GHZ, "--proto", value, "health.proto: only grpc.health.v1.Health/Check is called"));
        }
        "call" if !matches!(value, "grpc.health.v1.Health/Check" | "grpc.health.v1.Health.Check") => {
            return Err(bad(GHZ, "--call", value, "grpc.health.v1.Health/Check, the only one that is called"));
        }
        "concurrency" => load.workers = workers(GHZ, "-c", value)?,
        "total" if matches!(load.amount, Amount::Requests(_)) => {
            load.amount = Amount::Requests(number(GHZ, "-n", value, 1..=u64::MAX, "a number above 0")?);
        }
        "duration" => load.amount = Amount::Time(flags::go_duration(GHZ, "-z", value)?),
        "max-duration" => load.longest = Some(flags::go_duration(GHZ, "-x", value)?),
        "rps" => load.calls_per_second = flags::rate(GHZ, "--rps", value)?,
        "timeout" => load.target.timeout = flags::go_duration(GHZ, "-t", value)?,
        "connect-timeout" => load.target.connect_timeout = flags::go_duration(GHZ, "--connect-timeout", value)?,
        "authority" => load.target.set_authority(GHZ, "--authority", value)?,
        "cname" => load.target.set_authority(GHZ, "--cname", value)?,
        "data" => load.target.service = service(value)?,
        "metadata" => {
            let refused = || bad(GHZ, "-m", HIDDEN, "a JSON object of texts");
            let metadata: Value = serde_json::from_str(value).map_err(|_| refused())?;
            for (name, value) in metadata.as_object().ok_or_else(refused)? {
                load.target.add_metadata(GHZ, "-m", name, value.as_str().ok_or_else(refused)?)?;
            }
        }
        // What they say is so anyway, or is about a report that nobody reads.
        _ => {}
    }
    Ok(())
}

/// The service of `{"service": "NAME"}`.
fn service(text: &str) -> Result<String, Refused> {
    let refused = || bad(GHZ, "-d", HIDDEN, "{} or {\"service\": \"NAME\"}");
    let data: Value = serde_json::from_str(text).map_err(|_| refused())?;
    let data = data.as_object().ok_or_else(refused)?;
    match (data.len(), data.get("service")) {
        (0, None) => Ok(String::new()),
        (1, Some(Value::String(service))) => Ok(service.clone()),
        _ => Err(refused()),
    }
}
