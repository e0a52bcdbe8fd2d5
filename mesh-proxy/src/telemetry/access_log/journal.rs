//! The journal as a place for lines: each becomes an entry with fields by which `journalctl` finds it
//! (systemd's native journal protocol).

use std::{
    io::{self, Write},
    os::unix::net::UnixDatagram,
    path::Path,
};

use serde_json::Value;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// Who says it: `journalctl -t mesh-proxy-access`.
const IDENTIFIER: &str = "mesh-proxy-access";
/// What of a line becomes a field, and its name there.
const FIELDS: [(&str, &str); 7] = [
    ("direction", "MESH_DIRECTION"),
    ("source", "MESH_SOURCE"),
    ("destination", "MESH_DESTINATION"),
    ("route", "MESH_ROUTE"),
    ("code", "MESH_CODE"),
    ("requestId", "MESH_REQUEST_ID"),
    ("refusal", "MESH_REFUSAL"),
];

/// The journal's socket.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// The journal that listens there.
    ///
    /// # Errors
    /// If none does.
    pub(super) fn open(socket: &Path) -> io::Result<Self> {
        let own = UnixDatagram::unbound()?;
        own.connect(socket)?;
        Ok(Self(own))
    }
}

/// Takes whole lines only.
impl Write for Journal {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.0.send(&entry(line))?;
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn entry(line: &[u8]) -> Vec<u8> {
    let mut entry = format!("SYSLOG_IDENTIFIER={IDENTIFIER}\nPRIORITY=6\nMESSAGE=").into_bytes();
    entry.extend_from_slice(line);
    entry.push(b'\n');
    let said: Value = serde_json::from_slice(line).unwrap_or_default();
    for (key, field) in FIELDS {
        let value = match &said[key] {
            // What has a line end would begin another field.
            Value::String(text) if !text.contains('\n') => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        entry.extend_from_slice(format!("{field}={value}\n").as_bytes());
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_entry_with_its_fields() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        assert!(Journal::open(&socket).is_err());
        let listening = UnixDatagram::bind(&socket).expect("bound");
        let mut journal = Journal::open(&socket).expect("it listens");
        let first = r#"{"source":"default/web","code":200,"route":"a\nMESH_CODE=7"}"#;
        journal.write_all(format!("{first}\n{{}}\n").as_bytes()).expect("taken");
        let mut packet = [0; 1_024];
        let length = listening.recv(&mut packet).expect("an entry");
        let text = String::from_utf8_lossy(&packet[..length]).into_owned();
        let want = format!(
            "SYSLOG_IDENTIFIER=mesh-proxy-access\nPRIORITY=6\nMESSAGE={first}\nMESH_SOURCE=default/web\nMESH_CODE=200\n"
        );
        assert_eq!(text, want);
        let length = listening.recv(&mut packet).expect("another");
        assert!(String::from_utf8_lossy(&packet[..length]).ends_with("MESSAGE={}\n"));
    }
}
