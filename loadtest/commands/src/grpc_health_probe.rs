//! `grpc_health_probe` (<https://github.com/grpc-ecosystem/grpc-health-probe>): its flags and defaults.

use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::flags::{self, Argument, Flag, HIDDEN, Style, Takes, bad};
use crate::{Refused, is_host_name};

/// A gRPC server, and what is asked of its `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug)]
pub struct GrpcTarget {
    /// Host and port.
    pub address: Authority,
    /// Whose health; empty for the whole server's.
    pub service: String,
    /// With TLS.
    pub is_tls: bool,
    /// Without looking at the server's certificate.
    pub skips_verification: bool,
    /// The name that is asked for, if it is not the address's host.
    pub authority: Option<Authority>,
    /// Headers of each call.
    pub metadata: HeaderMap,
    /// No connection after this time: failed.
    pub connect_timeout: Duration,
    /// No answer after this time: failed.
    pub timeout: Duration,
}

/// One call of a health check.
#[derive(Clone, Debug)]
pub struct HealthProbe {
    /// Where and what.
    pub target: GrpcTarget,
}

impl GrpcTarget {
    pub(crate) fn new(program: &'static str, address: &str) -> Result<GrpcTarget, Refused> {
        let parsed = address.parse().ok().filter(|address: &Authority| {
            !address.host().is_empty() && address.port_u16().is_some() && !address.as_str().contains('@')
        });
        Ok(GrpcTarget {
            address: parsed.ok_or_else(|| bad(program, "the address", address, "HOST:PORT"))?,
            service: String::new(),
            is_tls: false,
            skips_verification: false,
            authority: None,
            metadata: HeaderMap::new(),
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        })
    }

    pub(crate) fn set_authority(
        &mut self,
        program: &'static str,
        flag: &'static str,
        text: &str,
    ) -> Result<(), Refused> {
        // An address instead of a name would be connected to, in place of the one that is meant.
        let authority = Some(text).filter(|text| is_host_name(text)).and_then(|text| text.parse().ok());
        self.authority = Some(authority.ok_or_else(|| bad(program, flag, text, "a host's name"))?);
        Ok(())
    }

    pub(crate) fn add_metadata(
        &mut self,
        program: &'static str,
        flag: &'static str,
        name: &str,
        value: &str,
    ) -> Result<(), Refused> {
        let refused = || bad(program, flag, HIDDEN, "names and values that can be in a header");
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| refused())?;
        self.metadata.append(name, HeaderValue::from_str(value.trim()).map_err(|_| refused())?);
        Ok(())
    }

    /// Host and port.
    #[must_use]
    pub fn destination(&self) -> (String, u16) {
        (self.address.host().to_owned(), self.address.port_u16().unwrap_or_default())
    }
}

const FILE: &str = ": it reads a file of the load tester's image";

const FLAGS: &[Flag] = &[
    Flag(&["addr"], Takes::Value),
    Flag(&["service"], Takes::Value),
    Flag(&["user-agent"], Takes::Value),
    Flag(&["connect-timeout"], Takes::Value),
    Flag(&["rpc-timeout"], Takes::Value),
    Flag(&["rpc-header"], Takes::Value),
    Flag(&["tls"], Takes::Nothing),
    Flag(&["tls-no-verify"], Takes::Nothing),
    Flag(&["tls-server-name"], Takes::Value),
    Flag(&["tls-ca-cert"], Takes::Refused(FILE)),
    Flag(&["tls-client-cert"], Takes::Refused(FILE)),
    Flag(&["tls-client-key"], Takes::Refused(FILE)),
    Flag(&["gzip"], Takes::Refused(": calls are not compressed")),
    Flag(&["v", "verbose"], Takes::Nothing),
];

const PROBE: &str = "grpc_health_probe";

pub(crate) fn parse(words: &[String]) -> Result<HealthProbe, Refused> {
    let arguments = flags::read(PROBE, Style::Go, FLAGS, words)?;
    let address = arguments.iter().rev().find_map(|argument| match argument {
        Argument::Flag("addr", value) => Some(value.as_str()),
        _ => None,
    });
    let address = address.ok_or(Refused::Missing { program: PROBE, what: "there is no -addr" })?;
    let mut target = GrpcTarget::new(PROBE, address)?;
    for argument in &arguments {
        match argument {
            Argument::Word(_) => return Err(bad(PROBE, "the argument", HIDDEN, "flags alone")),
            Argument::Flag("service", value) => target.service.clone_from(value),
            Argument::Flag("user-agent", value) => {
                target.add_metadata(PROBE, "-user-agent", "user-agent", value)?;
            }
            Argument::Flag("connect-timeout", value) => {
                target.connect_timeout = flags::go_duration(PROBE, "-connect-timeout", value)?;
            }
            Argument::Flag("rpc-timeout", value) => {
                target.timeout = flags::go_duration(PROBE, "-rpc-timeout", value)?;
            }
            Argument::Flag("rpc-header", value) => {
                let (name, value) =
                    value.split_once(':').ok_or_else(|| bad(PROBE, "-rpc-header", HIDDEN, "\"NAME: VALUE\""))?;
                target.add_metadata(PROBE, "-rpc-header", name, value)?;
            }
            Argument::Flag("tls", _) => target.is_tls = true,
            Argument::Flag("tls-no-verify", _) => target.skips_verification = true,
            Argument::Flag("tls-server-name", value) => target.set_authority(PROBE, "-tls-server-name", value)?,
            Argument::Flag(..) => {}
        }
    }
    Ok(HealthProbe { target })
}
