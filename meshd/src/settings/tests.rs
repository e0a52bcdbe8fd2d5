use super::*;

#[track_caller]
fn wrong(text: &str, lines: &[&str]) {
    let error = parse(text, "meshd.toml").expect_err("the text is wrong").to_string();
    assert_eq!(error.lines().collect::<Vec<_>>(), lines, "{text}");
}

#[test]
fn the_documented_file_is_read() {
    let text = r#"
node = "cp1"
data_dir = "/srv/meshd"
trust_domain = "shop.example"
[listen]
api = "10.0.0.1:8443"
raft = "[::]:9444"
metrics = "127.0.0.1:9480"
[advertise]
api = "CP1.example:8443"
raft = "[fd00::1]:9444"
[seal]
kind = "keyfile"
path = "/etc/mesh/seal.key"
[certificates]
ttl = "24h"
[registry]
history_revisions = 2_000
snapshot_every = 500
log_kept = 50
"#;
    let settings = parse(text, "meshd.toml").expect("it is right");
    assert_eq!(settings.node.as_ref().map(Name::as_str), Some("cp1"));
    assert_eq!(settings.data_dir, PathBuf::from("/srv/meshd"));
    assert_eq!(settings.trust_domain.as_str(), "shop.example");
    assert_eq!(settings.listen.raft.port(), 9_444);
    assert_eq!(settings.seal, SealSource::Keyfile("/etc/mesh/seal.key".into()));
    assert_eq!(settings.certificate_ttl, Timespan::from_secs(86_400));
    assert_eq!(
        settings.registry,
        LogSettings { snapshot_every: 500, log_kept: 50, history_revisions: 2_000 }
    );
    let (api, raft) = settings.advertised("cp1");
    assert_eq!((api.to_string().as_str(), raft.to_string().as_str()), ("cp1.example:8443", "[fd00::1]:9444"));
}

#[test]
fn what_the_manual_shows_is_read() {
    const MANUAL: &str = include_str!("../../../docs/operating.md");
    let shown = MANUAL.split("```toml meshd\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let read: Vec<_> = shown.map(|(text, _)| parse(text, "meshd.toml").expect("it is right")).collect();
    let [whole, snapshots] = &read[..] else { panic!("{} files", read.len()) };
    assert_eq!(whole.seal, SealSource::Keyfile("/etc/mesh/seal.key".into()));
    // It says which its defaults are.
    let default = Settings::default();
    assert_eq!((&whole.registry, &whole.limits), (&default.registry, &default.limits));
    assert_ne!(snapshots.snapshots, default.snapshots);
}

#[test]
fn an_empty_file_means_the_defaults() {
    let settings = parse("", "meshd.toml").expect("nothing is required");
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.listen.api.to_string(), "0.0.0.0:8443");
    assert_eq!(settings.listen.metrics.to_string(), "127.0.0.1:8480");
    assert_eq!(settings.seal, SealSource::Credential);
    assert_eq!(settings.advertised("cp1").1.to_string(), "cp1:8444");
}

#[test]
fn how_much_log_is_kept_has_bounds() {
    wrong(
        "[registry]\nsnapshot_every = 10\nlog_kept = \"all\"\n",
        &[
            "meshd.toml:2: registry.snapshot_every: must be a whole number from 100 to 1000000",
            "meshd.toml:3: registry.log_kept: must be a whole number from 0 to 1000000",
        ],
    );
    let defaults = LogSettings {
        snapshot_every: registry::raft::settings::SNAPSHOT_EVERY,
        log_kept: registry::raft::settings::LOG_KEPT,
        history_revisions: registry::state::HISTORY_REVISIONS_MAX,
    };
    assert_eq!(Settings::default().registry, defaults, "as where there is no file");
}

#[test]
fn every_fault_is_told_with_line_and_key() {
    wrong(
        "nodes = \"cp1\"\ndata_dir = 7\n[listen]\napi = \"cp1:8443\"\nport = 1\n\n[advertise]\nraft = \"0.0.0.0:8444\"\n",
        &[
            "meshd.toml:1: nodes: is not a key here; known are node, data_dir, trust_domain, listen, advertise, seal, certificates, registry, snapshots, limits",
            "meshd.toml:2: data_dir: must be a text in quotes, is of type integer",
            "meshd.toml:4: listen.api: 'cp1:8443': invalid socket address syntax",
            "meshd.toml:5: listen.port: is not a key here; known are api, raft, metrics",
            "meshd.toml:8: advertise.raft: '0.0.0.0:8444': must be a host name or address and a port, such as cp1:8443 or [::1]:8443",
        ],
    );
}

#[test]
fn seals_say_what_they_lack() {
    wrong("[seal]\nkind = \"keyfile\"\n", &["meshd.toml:2: seal.path: is required with kind = \"keyfile\""]);
    wrong(
        "[seal]\nkind = \"vault\"\n",
        &["meshd.toml:2: seal.kind: 'vault': must be credential, keyfile or passphrase"],
    );
    wrong(
        "[seal]\nkind = \"credential\"\npath = \"/x\"\n",
        &["meshd.toml:3: seal.path: is not a key here; known are kind"],
    );
    wrong("seal = \"credential\"\n", &["meshd.toml:1: seal: must be a table ([seal]), is of type string"]);
    let asked = parse("[seal]\nkind = \"passphrase\"\n", "f").expect("right");
    assert_eq!(asked.seal, SealSource::Passphrase(None));
}

#[test]
fn lives_of_certificates_have_limits() {
    wrong(
        "[certificates]\nttl = \"59m\"\n",
        &["meshd.toml:2: certificates.ttl: must be between 1h and 168h"],
    );
    assert!(parse("[certificates]\nttl = \"168h\"\n", "f").is_ok());
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let error = parse("node = \"cp1\"\n[listen\n", "meshd.toml").expect_err("wrong").to_string();
    assert!(error.starts_with("meshd.toml:2: "), "{error}");
    let twice = parse("node = \"a\"\nnode = \"b\"\n", "meshd.toml").expect_err("wrong").to_string();
    assert!(twice.starts_with("meshd.toml:2: "), "{twice}");
}

#[test]
fn host_and_port_print_as_they_parse() {
    for text in ["cp1:8443", "10.0.0.1:8444", "[::1]:1", "a.b.example:65535"] {
        assert_eq!(text.parse::<HostPort>().expect("valid").to_string(), text);
    }
    for text in ["", "cp1", ":1", "cp1:0", "cp1:65536", "::1:8443", "[cp1]:1", "a b:1", "a..b:1", "0.0.0.0:1"]
    {
        assert!(text.parse::<HostPort>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn kept_history_has_bounds() {
    for text in ["99", "1_000_001", "\"100\"", "1.5", "0x7fffffffffffffffffffff"] {
        wrong(
            &format!("[registry]\nhistory_revisions = {text}\n"),
            &["meshd.toml:2: registry.history_revisions: must be a whole number from 100 to 1000000"],
        );
    }
    assert_eq!(
        parse("[registry]\nhistory_revisions = 0x64\n", "f")
            .map(|settings| settings.registry.history_revisions),
        Ok(100)
    );
}

#[test]
fn scheduled_snapshots_are_off_unless_it_says_how_often() {
    let snapshots = |text: &str| parse(text, "meshd.toml").expect("it is right").snapshots;
    assert_eq!(snapshots(""), None);
    assert_eq!(snapshots("[snapshots]\nkeep = 3\n"), None);
    let folder = PathBuf::from("/var/lib/meshd/backups");
    let every = Timespan::from_secs(6 * 3_600);
    assert_eq!(snapshots("[snapshots]\nevery = \"6h\"\n"), Some(Schedule { every, keep: 28, folder }));
    let folder = PathBuf::from("/srv/b");
    let text = "[snapshots]\nevery = \"6h\"\nkeep = 2\nfolder = \"/srv/b\"\n";
    assert_eq!(snapshots(text), Some(Schedule { every, keep: 2, folder }));
    wrong(
        "[snapshots]\nevery = \"0s\"\nkeep = 0\n",
        &[
            "meshd.toml:2: snapshots.every: must be between 1s and 720h",
            "meshd.toml:3: snapshots.keep: must be a whole number from 1 to 366",
        ],
    );
}

#[test]
fn what_a_server_takes_on_has_bounds() {
    let limits = |text: &str| parse(text, "meshd.toml").expect("it is right").limits;
    assert_eq!(limits(""), Limits::default());
    assert_eq!(
        limits("[limits]\nrequests = 1_024\nheld_mib = 128\nper_second = 500\n"),
        Limits { places: 1_024, held_mib: 128, per_second: 500 }
    );
    wrong(
        "[limits]\nrequests = 63\nheld_mib = 127\nper_second = \"many\"\nper_minute = 1\n",
        &[
            "meshd.toml:2: limits.requests: must be a whole number from 64 to 1048576",
            "meshd.toml:3: limits.held_mib: must be a whole number from 128 to 65536",
            "meshd.toml:4: limits.per_second: must be a whole number from 10 to 1000000",
            "meshd.toml:5: limits.per_minute: is not a key here; known are requests, held_mib, per_second",
        ],
    );
}
