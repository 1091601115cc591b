//! Where requests may go: the load tester can reach what its callers may not, so some networks are out of bounds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use regex::Regex;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A range of addresses, such as `169.254.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// This is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: expected ADDRESS/PREFIX such as 169.254.0.0/16")]
pub struct NoNetwork(String);

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Network, NoNetwork> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            Some(Network { address, prefix: prefix.parse().ok().filter(|prefix| *prefix <= most)? })
        });
        parsed.ok_or_else(|| NoNetwork(text.to_owned()))
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// A request that may not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Forbidden {
    #[error("{0} is out of bounds: its address is in --forbidden-networks")]
    Network(String),
    #[error("{0} is out of bounds: --target-regexp does not match it")]
    Name(String),
}

/// Where requests may go.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Not to these.
    pub forbidden: Vec<Network>,
    /// Only to what this matches, `HOST:PORT`.
    pub names: Option<Regex>,
}

impl Targets {
    fn permits(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6's clothes is connected to as what it is.
        let address = address.to_canonical();
        !self.forbidden.iter().any(|network| network.contains(address))
    }

    /// Before the name is looked up.
    pub(super) fn check(&self, host: &str, port: u16) -> Result<(), Forbidden> {
        let name = format!("{host}:{port}");
        if self.names.as_ref().is_some_and(|names| !names.is_match(&name)) {
            return Err(Forbidden::Name(name));
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        if literal.is_some_and(|address| !self.permits(address)) {
            return Err(Forbidden::Network(name));
        }
        Ok(())
    }

    /// The same of an address as the client understands it, in which `2130706433` has become `127.0.0.1`.
    pub(super) fn check_url(&self, url: &Url) -> Result<(), Forbidden> {
        self.check(url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
    }

    /// Looks names up, and keeps the addresses that requests may go to.
    pub(super) fn resolver(self: &Arc<Self>) -> Arc<Resolver> {
        Arc::new(Resolver { targets: Arc::clone(self), instead: None })
    }

    /// The same, for a client of one server that is told another name: every name leads to this host and port.
    pub(super) fn resolver_of(self: &Arc<Self>, host: &str, port: u16) -> Arc<Resolver> {
        Arc::new(Resolver { targets: Arc::clone(self), instead: Some((host.to_owned(), port)) })
    }
}

/// A name that leads nowhere.
#[derive(Debug, thiserror::Error)]
#[error("failed to look up the name")]
pub(super) struct Unresolved(#[source] io::Error);

/// Looks names up.
pub(super) struct Resolver {
    targets: Arc<Targets>,
    /// The host and port that every name leads to.
    instead: Option<(String, u16)>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = Arc::clone(&self.targets);
        let (host, port) = match &self.instead {
            Some(instead) => instead.clone(),
            None => (name.as_str().to_owned(), 0),
        };
        Box::pin(async move {
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(Unresolved)?;
            let found: Vec<SocketAddr> = found.collect();
            let was_found = !found.is_empty();
            let permitted: Vec<SocketAddr> = found.into_iter().filter(|found| targets.permits(found.ip())).collect();
            if was_found && permitted.is_empty() {
                return Err(Forbidden::Network(host).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn targets(networks: &[&str], names: Option<&str>) -> Targets {
        Targets {
            forbidden: networks.iter().map(|network| network.parse().unwrap()).collect(),
            names: names.map(|names| Regex::new(names).unwrap()),
        }
    }

    #[test]
    fn networks_are_out_of_bounds_however_they_are_written() {
        let targets = targets(&["127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10"], None);
        let urls = [
            "http://127.0.0.1:8080/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://169.254.169.254/",
            "http://[::ffff:127.0.0.1]/",
            "http://[fe80::1]/",
        ];
        for url in urls {
            assert!(targets.check_url(&url.parse().unwrap()).is_err(), "{url}");
        }
        for url in ["http://10.0.0.1/", "http://podinfo.test/", "http://[fd00::1]/", "http://128.0.0.1/"] {
            assert_eq!(targets.check_url(&url.parse().unwrap()), Ok(()), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_out_of_bounds_is_not_connected_to() {
        let targets = Arc::new(targets(&["127.0.0.0/8", "::1/128"], None));
        let error = targets.resolver().resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert_eq!(error.to_string(), "localhost is out of bounds: its address is in --forbidden-networks");
    }

    #[test]
    fn names_may_be_limited() {
        let targets = targets(&[], Some(r"\.(test|shop):\d+$"));
        assert_eq!(targets.check("podinfo.test", 80), Ok(()));
        assert_eq!(targets.check("podinfo.other", 80), Err(Forbidden::Name("podinfo.other:80".to_owned())));
    }

    #[test]
    fn a_network_has_an_address_and_a_prefix() {
        for text in ["10.0.0.0", "10.0.0.0/33", "a/8", "::/129", ""] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork(text.to_owned())));
        }
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("1.2.3.4".parse().unwrap()));
    }
}
