//! Rules of others on a host: they stand beside those of the mesh, and nothing of them may change.

/// Tables as firewalld, ufw by way of iptables, and Docker leave them on a host.
pub const FOREIGN: &str = "\
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state established,related accept
    iifname \"lo\" accept
    tcp dport { 22, 7000, 8080, 9000, 15006, 15008 } counter accept
    counter reject with icmpx admin-prohibited
  }
  chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; policy accept; counter; }
}
table ip filter {
  chain ufw-user-input { tcp dport 22 counter accept; }
  chain INPUT { type filter hook input priority filter; policy accept; counter jump ufw-user-input; }
  chain FORWARD { type filter hook forward priority filter; policy drop; }
}
table ip nat {
  chain DOCKER { tcp dport 80 counter dnat to 172.17.0.2:80; }
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local counter jump DOCKER; }
  chain OUTPUT { type nat hook output priority -100; policy accept; ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER; }
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; ip saddr 172.17.0.0/16 oifname != \"docker0\" counter masquerade; }
}
";
/// For a shell: all rules but ours, with their handles, as a rule that was made anew has another one, and without what they
/// counted.
pub const FOREIGN_RULES: &str =
    "nft list tables | grep -vx 'table inet mesh' | while read -r table; do nft -a -s list $table; done";
