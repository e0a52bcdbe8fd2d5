//! Pure. Virtual IPs: the addresses that stand for a service, whichever hosts run it. A service has one of IPv4 and one of
//! IPv6, made of one number, which the registry gives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::shape::record;

/// What those of IPv4 stand in, 240.0.0.0/8: addresses that nobody uses outside.
const V4: u32 = 0xf000_0000;
/// What those of IPv6 stand in, fd6d:6573:6800::/48: of nobody outside, too (RFC 4193).
const V6: u128 = 0xfd6d_6573_6800 << 80;
/// The greatest number. The first and the last address of 240.0.0.0/8 belong to no service.
pub const NUMBER_MAX: u32 = 0x00ff_fffe;

/// The virtual IPs of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualIps {
    number: u32,
}

record! {
    /// What the registry says of a service, as far as proxies read it.
    pub struct ServiceStatus {
        /// Its virtual IPs; none in a mesh with a server of version 0.2.0 or before.
        "virtualIPs" virtual_ips: Vec<IpAddr>,
    }
}

impl VirtualIps {
    /// Those of a number from 1 to [`NUMBER_MAX`].
    pub fn new(number: u32) -> Option<Self> {
        (1..=NUMBER_MAX).contains(&number).then_some(Self { number })
    }

    /// That of IPv4: `240.0.0.7`.
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::from(V4 | self.number)
    }

    /// That of IPv6: `fd6d:6573:6800::7`.
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::from(V6 | u128::from(self.number))
    }

    /// Both.
    pub fn all(self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn they_are_made_of_one_number() {
        let texts = |number| VirtualIps::new(number).map(|ips| ips.all().map(|ip| ip.to_string()));
        assert_eq!(texts(7), Some(["240.0.0.7", "fd6d:6573:6800::7"].map(str::to_owned)));
        let last = ["240.255.255.254", "fd6d:6573:6800::ff:fffe"].map(str::to_owned);
        assert_eq!(texts(NUMBER_MAX), Some(last));
        assert_eq!((texts(0), texts(NUMBER_MAX + 1)), (None, None));
    }

    #[test]
    fn a_status_may_lack_them_and_have_what_is_not_known() {
        let read = |status| crate::object::status::<ServiceStatus>(&status).expect("a status").virtual_ips;
        assert_eq!(read(json!({"conditions": [], "later": 1})), [] as [IpAddr; 0]);
        let ips = VirtualIps::new(7).expect("a number").all();
        assert_eq!(read(json!({"virtualIPs": ips})), ips);
    }
}
