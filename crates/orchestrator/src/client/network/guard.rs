//! Which addresses a request that somebody else chose may go to: only public unicast ones. The lists are those of the
//! IANA special-purpose registries, read strictly: what is not clearly public is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is refused; `None` when it is a public one.
#[must_use]
pub fn refused(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "it is an unspecified address",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "it is a private address",
        [100, 64..=127, ..] => "it is an address of a carrier's own network",
        [127, ..] => "it is a loopback address",
        [169, 254, ..] => "it is a link-local address",
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            "it is an address reserved for protocols, tests or documentation"
        }
        [224..=239, ..] => "it is a multicast address",
        [240..=255, ..] => "it is a reserved or broadcast address",
        _ => return None,
    })
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => "it is an unspecified address",
        [0, 0, 0, 0, 0, 0, 0, 1] => "it is a loopback address",
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, ..] => {
            "it is an IPv4 address inside an IPv6 one"
        }
        [0xfc00..=0xfdff, ..] => "it is a private address",
        [0xfe80..=0xfebf, ..] => "it is a link-local address",
        [0xfec0..=0xfeff, ..] => "it is a site-local address",
        [0xff00..=0xffff, ..] => "it is a multicast address",
        [0x2002, ..] | [0x2001, 0, ..] => "it is an address of a tunnel to an IPv4 one",
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => {
            "it is an address reserved for protocols, tests or documentation"
        }
        [0x2000..=0x3fff, ..] => return None,
        _ => "it is not a public address",
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_class_that_is_not_public_is_refused() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(refused(text.parse().unwrap()).is_some(), "{text}");
        }
    }

    #[test]
    fn public_addresses_just_beside_the_refused_ranges_are_let_through() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.0.0.1",
            "128.0.0.1",
            "169.253.0.1",
            "169.255.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2600::1",
            "2a00::1",
        ] {
            assert_eq!(refused(text.parse().unwrap()), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// An independent reading of the standard library agrees wherever it has an opinion.
        #[test]
        fn whatever_the_standard_library_calls_special_is_refused(bits: u32, low: u8) {
            for bits in [bits, u32::from(low) << 24 | bits >> 8] {
                let address = Ipv4Addr::from_bits(bits);
                let special = address.is_loopback() || address.is_private() || address.is_link_local()
                    || address.is_multicast() || address.is_unspecified() || address.is_broadcast()
                    || address.is_documentation();
                prop_assert!(!special || refused(address.into()).is_some());
                prop_assert!(refused(address.to_ipv6_mapped().into()).is_some());
            }
        }
    }
}
