//! Where a request comes from: proxies that are trusted are believed, everybody else only for himself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses that begin alike, `10.0.0.0/8`; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// True if the address is one of it. An IPv4 address in the form of IPv6 is that of IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let unused = 32 - u32::from(self.bits);
                network.to_bits().checked_shr(unused) == address.to_bits().checked_shr(unused)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let unused = 128 - u32::from(self.bits);
                network.to_bits().checked_shr(unused) == address.to_bits().checked_shr(unused)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "it must be a network as `10.0.0.0/8`, or an address";
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| expected)?)),
        };
        let address: IpAddr = address.parse().map_err(|_| expected)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        match bits.unwrap_or(longest) {
            bits if bits <= longest => Ok(Self { address, bits }),
            _ => Err(expected),
        }
    }
}

/// The nearest address that is not a trusted proxy's: the peer's, or where that is one, the last of `forwarded` that is none. `forwarded` is
/// `X-Forwarded-For`, to which each proxy adds at the end whom it speaks for.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[Network],
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut nearest = peer;
    for entry in forwarded.flat_map(|header| header.split(',')).rev() {
        if !is_trusted(nearest) {
            break;
        }
        // What a trusted proxy writes can be read; else nothing before it can be believed.
        let Some(address) = address(entry.trim()) else { break };
        nearest = address;
    }
    nearest.to_canonical()
}

/// An address, also with a port, as some proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let in_brackets =
        || text.strip_prefix('[')?.split(']').next()?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    let with_port = || text.split_once(':')?.0.parse::<Ipv4Addr>().ok().map(IpAddr::from);
    text.parse().ok().or_else(in_brackets).or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, forwarded: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "fd00::/8", "192.0.2.7"].map(|text| text.parse().expect("a network"));
        client_address(peer.parse().expect("an address"), forwarded.iter().copied(), &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_for_the_last_hop_before_it() {
        assert_eq!(from("198.51.100.1", &["203.0.113.9"]), "198.51.100.1");
        assert_eq!(from("10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(from("10.1.2.3", &["1.1.1.1, 203.0.113.9, 10.9.9.9"]), "203.0.113.9");
        assert_eq!(from("10.1.2.3", &["1.1.1.1", "203.0.113.9"]), "203.0.113.9");
        assert_eq!(from("::ffff:10.1.2.3", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(from("fd00::1", &["[2001:db8::5]:443"]), "2001:db8::5");
        assert_eq!(from("192.0.2.7", &["not an address"]), "192.0.2.7");
        assert_eq!(from("192.0.2.8", &["203.0.113.9"]), "192.0.2.8");
        assert_eq!(from("10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn a_network_has_an_address_and_as_many_bits_as_that_has() {
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/x", "example.com"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        let everything: Network = "0.0.0.0/0".parse().expect("a network");
        assert!(everything.contains("203.0.113.9".parse().expect("an address")));
    }
}
