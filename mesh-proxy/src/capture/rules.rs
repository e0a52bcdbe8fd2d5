//! Pure. The rules of a host's capture, as nftables reads them, and the routes beside them: one table of our own, which is
//! replaced whole. It names no other table, and touches no packet that is not for the mesh.

use std::{
    collections::BTreeSet,
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::resolved::DropIn;

/// The one table that is ours.
pub const TABLE: &str = "inet mesh";
/// Marks our routes among those of the host (`rtm_protocol`; 219 is nobody's in iproute2's list).
pub(super) const ROUTE_PROTOCOL: &str = "219";
/// Virtual IPs, by family.
pub(super) const VIRTUAL: [(Family, &str); 2] =
    [(Family::V4, "240.0.0.0/8"), (Family::V6, "fd6d:6573:6800::/48")];

/// Before others that turn packets aside, such as Docker's, for which every address of a local route is this host's.
const BEFORE_NAT: &str = "-110";
/// Only what begins a connection is judged: those that stand when rules come are left as they are, also where the kernel
/// has not followed them so far.
const BEGINS: &str = "tcp flags & (fin | syn | rst | ack) == syn";

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is to be captured on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The proxy's user, whose packets are let go.
    pub uid: u32,
    /// Whether the host has IPv6 at all: where it has none, no route of it can be made, and none is needed.
    pub has_v6: bool,
    /// Where calls to virtual IPs go; empty for a host that captures none.
    pub outbound: Vec<SocketAddr>,
    /// Where look-ups go that are for one of `resolvers`.
    pub dns: Vec<SocketAddr>,
    /// Whom the host's programs ask for names.
    pub resolvers: Vec<IpAddr>,
    /// What comes from outside.
    pub inbound: Option<Inbound>,
}

/// What becomes of calls from outside the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Where they go if they may come in.
    pub plain: Vec<SocketAddr>,
    /// Ports of applications that they may come in to.
    pub permissive: BTreeSet<u16>,
    /// Ports of applications that they may not.
    pub strict: BTreeSet<u16>,
    /// Ports that are left alone whatever a file says: the way by which the host is administered.
    pub spared: BTreeSet<u16>,
}

/// Rules and routes, as they are loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// For `ip`, each the arguments of one call.
    pub routes: Vec<String>,
    /// For `nft -f -`: one transaction.
    pub rules: String,
    /// What systemd-resolved is told, where it runs.
    pub resolved: Option<DropIn>,
}

impl Wanted {
    /// The rules and routes for it.
    pub fn plan(&self) -> Plan {
        Plan { routes: self.routes(), rules: self.rules(), resolved: None }
    }

    fn routes(&self) -> Vec<String> {
        let families = VIRTUAL.iter().filter(|(family, _)| self.has_v6 || *family == Family::V4);
        families.map(|(family, network)| route(*family, network, self.listener(*family).is_some())).collect()
    }

    fn listener(&self, family: Family) -> Option<SocketAddr> {
        first(&self.outbound, family)
    }

    fn rules(&self) -> String {
        let mut text = format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
        self.turn_aside(&mut text);
        self.keep_here(&mut text);
        if let Some(inbound) = &self.inbound {
            inbound.rules(&mut text);
        }
        text + "}\n"
    }

    /// What programs of this host call.
    fn turn_aside(&self, text: &mut String) {
        let mut rules = vec![format!("meta skuid {} return", self.uid)];
        for (family, network) in VIRTUAL {
            let to = self.listener(family).map(|to| at_its_address(family, to));
            rules.extend(to.map(|to| format!("{} daddr {network} {BEGINS} {to}", family.word())));
        }
        for family in [Family::V4, Family::V6] {
            let servers: Vec<_> = self.resolvers.iter().filter(|ip| family.has(**ip)).collect();
            let Some(to) = first(&self.dns, family).filter(|_| !servers.is_empty()) else { continue };
            let (word, servers, to) = (family.word(), set(&servers), dnat(family, to));
            rules.push(format!("{word} daddr {servers} udp dport 53 {to}"));
            rules.push(format!("{word} daddr {servers} tcp dport 53 {BEGINS} {to}"));
        }
        chain(text, "outbound", &format!("nat hook output priority {BEFORE_NAT}"), &rules);
    }

    /// No packet for a virtual IP leaves the host, nor comes from another, nor gets to a program that listens at every
    /// address. Answers to who called one may go to one, too: a call can bear the address that it is for.
    fn keep_here(&self, text: &mut String) {
        let of =
            |rule: fn(&str, &str) -> String| VIRTUAL.map(|(family, network)| rule(family.word(), network));
        let mut out = of(|word, network| format!("oifname != \"lo\" {word} daddr {network} reject")).to_vec();
        out.push("ct status dnat accept".to_owned());
        out.extend(of(|word, network| format!("{word} daddr {network} reject")));
        chain(text, "leave", "filter hook output priority 0", &out);
        let come = of(|word, network| format!("iifname != \"lo\" {word} daddr {network} drop"));
        chain(text, "come", "filter hook prerouting priority -300", &come);
    }
}

impl Inbound {
    fn rules(&self, text: &mut String) {
        let kept = |ports: &BTreeSet<u16>| ports.difference(&self.spared).copied().collect::<Vec<_>>();
        let (permissive, strict) = (kept(&self.permissive), kept(&self.strict));
        // Where one application's port is named by both, the one that lets fewer in counts.
        let permissive: Vec<_> = permissive.into_iter().filter(|port| !strict.contains(port)).collect();
        let mut rules = Vec::new();
        for family in [Family::V4, Family::V6] {
            let Some(to) = first(&self.plain, family).filter(|_| !permissive.is_empty()) else { continue };
            let outside =
                format!("iifname != \"lo\" meta nfproto {} fib daddr type local", family.protocol());
            rules.push(format!("{outside} tcp dport {} {BEGINS} {}", set(&permissive), dnat(family, to)));
        }
        chain(text, "inbound", &format!("nat hook prerouting priority {BEFORE_NAT}"), &rules);
        let mut rules = Vec::new();
        if !strict.is_empty() {
            rules.push(format!("iifname != \"lo\" tcp dport {} {BEGINS} drop", set(&strict)));
        }
        chain(text, "strict", "filter hook input priority 0", &rules);
    }
}

impl Family {
    fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// The option of `ip`.
    pub fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// A route for a network of virtual IPs: to this host where its calls are captured, so that they can begin at all; else
/// to nowhere. No source is given: over IPv4 each call then bears the address that it is for, which keeps two from one
/// port to different addresses apart once they are turned aside to one.
fn route(family: Family, network: &str, captured: bool) -> String {
    let to = if captured { format!("local {network} dev lo") } else { format!("unreachable {network}") };
    format!("{} route replace {to} proto {ROUTE_PROTOCOL}", family.option())
}

fn first(addresses: &[SocketAddr], family: Family) -> Option<SocketAddr> {
    addresses.iter().copied().find(|address| family.has(address.ip()))
}

/// To a listener, which may be at every address.
fn dnat(family: Family, to: SocketAddr) -> String {
    match to.ip().is_unspecified() {
        true => format!("redirect to :{}", to.port()),
        false => format!("dnat {} to {to}", family.word()),
    }
}

/// To a listener at every address: the packet keeps its own, so that two calls from one port to different addresses stay
/// apart, and the kernel need not give one of them another port, by which nobody would know whose it is.
fn at_its_address(family: Family, to: SocketAddr) -> String {
    match to.ip().is_unspecified() {
        true => format!("dnat to :{}", to.port()),
        false => dnat(family, to),
    }
}

fn set<T: ToString>(elements: &[T]) -> String {
    let elements: Vec<_> = elements.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", elements.join(", "))
}

fn chain(text: &mut String, name: &str, place: &str, rules: &[String]) {
    if rules.is_empty() {
        return;
    }
    let rules: String = rules.iter().map(|rule| format!("\t\t{rule}\n")).collect();
    write!(text, "\tchain {name} {{\n\t\ttype {place}; policy accept;\n{rules}\t}}\n").expect("a text grows");
}

impl std::fmt::Display for Plan {
    /// A script: what `ip` is called with and what systemd-resolved is told as remarks, then what `nft -f -` reads.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.routes.iter().try_for_each(|route| writeln!(f, "# ip {route}"))?;
        if let Some(DropIn { path, text }) = &self.resolved {
            writeln!(f, "# {path}:")?;
            text.lines().try_for_each(|line| writeln!(f, "#     {line}"))?;
        }
        f.write_str(&self.rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().expect("an address")).collect()
    }

    #[test]
    fn a_host_that_captures_everything() {
        let wanted = Wanted {
            uid: 8_001,
            has_v6: true,
            outbound: addresses(&["127.0.0.1:15001", "[::1]:15001"]),
            dns: addresses(&["127.0.0.1:15053"]),
            resolvers: vec!["10.0.0.2".parse().expect("one"), "fd00::2".parse().expect("one")],
            inbound: Some(Inbound {
                plain: addresses(&["10.0.0.5:15006"]),
                permissive: [22, 8_080, 8_081].into(),
                strict: [8_081, 9_090].into(),
                spared: [22].into(),
            }),
        };
        let want = "\
# ip -4 route replace local 240.0.0.0/8 dev lo proto 219
# ip -6 route replace local fd6d:6573:6800::/48 dev lo proto 219
add table inet mesh
delete table inet mesh
table inet mesh {
\tchain outbound {
\t\ttype nat hook output priority -110; policy accept;
\t\tmeta skuid 8001 return
\t\tip daddr 240.0.0.0/8 tcp flags & (fin | syn | rst | ack) == syn dnat ip to 127.0.0.1:15001
\t\tip6 daddr fd6d:6573:6800::/48 tcp flags & (fin | syn | rst | ack) == syn dnat ip6 to [::1]:15001
\t\tip daddr { 10.0.0.2 } udp dport 53 dnat ip to 127.0.0.1:15053
\t\tip daddr { 10.0.0.2 } tcp dport 53 tcp flags & (fin | syn | rst | ack) == syn dnat ip to 127.0.0.1:15053
\t}
\tchain leave {
\t\ttype filter hook output priority 0; policy accept;
\t\toifname != \"lo\" ip daddr 240.0.0.0/8 reject
\t\toifname != \"lo\" ip6 daddr fd6d:6573:6800::/48 reject
\t\tct status dnat accept
\t\tip daddr 240.0.0.0/8 reject
\t\tip6 daddr fd6d:6573:6800::/48 reject
\t}
\tchain come {
\t\ttype filter hook prerouting priority -300; policy accept;
\t\tiifname != \"lo\" ip daddr 240.0.0.0/8 drop
\t\tiifname != \"lo\" ip6 daddr fd6d:6573:6800::/48 drop
\t}
\tchain inbound {
\t\ttype nat hook prerouting priority -110; policy accept;
\t\tiifname != \"lo\" meta nfproto ipv4 fib daddr type local tcp dport { 8080 } tcp flags & (fin | syn | rst | ack) == syn dnat ip to 10.0.0.5:15006
\t}
\tchain strict {
\t\ttype filter hook input priority 0; policy accept;
\t\tiifname != \"lo\" tcp dport { 8081, 9090 } tcp flags & (fin | syn | rst | ack) == syn drop
\t}
}
";
        assert_eq!(wanted.plan().to_string(), want);
    }

    #[test]
    fn what_systemd_resolved_is_told_stands_in_the_remarks() {
        let told = DropIn { path: "/run/mesh.conf".to_owned(), text: "[Resolve]\nDNS=::1\n".to_owned() };
        let plan = Plan { resolved: Some(told), ..Wanted::default().plan() };
        let text = plan.to_string();
        assert!(text.contains("\n# /run/mesh.conf:\n#     [Resolve]\n#     DNS=::1\nadd table"), "{text}");
    }

    #[test]
    fn a_host_that_captures_nothing_lets_nothing_for_a_virtual_ip_go() {
        let plan =
            Wanted { uid: 8_001, has_v6: true, inbound: Some(Inbound::default()), ..Wanted::default() };
        let (plan, v4) = (plan.plan(), Wanted { has_v6: false, ..plan }.plan());
        assert_eq!(v4.routes, plan.routes[..1]);
        let want = "\
# ip -4 route replace unreachable 240.0.0.0/8 proto 219
# ip -6 route replace unreachable fd6d:6573:6800::/48 proto 219
add table inet mesh
delete table inet mesh
table inet mesh {
\tchain outbound {
\t\ttype nat hook output priority -110; policy accept;
\t\tmeta skuid 8001 return
\t}
\tchain leave {
\t\ttype filter hook output priority 0; policy accept;
\t\toifname != \"lo\" ip daddr 240.0.0.0/8 reject
\t\toifname != \"lo\" ip6 daddr fd6d:6573:6800::/48 reject
\t\tct status dnat accept
\t\tip daddr 240.0.0.0/8 reject
\t\tip6 daddr fd6d:6573:6800::/48 reject
\t}
\tchain come {
\t\ttype filter hook prerouting priority -300; policy accept;
\t\tiifname != \"lo\" ip daddr 240.0.0.0/8 drop
\t\tiifname != \"lo\" ip6 daddr fd6d:6573:6800::/48 drop
\t}
}
";
        assert_eq!(plan.to_string(), want);
    }

    #[test]
    fn calls_to_a_listener_at_every_address_keep_their_own() {
        let wanted = Wanted { outbound: addresses(&["0.0.0.0:15001", "[::]:15001"]), ..Wanted::default() };
        let rules = wanted.plan().rules;
        assert_eq!(rules.matches(" dnat to :15001\n").count(), 2, "{rules}");
    }

    #[test]
    fn a_listener_at_every_address_is_reached_where_the_packet_came_in() {
        let inbound = Inbound {
            plain: addresses(&["0.0.0.0:15006", "[::]:15006"]),
            permissive: [80].into(),
            ..Inbound::default()
        };
        let rules = Wanted { inbound: Some(inbound), ..Wanted::default() }.plan().rules;
        assert_eq!(rules.matches("redirect to :15006").count(), 2, "{rules}");
    }
}
