//! Pure. Whom the programs of a host ask for names, by resolv.conf(5).

use std::net::IpAddr;

/// Servers of a resolv.conf that count; the C library's limit is 3.
pub const RESOLVERS_MAX: usize = 16;

pub(super) fn resolvers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let address = line.trim_start().strip_prefix("nameserver")?;
        let address = address.strip_prefix([' ', '\t'])?.split_whitespace().next()?;
        // A zone says by which interface; to the address it adds nothing.
        address.split('%').next()?.parse().ok()
    };
    let mut servers: Vec<IpAddr> = Vec::new();
    for server in text.lines().filter_map(server) {
        if servers.len() < RESOLVERS_MAX && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_found_once() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver 10.0.0.2\n nameserver\tfe80::1%eth0 # ours\nnameserver 10.0.0.2\nnameservers 9.9.9.9\nnameserver x\n";
        let want: [IpAddr; 2] = ["10.0.0.2".parse().expect("one"), "fe80::1".parse().expect("one")];
        assert_eq!(resolvers(text), want);
        assert_eq!(resolvers(""), Vec::<IpAddr>::new());
    }
}
