//! `meshd --dev`, and the command line: what programs and people that start it rely on.

mod world;

use std::fs;

use serde_json::json;
use world::{Dev, Meshd, meshd};

#[tokio::test]
async fn dev_prints_three_lines_and_answers() {
    let mut dev = Dev::start();
    assert!(dev.meshd.address.starts_with("https://127.0.0.1:"), "{}", dev.meshd.address);
    let created =
        dev.operator.put("/v1/namespaces/default/services/orders", json!({"ports": [{"port": 80}]})).await;
    assert_eq!(created.status, 201, "{created:?}");
    let log = dev.meshd.log();
    let metrics = log.lines().find_map(|line| line.strip_prefix("metrics: ")).expect("where metrics are");
    let text = reqwest::get(metrics).await.expect("metrics").text().await.expect("a text");
    assert!(text.contains("meshd_raft_leader 1"), "{text}");
    assert!(text.contains(r#"class="2xx""#) && text.contains("services"), "{text}");
    let place = dev.root_file.parent().expect("a folder").to_owned();
    assert_eq!(dev.meshd.terminate().await, Some(0));
    assert!(!place.exists(), "the temporary folder goes with it");
}

#[tokio::test]
async fn dev_goes_on_in_a_named_folder_also_after_kill_9() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let data_dir = tempfile::tempdir().expect("a temporary folder");
    let folder = data_dir.path().to_str().expect("UTF-8");
    let mut dev = Dev::start_in(place, &["--data-dir", folder]);
    let path = "/v1/namespaces/default/services/orders";
    assert_eq!(dev.operator.put(path, json!({"ports": [{"port": 80}]})).await.status, 201);
    dev.meshd.kill();
    let Dev { place, operator, .. } = dev;
    let again = Dev::start_in(place, &["--data-dir", folder]);
    let object = operator.at(&again.meshd.address).get(path).await;
    assert_eq!((object.status, &object.body["spec"]), (200, &json!({"ports": [{"port": 80}]})));
}

#[tokio::test]
async fn a_port_in_use_is_told_at_once() {
    let dev = Dev::start();
    let taken = dev.meshd.address.strip_prefix("https://").expect("an address");
    let output = meshd().args(["--dev", "--listen", taken]).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains(&format!("cannot listen on {taken} (API)")), "{error}");
}

#[test]
fn the_command_line_explains_itself() {
    let run = |arguments: &[&str]| {
        let output = meshd().args(arguments).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, help) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for word in ["run", "init", "join", "completion", "--dev", "--listen", "--data-dir"] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
    assert_eq!(run(&["--version"]), (Some(0), format!("meshd {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(run(&["completion", "bash"]).1.contains("_meshd"));
    assert_eq!(run(&["--listen", "127.0.0.1:1"]).0, Some(2), "--listen is for --dev");
}

#[test]
fn a_wrong_configuration_names_file_line_and_key() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("meshd.toml");
    fs::write(&file, "node = \"cp1\"\n[listen]\napi = 8443\nraaft = \"127.0.0.1:1\"\n").expect("written");
    let output = meshd().args(["run", "--config"]).arg(&file).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    let at = |line: usize, key: &str| format!("{}:{line}: {key}: ", file.display());
    assert!(error.contains(&at(3, "listen.api")) && error.contains(&at(4, "listen.raaft")), "{error}");
}

#[test]
fn a_server_that_is_none_yet_says_what_to_do() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("meshd.toml");
    fs::write(&file, format!("node = \"cp1\"\ndata_dir = \"{}\"\n", place.path().display()))
        .expect("written");
    let output = meshd().args(["run", "--config"]).arg(&file).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("run `meshd init` for a new cluster, or `meshd join`"), "{error}");
    let output = meshd().args(["run", "--config", "/nowhere/meshd.toml"]).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("/nowhere/meshd.toml: No such file"), "{error}");
    // Keeps the helper in use in this binary.
    let _ = Meshd::is_running;
}
