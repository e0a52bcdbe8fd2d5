//! `meshctl history`, `diff` and `rollback`, against a real server.

mod heavy {
    use mesh_tests::{
        dev::Dev,
        scratch::{Said, Scratch},
    };
    use serde_json::Value;

    const FIRST: &str = "\
kind: Namespace
metadata: {name: shop}
---
kind: Service
metadata: {namespace: shop, name: web}
spec: {ports: [{port: 80, protocol: http}]}
---
kind: Service
metadata: {namespace: shop, name: old}
spec: {ports: [{port: 90, protocol: http}]}
";
    const SECOND: &str = "\
kind: Service
metadata: {namespace: shop, name: web}
spec: {ports: [{port: 81, protocol: http}]}
---
kind: Namespace
metadata: {name: fresh}
---
kind: Service
metadata: {namespace: fresh, name: thing}
spec: {ports: [{port: 70, protocol: http}]}
";

    #[track_caller]
    fn has(text: &str, parts: &[&str]) {
        parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} in\n{text}"));
    }

    fn revision(dev: &Dev) -> u64 {
        let status: Value =
            serde_json::from_str(&dev.meshctl(&["status", "-o", "json"]).fine()).expect("JSON");
        status["revision"].as_u64().expect("a revision")
    }

    #[tokio::test]
    async fn what_changed_is_shown_and_taken_back_in_one_write() {
        let scratch = Scratch::new("rollback");
        let dev = Dev::start(scratch.path()).await.expect("meshd --dev runs");
        let first = scratch.write("first.yaml", FIRST).display().to_string();
        let second = scratch.write("second.yaml", SECOND).display().to_string();
        dev.meshctl(&["apply", "-f", &first]).fine();
        let then = revision(&dev);
        has(&dev.meshctl(&["diff", "-f", &first]).fine(), &[]);
        assert_eq!(dev.meshctl(&["diff", "-f", &first]).fine(), "", "nothing would change");
        let diff = dev.meshctl(&["diff", "-f", &second]).fine();
        has(
            &diff,
            &[
                "--- Service shop/web",
                "-",
                "port: 80",
                "+",
                "port: 81",
                "--- /dev/null",
                "+++ Service fresh/thing",
            ],
        );
        assert_eq!(revision(&dev), then, "a diff changes nothing");
        dev.meshctl(&["apply", "-f", &second]).fine();
        dev.meshctl(&["delete", "svc", "old", "-n", "shop"]).fine();
        let viewer = dev.meshctl(&["token", "access", "ci", "--role", "viewer"]).fine();
        history(&dev, then);
        let between = dev.meshctl(&["diff", "--from", &then.to_string()]).fine();
        has(&between, &["--- Service shop/old", "+++ /dev/null", "+++ Service fresh/thing", "port: 81"]);
        let target = then.to_string();
        let as_viewer: Said = dev
            .command(&["rollback", &target, "--yes"])
            .env("MESH_TOKEN", viewer.trim())
            .output()
            .expect("meshctl starts")
            .into();
        has(&as_viewer.failed(1), &["403", "needs"]);
        rolled_back(&dev, &target, viewer.trim());
    }

    fn history(dev: &Dev, then: u64) {
        let text = dev.meshctl(&["history"]).fine();
        has(&text, &["REVISION", "created", "AccessToken ci", "deleted", "Service shop/old", "token/admin"]);
        let one = dev.meshctl(&["history", "svc", "web", "-n", "shop", "-o", "json"]).fine();
        let one: Value = serde_json::from_str(&one).expect("JSON");
        let versions: Vec<_> = one["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| item["changes"][0]["after"]["spec"]["ports"][0]["port"].as_u64())
            .collect();
        assert_eq!(versions, [Some(81), Some(80)], "newest first: {one}");
        let after = dev.meshctl(&["history", "--from", &then.to_string(), "-o", "json"]).fine();
        let after: Value = serde_json::from_str(&after).expect("JSON");
        assert!(
            after["items"]
                .as_array()
                .expect("items")
                .iter()
                .all(|item| item["revision"].as_u64() > Some(then))
        );
        let one = dev.meshctl(&["history", "--limit", "1", "-o", "json"]).fine();
        let one: Value = serde_json::from_str(&one).expect("JSON");
        assert_eq!(one["items"].as_array().map(Vec::len), Some(1));
        assert_ne!(one["metadata"]["continue"], "");
    }

    fn rolled_back(dev: &Dev, target: &str, kept: &str) {
        let before = revision(dev);
        let planned = dev.meshctl(&["rollback", target, "--dry-run"]).fine();
        has(
            &planned,
            &[
                "Service shop/old created (dry run)",
                "Service shop/web replaced",
                "Service fresh/thing deleted",
                "Namespace fresh deleted",
            ],
        );
        assert!(!planned.contains("Token"), "tokens are no part of it: {planned}");
        has(&dev.meshctl(&["rollback", target]).failed(1), &["--yes"]);
        assert_eq!(revision(dev), before, "nothing changed so far");
        let done = dev.meshctl(&["rollback", target, "--yes"]).fine();
        has(&done, &[&format!("rolled back to revision {target}, as revision {}", before + 1)]);
        assert_eq!(revision(dev), before + 1, "one write");
        has(&dev.meshctl(&["get", "svc", "web", "-n", "shop", "-o", "yaml"]).fine(), &["port: 80"]);
        dev.meshctl(&["get", "svc", "old", "-n", "shop"]).fine();
        has(&dev.meshctl(&["get", "ns", "fresh"]).failed(1), &["404"]);
        let viewer: Said = dev
            .command(&["get", "svc", "-A"])
            .env("MESH_TOKEN", kept)
            .output()
            .expect("meshctl starts")
            .into();
        viewer.fine();
        has(&dev.meshctl(&["history"]).fine(), &[&format!("token/admin (rollback to revision {target})")]);
        has(
            &dev.meshctl(&["rollback", target, "--yes"]).fine(),
            &[&format!("everything stands as at revision {target}")],
        );
        has(&dev.meshctl(&["rollback", "999999", "--yes"]).failed(1), &["422", "the present one is"]);
    }
}
