//! Addresses as people write them: `host:port` or `[v6]:port`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::exit;
use crate::problem::Problem;

/// A host's name or number, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// `text` with a port, or without one, which is then `port`.
    pub(crate) fn with_default_port(text: &str, port: u16) -> Result<Self, String> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self { host: text.into(), port });
        }
        if let Some(v6) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return Self::new(v6, port, text);
        }
        match text.contains(':') {
            true => text.parse(),
            false => Self::new(text, port, text),
        }
    }

    fn new(host: &str, port: u16, text: &str) -> Result<Self, String> {
        let usual = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if host.is_empty() || !host.chars().all(usual) {
            return Err(format!("`{text}` names no host; {FORM}"));
        }
        Ok(Self { host: host.into(), port })
    }

    /// The first number of the host.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, Problem> {
        self.resolve_all().map(|all| all[0])
    }

    /// All numbers of the host, at least one.
    fn resolve_all(&self) -> Result<Vec<SocketAddr>, Problem> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let unknown = |reason: String| Problem::UnknownHost { host: self.host.clone(), reason };
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let mut all: Vec<_> = found.map_err(|error| unknown(error.to_string()))?.collect();
        all.dedup();
        if all.is_empty() { Err(unknown("it has no address".into())) } else { Ok(all) }
    }

    /// What `open` makes of the first number of the host where somebody answers; the error of the first
    /// number if nobody does. A name may stand for both families, and servers listen on one.
    pub(crate) fn reach<T>(
        &self,
        open: impl FnMut(SocketAddr) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        first_that_answers(&self.resolve_all()?, open)
    }
}

fn first_that_answers<T>(
    addresses: &[SocketAddr],
    mut open: impl FnMut(SocketAddr) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut outcomes = addresses.iter().map(|address| open(*address));
    let first = outcomes.next().unwrap_or_else(|| Err(anyhow::anyhow!("no address")));
    match first {
        Err(error) if exit::code(&error) == exit::UNREACHABLE => {
            let next = outcomes.find(|outcome| match outcome {
                Ok(_) => true,
                Err(other) => exit::code(other) != exit::UNREACHABLE,
            });
            next.unwrap_or(Err(error))
        }
        other => other,
    }
}

const FORM: &str = "write host:port or [v6]:port, for example 192.0.2.7:4792 or [::1]:4792";

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                rest.split_once("]:").ok_or_else(|| format!("`{text}` has no port; {FORM}"))?
            }
            None => text.rsplit_once(':').ok_or_else(|| format!("`{text}` has no port; {FORM}"))?,
        };
        if host.contains(':') && !text.starts_with('[') {
            return Err(format!("`{text}` needs brackets around its IPv6 number; {FORM}"));
        }
        let port = port
            .parse()
            .map_err(|_| format!("`{port}` is no port (0 to 65535) in `{text}`; {FORM}"))?;
        Self::new(host, port, text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("host.example:0", "host.example:0"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for (text, wrong) in [
            ("127.0.0.1", "has no port"),
            ("::1:80", "needs brackets"),
            ("[::1]", "has no port"),
            ("a:b", "is no port"),
            ("a:70000", "is no port"),
            (":80", "names no host"),
            ("a b:80", "names no host"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }

    #[test]
    fn a_port_by_default() {
        for (text, shown) in [
            ("127.0.0.1", "127.0.0.1:18515"),
            ("127.0.0.1:5", "127.0.0.1:5"),
            ("::1", "[::1]:18515"),
            ("[::1]", "[::1]:18515"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(Address::with_default_port(text, 18515).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn the_first_number_where_somebody_answers_counts() {
        let all = ["[::1]:7", "127.0.0.1:7", "127.0.0.2:7"].map(|text| text.parse().unwrap());
        let nobody =
            |at: SocketAddr| Problem::UnknownHost { host: at.to_string(), reason: "-".into() };
        let answers = |port: usize| {
            let open = |at| if at == all[port] { Ok(at) } else { Err(nobody(at).into()) };
            first_that_answers(&all, open)
        };
        for (number, address) in all.iter().enumerate() {
            assert_eq!(answers(number).unwrap(), *address);
        }
        let error = first_that_answers::<()>(&all, |at| Err(nobody(at).into())).unwrap_err();
        assert!(error.to_string().contains("[::1]:7"), "{error}");
        // What is no silence is no reason to ask somebody else.
        let broken = |at: SocketAddr| Err::<(), _>(Problem::Usage(at.to_string()).into());
        assert!(first_that_answers(&all, broken).unwrap_err().to_string().contains("[::1]:7"));
    }

    #[test]
    fn numbers_resolve_to_themselves() {
        let address: Address = "[::1]:7".parse().unwrap();
        assert_eq!(address.resolve().unwrap(), "[::1]:7".parse().unwrap());
    }
}
