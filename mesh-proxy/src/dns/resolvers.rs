//! Pure. The resolvers of a host, as `/etc/resolv.conf` names them.

use std::net::{IpAddr, SocketAddr};

/// As many resolvers are asked, one after the other: what the C library takes from the file, too.
pub const RESOLVERS_MAX: usize = 3;
/// The port of DNS.
pub const PORT: u16 = 53;

/// The resolvers that the text of a `resolv.conf` names, but for those at `own` addresses. What is not understood is passed over,
/// as the C library does.
pub fn parse(text: &str, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let ip: IpAddr = words.next().filter(|key| *key == "nameserver").and(words.next())?.parse().ok()?;
        Some(SocketAddr::new(ip, PORT))
    });
    named.filter(|resolver| !own.contains(resolver)).take(RESOLVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_but_for_ourselves() {
        let text = "# nameserver 9.9.9.9\nsearch example.com\nnameserver 127.0.0.1\n nameserver\t192.0.2.1  # one\n\
                    nameserver ::1\nnameserver fe80::1%eth0\nnameserver\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions ndots:5";
        let read = |own: &[&str]| {
            let own: Vec<SocketAddr> = own.iter().map(|own| own.parse().expect("an address")).collect();
            let texts: Vec<_> = parse(text, &own).iter().map(ToString::to_string).collect();
            texts.join(" ")
        };
        assert_eq!(read(&["127.0.0.1:53", "[::1]:53"]), "192.0.2.1:53 192.0.2.2:53 192.0.2.3:53");
        assert_eq!(read(&["127.0.0.1:15053"]), "127.0.0.1:53 192.0.2.1:53 [::1]:53");
        assert_eq!(parse("", &[]), []);
    }
}
