//! Every verb of `meshctl` against a real control plane: what it prints, how it ends, and what it says when it fails.

mod heavy {
    use std::{
        io::{BufRead, BufReader, Write},
        os::unix::fs::PermissionsExt,
        process::Stdio,
    };

    use mesh_tests::{
        dev::Dev,
        scratch::{Said, Scratch},
    };
    use serde_json::Value;

    const SHOP: &str = "\
kind: Namespace
metadata: {name: shop}
spec: {description: of the tests}
---
kind: Service
metadata: {namespace: shop, name: orders, labels: {team: red}}
spec:
  ports: [{name: http, port: 80, targetPort: 8080, protocol: http}]
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
kind: Service
metadata: {namespace: shop, name: web, labels: {team: blue}}
spec: {ports: [{port: 80, protocol: http}]}
---
kind: HTTPRoute
metadata: {namespace: shop, name: orders}
spec:
  parentRefs: [{name: orders, port: 80}]
  rules:
  - backendRefs: [{name: orders, subset: v1, port: 80, weight: 90}, {name: orders, subset: v2, port: 80, weight: 10}]
";
    const WRONG: &str = "\
kind: Service
metadata: {namespace: shop, name: wrong}
spec: {ports: [{port: 70000, protocol: smtp}], colour: red}
";

    #[track_caller]
    fn has(text: &str, wanted: &[&str]) {
        for word in wanted {
            assert!(text.contains(word), "no {word:?} in:\n{text}");
        }
        assert!(!text.contains('\x1b'), "colours, though nobody sees them: {text:?}");
    }

    /// The words of each line of a table.
    fn rows(table: &str) -> Vec<Vec<&str>> {
        table.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// `meshctl` with something on its standard input.
    fn fed(dev: &Dev, arguments: &[&str], input: &str) -> Said {
        let mut command = dev.command(arguments);
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().expect("meshctl starts");
        child.stdin.take().expect("it was asked for").write_all(input.as_bytes()).expect("it is read");
        child.wait_with_output().expect("it ends").into()
    }

    #[tokio::test]
    async fn objects_are_applied_shown_watched_and_deleted() {
        let scratch = Scratch::new("meshctl");
        let dev = Dev::start(scratch.path()).await.expect("meshd --dev runs");
        let shop = scratch.write("shop.yaml", SHOP).display().to_string();
        applying(&dev, &shop, &scratch.write("wrong.yaml", WRONG).display().to_string());
        showing(&dev);
        watching(&dev);
        deleting(&dev, &shop);
    }

    fn applying(dev: &Dev, shop: &str, wrong: &str) {
        has(
            &dev.meshctl(&["apply", "-f", shop, "--dry-run"]).fine(),
            &["Service shop/orders created (dry run)"],
        );
        assert!(dev.meshctl(&["get", "ns", "shop"]).failed(1).contains("404"), "a dry run changes nothing");
        assert_eq!(
            dev.meshctl(&["apply", "-f", shop]).fine(),
            "Namespace shop created\nService shop/orders created\nService shop/web created\nHTTPRoute shop/orders created\n"
        );
        has(
            &dev.meshctl(&["apply", "-f", shop]).fine(),
            &["Service shop/orders unchanged", "HTTPRoute shop/orders unchanged"],
        );
        let changed = SHOP.replace("weight: 10}", "weight: 20}");
        has(
            &fed(dev, &["apply", "-f", "-"], &changed).fine(),
            &["HTTPRoute shop/orders configured", "shop/web unchanged"],
        );
        let items = json(&dev.meshctl(&["apply", "-f", shop, "-o", "json"]).fine());
        assert_eq!(items.as_array().map(Vec::len), Some(4), "{items}");
        let error = dev.meshctl(&["apply", "-f", wrong, "-f", shop]).failed(1);
        has(
            &error,
            &[
                "422",
                "items[0].spec.ports[0].port",
                "items[0].spec.ports[0].protocol",
                "items[0].spec.colour",
            ],
        );
        has(&dev.meshctl(&["apply", "-f", "absent.yaml"]).failed(1), &["absent.yaml", "No such file"]);
        has(&fed(dev, &["apply", "-f", "-"], "kind: [").failed(1), &["error:"]);
        has(&fed(dev, &["apply", "-f", "-"], "").failed(1), &["the manifests hold no objects"]);
        assert_eq!(dev.meshctl(&["apply"]).code, Some(2), "a missing file name is the command line's fault");
    }

    fn showing(dev: &Dev) {
        let table = dev.meshctl(&["get", "services", "-n", "shop"]).fine();
        let table = rows(&table);
        assert_eq!(table[0], ["NAME", "PORTS", "READY", "HOSTNAME", "REVISION"]);
        assert_eq!(table[1][..4], ["orders", "80/http", "0/0", "orders.shop.mesh"]);
        assert_eq!((table[2][0], table.len()), ("web", 3));
        let all = dev.meshctl(&["get", "svc", "-A"]).fine();
        assert_eq!(rows(&all)[0][..2], ["NAMESPACE", "NAME"]);
        assert_eq!(rows(&all)[1][..2], ["shop", "orders"]);
        let red = dev.meshctl(&["get", "service", "-n", "shop", "-l", "team=red"]).fine();
        assert_eq!((rows(&red)[1][0], rows(&red).len()), ("orders", 2));
        let other = dev.meshctl(&["get", "service", "-n", "shop", "-l", "team!=red", "-o", "json"]).fine();
        let other = json(&other);
        assert_eq!(
            (&other["items"][0]["metadata"]["name"], other["items"].as_array().map(Vec::len)),
            (&"web".into(), Some(1))
        );
        let nothing = dev.meshctl(&["get", "svc"]);
        assert_eq!(
            (nothing.out.as_str(), nothing.err.trim(), nothing.code),
            ("", "no services in namespace default", Some(0))
        );
        let route = dev.meshctl(&["get", "route", "orders", "-n", "shop"]).fine();
        assert_eq!(rows(&route)[1][..3], ["orders", "orders", "orders:v1=90,orders:v2=10"]);
        let one = json(&dev.meshctl(&["get", "svc", "orders", "-n", "shop", "-o", "json"]).fine());
        assert_eq!((&one["kind"], &one["spec"]["ports"][0]["targetPort"]), (&"Service".into(), &8080.into()));
        let yaml = dev.meshctl(&["get", "svc", "web", "-n", "shop", "-o", "yaml"]).fine();
        has(&yaml, &["kind: Service", "  namespace: shop", "    protocol: http"]);
        has(
            &dev.meshctl(&["describe", "service", "orders", "-n", "shop"]).fine(),
            &["team: red", "hostname: orders.shop.mesh", "\nEndpoints:\n"],
        );
        has(
            &dev.meshctl(&["get", "svc", "absent", "-n", "shop"]).failed(1),
            &["404", "Service shop/absent does not exist"],
        );
        has(&dev.meshctl(&["get", "gateway"]).failed(2), &["unknown kind", "httproutes"]);
        has(&dev.meshctl(&["get", "svc", "-l", "=red"]).failed(1), &["labelSelector"]);
    }

    fn watching(dev: &Dev) {
        let mut command = dev.command(&["watch", "service,httproute", "-n", "shop"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("meshctl starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        let mut next = || lines.next().expect("the stream goes on").expect("it is text");
        let mut first =
            [next(), next(), next()].map(|line| line.split_once('\t').expect("a revision").1.to_owned());
        first.sort();
        assert_eq!(
            first,
            ["put\tHTTPRoute shop/orders", "put\tService shop/orders", "put\tService shop/web"]
        );
        let bookmark = next();
        let (revision, kind) = bookmark.split_once('\t').expect("a revision");
        assert_eq!(kind, "bookmark");
        dev.meshctl(&["delete", "svc", "web", "-n", "shop"]).fine();
        let deleted = next();
        assert!(deleted.ends_with("\tdelete\tService shop/web"), "{deleted}");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        // What was seen is seen again from the bookmark on, as JSON.
        let mut command = dev.command(&["watch", "svc", "--from", revision, "-o", "json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("meshctl starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        stdout.read_line(&mut line).expect("the stream goes on");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        let event = json(&line);
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&"delete".into(), &"web".into()),
            "{event}"
        );
    }

    fn deleting(dev: &Dev, shop: &str) {
        has(&dev.meshctl(&["delete", "ns", "shop"]).failed(1), &["409", "shop"]);
        let deleted = dev.meshctl(&["delete", "-f", shop]);
        has(&deleted.err, &["Service shop/web is not there"]);
        assert_eq!(
            deleted.fine(),
            "HTTPRoute shop/orders deleted\nService shop/orders deleted\nNamespace shop deleted\n"
        );
        has(&dev.meshctl(&["delete", "svc", "orders"]).failed(1), &["404", "Service default/orders"]);
        has(&dev.meshctl(&["delete", "ns", "default"]).failed(1), &["409", "built in"]);
        assert_eq!(dev.meshctl(&["delete"]).code, Some(2));
    }

    #[tokio::test]
    async fn tokens_members_trust_and_snapshots() {
        let scratch = Scratch::new("meshctl");
        let dev = Dev::start(scratch.path()).await.expect("meshd --dev runs");
        tokens(&dev);
        status(&dev);
        cluster(&dev);
        trust(&dev, &std::fs::read_to_string(&dev.cacert).expect("MESH_CACERT is a file"));
        snapshot(&dev, &scratch);
    }

    fn tokens(dev: &Dev) {
        let made = dev.meshctl(&[
            "token",
            "join",
            "host-a",
            "--node",
            "host-a",
            "--service",
            "default/orders",
            "--ttl",
            "10m",
        ]);
        has(&made.err, &["JoinToken host-a, valid until 2", "it is shown only now"]);
        let token = made.fine();
        let parts: Vec<_> = token.trim().split('.').collect();
        assert_eq!((parts[0], parts.len(), parts[2].len(), parts[3].len()), ("mesh1", 4, 64, 64), "{token}");
        let listed = dev.meshctl(&["get", "jointokens"]).fine();
        assert_eq!(rows(&listed)[1][..3], ["host-a", "host", "1"]);
        let shown = dev.meshctl(&["get", "jointoken", "host-a", "-o", "yaml"]).fine();
        assert!(!shown.contains(parts[2]), "the secret is shown once: {shown}");
        has(
            &dev.meshctl(&[
                "token",
                "join",
                "host-a",
                "--node",
                "host-a",
                "--service",
                "default/orders",
                "--ttl",
                "10m",
            ])
            .failed(1),
            &["JoinToken host-a", "exists", "delete it first"],
        );
        has(
            &dev.meshctl(&["token", "join", "s", "--server", "--ttl", "2h"]).failed(1),
            &["spec.ttl", "at most 1h for a server"],
        );
        has(
            &dev.meshctl(&["token", "join", "r", "--rejoin"]).failed(1),
            &["spec.rejoin", "exactly one name"],
        );
        let viewer = dev.meshctl(&["token", "access", "ci", "--role", "viewer"]).fine();
        let as_viewer = |arguments: &[&str]| -> Said {
            dev.command(arguments).env("MESH_TOKEN", viewer.trim()).output().expect("meshctl starts").into()
        };
        as_viewer(&["get", "svc", "-A"]).fine();
        has(
            &as_viewer(&["delete", "svc", "orders"]).failed(1),
            &["403", "needs delete on Service in namespace default"],
        );
        has(&as_viewer(&["token", "access", "more", "--role", "admin"]).failed(1), &["403"]);
        has(
            &dev.meshctl(&["token", "access", "x", "--role", "absent"]).failed(1),
            &["spec.roles[0]", "absent"],
        );
        dev.meshctl(&["delete", "accesstoken", "ci"]).fine();
        has(&as_viewer(&["get", "svc"]).failed(1), &["401"]);
    }

    fn status(dev: &Dev) {
        let text = dev.meshctl(&["status"]).fine();
        has(&text, &["members    1 of 1 reachable", "proxies    0 of 0 live", "endpoints  0 of 0 ready"]);
        let value = json(&dev.meshctl(&["status", "-o", "json"]).fine());
        assert_eq!(
            (&value["leader"], &value["members"], &value["proxies"]["live"]),
            (&1.into(), &1.into(), &0.into())
        );
        assert!(value["revision"].as_u64() > Some(0), "{value}");
        assert_eq!(
            rows(&dev.meshctl(&["proxies"]).fine()),
            [["NODE", "SESSION", "VERSION", "REVISION", "SERVICES", "LEFT", "ALONE", "REFUSED"]]
        );
        assert_eq!(json(&dev.meshctl(&["proxies", "-o", "json"]).fine())["items"], Value::Array(Vec::new()));
    }

    fn cluster(dev: &Dev) {
        let table = dev.meshctl(&["cluster", "status"]).fine();
        let table = rows(&table);
        assert_eq!(table[0][..5], ["ID", "NAME", "ROLE", "LEADER", "REACHABLE"]);
        assert_eq!((table[1][0], &table[1][2..5], table.len()), ("1", &["voter", "true", "true"][..], 2));
        let value = json(&dev.meshctl(&["cluster", "status", "-o", "json"]).fine());
        assert_eq!((&value["leader"], &value["members"][0]["leader"]), (&1.into(), &true.into()));
        has(&dev.meshctl(&["cluster", "transfer", "9"]).failed(1), &["422", "to:", "one of [1]"]);
        has(&dev.meshctl(&["cluster", "remove", "1"]).failed(1), &["409", "the only one that votes"]);
        has(&dev.meshctl(&["cluster", "remove", "9"]).failed(1), &["404", "there is no member 9"]);
    }

    fn trust(dev: &Dev, root: &str) {
        let table = dev.meshctl(&["ca", "status"]).fine();
        let table = rows(&table);
        assert_eq!(
            (table[1][0], table[1][2], table[2][0], table[2][1]),
            ("root", "Active", "intermediate", "1")
        );
        assert_eq!(dev.meshctl(&["ca", "bundle"]).fine().trim(), root.trim());
        dev.meshctl(&["ca", "distrust", "--id", "spiffe://mesh.internal/ns/default/svc/lost"]).fine();
        dev.meshctl(&["ca", "distrust", "--node", "stolen"]).fine();
        let value = json(&dev.meshctl(&["ca", "status", "-o", "json"]).fine());
        has(&value["distrusted"].to_string(), &["spiffe://mesh.internal/ns/default/svc/lost", "stolen"]);
        has(&dev.meshctl(&["ca", "distrust", "--id", "orders"]).failed(1), &["422", "spiffe://"]);
        has(
            &dev.meshctl(&["ca", "distrust", "--intermediate", "zz"]).failed(1),
            &["intermediate:", table[2][4]],
        );
        has(&dev.meshctl(&["ca", "distrust"]).failed(2), &["--node", "--id", "--intermediate"]);
    }

    fn snapshot(dev: &Dev, scratch: &Scratch) {
        let file = scratch.path().join("mesh.snapshot");
        let name = file.display().to_string();
        has(&dev.meshctl(&["snapshot", "save", &name]).fine(), &["snapshot saved to"]);
        let data = std::fs::metadata(&file).expect("it was written");
        assert!(data.len() > 500, "{data:?}");
        assert_eq!(data.permissions().mode() & 0o777, 0o600, "it holds the hashes of secrets");
        has(&dev.meshctl(&["snapshot", "save", &name]).failed(1), &["exists; name another file"]);
        let left: Vec<_> = std::fs::read_dir(scratch.path())
            .expect("a folder")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");
    }

    #[tokio::test]
    async fn connections_are_saved_and_named_and_what_fails_says_the_way_out() {
        let scratch = Scratch::new("meshctl");
        let dev = Dev::start(scratch.path()).await.expect("meshd --dev runs");
        let bare =
            |arguments: &[&str]| -> Said { dev.bare(arguments).output().expect("meshctl starts").into() };
        has(
            &bare(&["get", "svc"]).failed(1),
            &["no control plane is named", "MESH_ADDR", "meshctl context set"],
        );
        has(&dev.meshctl(&["context", "set", "dev"]).fine(), &["dev is in use"]);
        let file = dev.home().join("mesh/contexts.toml");
        assert_eq!(std::fs::metadata(&file).expect("it was saved").permissions().mode() & 0o777, 0o600);
        has(&bare(&["status"]).fine(), &["members    1 of 1 reachable"]);
        let cacert = dev.cacert.display().to_string();
        let dead = [
            "context",
            "set",
            "dead",
            "--addr",
            "https://127.0.0.1:1",
            "--token",
            &dev.token,
            "--cacert",
            &cacert,
        ];
        bare(&dead).fine();
        let listed = bare(&["context", "list"]).fine();
        assert_eq!(
            rows(&listed),
            [
                vec!["CURRENT", "NAME", "ADDR"],
                vec!["*", "dead", "https://127.0.0.1:1"],
                vec!["dev", &dev.addr]
            ]
        );
        assert!(!listed.contains(&dev.token));
        has(&bare(&["get", "svc"]).failed(1), &["https://127.0.0.1:1", "refused"]);
        bare(&["--context", "dev", "get", "svc"]).fine();
        bare(&["context", "use", "dev"]).fine();
        bare(&["get", "svc"]).fine();
        bare(&["context", "delete", "dead"]).fine();
        has(&bare(&["context", "use", "dead"]).failed(1), &["no saved connection", "context list"]);
        has(&bare(&["--context", "dead", "get", "svc"]).failed(1), &["no saved connection"]);
        wrong_connections(&dev);
        scripts(&dev);
    }

    fn wrong_connections(dev: &Dev) {
        let with = |variable: &str, value: &str| -> Said {
            dev.command(&["get", "svc"]).env(variable, value).output().expect("meshctl starts").into()
        };
        has(&with("MESH_TOKEN", &format!("mesha1.x.{}", "0".repeat(64))).failed(1), &["401"]);
        has(&with("MESH_ADDR", "http://127.0.0.1:8443").failed(1), &["must be https://"]);
        has(&with("MESH_CACERT", "/absent.pem").failed(1), &["/absent.pem"]);
        let own = dev.home().join("contexts.txt");
        std::fs::write(&own, "no certificate").expect("a file");
        has(&with("MESH_CACERT", &own.display().to_string()).failed(1), &["MESH_CACERT", "holds none"]);
        has(
            &dev.command(&["get", "svc"])
                .env_remove("MESH_CACERT")
                .env("XDG_CONFIG_HOME", "/absent")
                .output()
                .map(Said::from)
                .expect("meshctl starts")
                .failed(1),
            &["certificate"],
        );
    }

    fn scripts(dev: &Dev) {
        for (shell, word) in
            [("bash", "_meshctl()"), ("zsh", "#compdef meshctl"), ("fish", "complete -c meshctl")]
        {
            has(&dev.meshctl(&["completion", shell]).fine(), &[word, "snapshot"]);
        }
        has(&dev.meshctl(&["man"]).fine(), &[".TH meshctl", "apply"]);
        let help = dev.meshctl(&["--help"]).fine();
        for verb in [
            "apply",
            "get",
            "describe",
            "delete",
            "watch",
            "status",
            "proxies",
            "token",
            "cluster",
            "ca",
            "snapshot",
            "context",
            "completion",
        ] {
            assert!(help.lines().any(|line| line.trim_start().starts_with(verb)), "{verb} in {help}");
        }
        has(&dev.meshctl(&["--version"]).fine(), &[concat!("meshctl ", env!("CARGO_PKG_VERSION"))]);
    }
}
