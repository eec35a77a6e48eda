//! Listeners: which addresses are opened, and what clients are told.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::str::FromStr;

use super::error::ConfigError;
use super::live::Live;
use super::spec::split_list;

/// A host name or address, and a port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// Name or address, an IPv6 address without brackets; empty for every interface.
    pub host: String,
    /// Port; 0 for a free one.
    pub port: u16,
}

impl HostPort {
    /// True where every interface is meant.
    pub fn is_wildcard(&self) -> bool {
        self.host.is_empty() || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("`{text}` has no port"))?;
        let port = port
            .parse()
            .map_err(|_| format!("`{port}` is not a port (0 to 65535)"))?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => inner,
            None if host.contains(':') => {
                return Err(format!("`{host}` needs brackets if it is an IPv6 address"));
            }
            None => host,
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if !host.chars().all(legal) {
            return Err(format!("`{host}` is not a host name or address"));
        }
        Ok(HostPort {
            host: host.to_owned(),
            port,
        })
    }
}

/// One listener that is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerConfig {
    /// Its name, in upper case.
    pub name: String,
    /// Where to listen.
    pub bind: HostPort,
    advertised: Option<HostPort>,
}

impl ListenerConfig {
    /// Addresses to try to bind, in this order, until one can be.
    pub fn bind_candidates(&self) -> Vec<HostPort> {
        if self.bind.host.is_empty() {
            let any = |host: &str| HostPort {
                host: host.to_owned(),
                port: self.bind.port,
            };
            vec![any("::"), any("0.0.0.0")]
        } else {
            vec![self.bind.clone()]
        }
    }

    /// What clients of this listener are told, once it is bound to this port.
    pub fn advertised(&self, bound_port: u16) -> HostPort {
        match &self.advertised {
            Some(given) if given.port != 0 => given.clone(),
            Some(given) => HostPort {
                host: given.host.clone(),
                port: bound_port,
            },
            None if self.bind.is_wildcard() => HostPort {
                host: local_host_name(bound_port),
                port: bound_port,
            },
            None => HostPort {
                host: self.bind.host.clone(),
                port: bound_port,
            },
        }
    }
}

/// The listeners that are opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenersConfig {
    /// In the order of `listeners`; never empty.
    pub listeners: Vec<ListenerConfig>,
    /// Name of the listener between brokers; one of them.
    pub inter_broker: String,
}

impl ListenersConfig {
    /// Reads and checks the options about listeners.
    pub fn new(live: &Live) -> Result<ListenersConfig, ConfigError> {
        let text = |name: &str| live.value(name).unwrap_or_default();
        let given = |name: &str| live.value(name).filter(|value| !value.is_empty());
        let invalid = |name: &'static str| move |reason: String| live.invalid(name, reason);
        let all = endpoints(&text("listeners"))
            .and_then(distinct)
            .map_err(invalid("listeners"))?;
        let advertised = endpoints(&text("advertised.listeners")).map_err(invalid("advertised.listeners"))?;
        let controller: Vec<String> = split_list(&text("controller.listener.names"))
            .into_iter()
            .map(str::to_uppercase)
            .collect();
        let protocols = protocols(&text("listener.security.protocol.map"))
            .map_err(invalid("listener.security.protocol.map"))?;
        check_advertised(&advertised, &all, &controller).map_err(invalid("advertised.listeners"))?;
        let mut listeners = Vec::new();
        for (name, bind) in all.into_iter().filter(|(name, _)| !controller.contains(name)) {
            match protocols.get(&name).map(String::as_str) {
                Some("PLAINTEXT") => {}
                Some(protocol) => {
                    return Err(live.invalid(
                        "listeners",
                        format!(
                            "listener {name} uses {protocol}, which is not there yet: only PLAINTEXT listeners \
                             can be opened"
                        ),
                    ));
                }
                None => {
                    let reason = format!("it has no protocol for listener {name}");
                    return Err(live.invalid("listener.security.protocol.map", reason));
                }
            }
            let told = advertised.iter().find(|(known, _)| *known == name);
            listeners.push(ListenerConfig {
                bind,
                advertised: told.map(|(_, address)| address.clone()),
                name,
            });
        }
        let Some(first) = listeners.first() else {
            return Err(live.invalid("listeners", "no listener is left to open for clients"));
        };
        let opened = |name: &String| listeners.iter().any(|listener| listener.name == *name);
        let inter_broker = match given("inter.broker.listener.name").map(|name| name.to_uppercase()) {
            Some(name) if opened(&name) => name,
            Some(name) => {
                let reason = format!("`listeners` has no listener named {name} that is opened");
                return Err(live.invalid("inter.broker.listener.name", reason));
            }
            None => Some(text("security.inter.broker.protocol"))
                .filter(opened)
                .unwrap_or_else(|| first.name.clone()),
        };
        Ok(ListenersConfig {
            listeners,
            inter_broker,
        })
    }
}

/// Clients must be able to connect to what they are told. Controller listeners are no client's business.
fn check_advertised(
    advertised: &[(String, HostPort)],
    all: &[(String, HostPort)],
    controller: &[String],
) -> Result<(), String> {
    for (at, (name, address)) in advertised.iter().enumerate() {
        if controller.contains(name) {
            continue;
        }
        if !all.iter().any(|(known, _)| known == name) {
            return Err(format!("`listeners` has no listener named {name}"));
        }
        if advertised[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(format!("listener {name} stands in it twice"));
        }
        if address.is_wildcard() {
            return Err(format!(
                "clients cannot connect to {address}: give a host name or address for {name}"
            ));
        }
    }
    Ok(())
}

/// `NAME://host:port`, comma separated. Names come in upper case.
fn endpoints(list: &str) -> Result<Vec<(String, HostPort)>, String> {
    split_list(list)
        .into_iter()
        .map(|item| {
            let (name, address) = item
                .split_once("://")
                .ok_or_else(|| format!("`{item}` is not of the form NAME://host:port"))?;
            if name.is_empty() {
                return Err(format!("`{item}` has no listener name"));
            }
            let address = address
                .parse()
                .map_err(|reason: String| format!("`{item}`: {reason}"))?;
            Ok((name.to_uppercase(), address))
        })
        .collect()
}

/// Refuses a name that stands twice, and a port that stands twice unless once for IPv4 and once for IPv6.
fn distinct(endpoints: Vec<(String, HostPort)>) -> Result<Vec<(String, HostPort)>, String> {
    let family = |address: &HostPort| address.host.parse().ok().map(|ip: IpAddr| ip.is_ipv4());
    for (at, (name, address)) in endpoints.iter().enumerate() {
        for (other_name, other) in &endpoints[..at] {
            if other_name == name {
                return Err(format!("listener {name} stands in it twice"));
            }
            let two_families = matches!((family(address), family(other)), (Some(a), Some(b)) if a != b);
            if address.port != 0 && address.port == other.port && !two_families {
                return Err(format!(
                    "listeners {other_name} and {name} have the same port {}",
                    address.port
                ));
            }
        }
    }
    Ok(endpoints)
}

/// Listener name → security protocol.
fn protocols(map: &str) -> Result<BTreeMap<String, String>, String> {
    const KNOWN: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
    let mut protocols = BTreeMap::new();
    for item in split_list(map) {
        let (name, protocol) = item
            .rsplit_once(':')
            .ok_or_else(|| format!("`{item}` is not of the form NAME:PROTOCOL"))?;
        let (name, protocol) = (name.trim().to_uppercase(), protocol.trim().to_uppercase());
        if !KNOWN.contains(&protocol.as_str()) {
            return Err(format!("`{protocol}` is not one of {}", KNOWN.join(", ")));
        }
        if protocols.insert(name.clone(), protocol).is_some() {
            return Err(format!("listener {name} stands in it twice"));
        }
    }
    Ok(protocols)
}

/// This machine's name if it can be looked up, else `localhost`.
fn local_host_name(port: u16) -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    match name {
        Some(name)
            if (name.as_str(), port)
                .to_socket_addrs()
                .is_ok_and(|mut found| found.next().is_some()) =>
        {
            name
        }
        _ => "localhost".to_owned(),
    }
}
