//! Pure. At which ports a host may be administered over SSH: those stay as they are, whatever else is said.

use std::collections::BTreeSet;

/// By custom, and where nothing is said.
const SSH: u16 = 22;

/// By sshd_config(5), in several files, and by the session that this is, if it is one.
pub(super) fn ports(texts: &[String], connection: Option<&str>) -> BTreeSet<u16> {
    let listens = |line: &str| {
        let mut words = line.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty());
        let (key, value) = (words.next()?.to_ascii_lowercase(), words.next()?);
        match key.as_str() {
            "port" => value.parse().ok(),
            // A v6 address without a port has colons, too, but no bracket before the last one.
            "listenaddress" => {
                let (host, port) = value.rsplit_once(':')?;
                port.parse().ok().filter(|_| !host.contains(':') || host.ends_with(']'))
            }
            _ => None,
        }
    };
    // Client, its port, server, its port: sshd(8).
    let own = connection.and_then(|said| said.split(' ').nth(3)?.parse().ok());
    let said = texts.iter().flat_map(|text| text.lines()).filter_map(listens);
    said.chain(own).chain([SSH]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_is_found() {
        let texts = [
            "#Port 1\nPort 2222\nListenAddress 10.0.0.5:2223\nListenAddress ::1\n".to_owned(),
            " port=2224\nlistenaddress [::]:2225\nListenAddress 10.0.0.5\n".to_owned(),
        ];
        let want = [22, 2_222, 2_223, 2_224, 2_225, 4_022];
        assert_eq!(ports(&texts, Some("10.0.0.9 50000 10.0.0.5 4022")), want.into());
        assert_eq!(ports(&[], None), [22].into());
        assert_eq!(ports(&[], Some("odd")), [22].into());
    }
}
