//! The provider's whole life with the real Terraform against a real control plane: every attribute of every resource, what
//! others change meanwhile, what is wrong, and a leader that is killed in the middle. Nothing here is held against a clock:
//! it may run beside what needs the machine for itself.

mod life {
    use std::{
        collections::BTreeSet,
        path::{Path, PathBuf},
        time::Duration,
    };

    use mesh_tests::{
        cluster::Cluster,
        dev::Dev,
        scratch::Scratch,
        terraform::{Terraform, words},
        wait::until,
    };
    use model::{
        client::{Client, Selection},
        kind::Kind,
        object::{Key, Object},
    };
    use serde_json::{Value, json};

    const EVERY: &str = include_str!("../terraform/every.tf");
    const LEAST: &str = include_str!("../terraform/least.tf");
    const EXAMPLES: &[&str] = &[
        include_str!("../../terraform/examples/data-mesh_ca_bundle.tf"),
        include_str!("../../terraform/examples/data-mesh_cluster.tf"),
        include_str!("../../terraform/examples/data-mesh_proxies.tf"),
        include_str!("../../terraform/examples/data-mesh_service.tf"),
        include_str!("../../terraform/examples/mesh_access_token.tf"),
        include_str!("../../terraform/examples/mesh_authorization_policy.tf"),
        include_str!("../../terraform/examples/mesh_discovery_source.tf"),
        include_str!("../../terraform/examples/mesh_grpc_route.tf"),
        include_str!("../../terraform/examples/mesh_http_route.tf"),
        include_str!("../../terraform/examples/mesh_join_token.tf"),
        include_str!("../../terraform/examples/mesh_namespace.tf"),
        include_str!("../../terraform/examples/mesh_node.tf"),
        include_str!("../../terraform/examples/mesh_peer_authentication.tf"),
        include_str!("../../terraform/examples/mesh_role.tf"),
        include_str!("../../terraform/examples/mesh_service.tf"),
        include_str!("../../terraform/examples/mesh_tcp_route.tf"),
        include_str!("../../terraform/examples/mesh_traffic_policy.tf"),
    ];
    /// Attributes that the control plane of today refuses, whatever stands there, with all that is in them.
    const REFUSED: &[&str] = &[
        "mesh_authorization_policy.spec.rules.when.claim",
        "mesh_traffic_policy.spec.rate_limits.matches.source_labels",
        "mesh_http_route.spec.rules.backend_refs.filters.cors",
        "mesh_http_route.spec.rules.backend_refs.filters.direct_response",
        "mesh_http_route.spec.rules.backend_refs.filters.fault_injection",
        "mesh_http_route.spec.rules.backend_refs.filters.request_redirect",
        "mesh_grpc_route.spec.rules.backend_refs.filters.cors",
        "mesh_grpc_route.spec.rules.backend_refs.filters.direct_response",
        "mesh_grpc_route.spec.rules.backend_refs.filters.fault_injection",
        "mesh_grpc_route.spec.rules.backend_refs.filters.request_redirect",
        "mesh_grpc_route.spec.rules.backend_refs.filters.url_rewrite",
        "mesh_tcp_route.spec.rules.backend_refs.filters",
        "mesh_grpc_route.spec.rules.filters.cors",
        "mesh_grpc_route.spec.rules.filters.direct_response",
        "mesh_grpc_route.spec.rules.filters.request_redirect",
        "mesh_grpc_route.spec.rules.filters.url_rewrite",
    ];
    const SERVICE: &str = "\
resource \"mesh_service\" \"orders\" {
  namespace = \"default\"
  name      = \"orders\"
  spec      = { ports = [{ port = 80, protocol = \"http\" }] }
}
";

    async fn world(name: &str) -> (Scratch, Dev, Terraform) {
        let scratch = Scratch::new(name);
        let dev = Dev::start(scratch.path()).await.expect("meshd --dev runs");
        let terraform = Terraform::new(scratch.path(), &dev.addr, &dev.token, &dev.cacert);
        (scratch, dev, terraform)
    }

    fn key(kind: Kind, name: &str) -> Key {
        let name = name.parse().expect("a name");
        if kind.namespaced() {
            Key::namespaced(kind, "default".parse().expect("a name"), name)
        } else {
            Key::mesh_wide(kind, name)
        }
    }

    /// What somebody else does to an object meanwhile.
    async fn change(client: &Client, key: &Key, change: impl Fn(&mut Object)) {
        let mut object = client.get(key).await.expect("it is there");
        change(&mut object);
        client.put(&object).await.expect("it is taken");
    }

    fn has(text: &str, wanted: &[&str]) {
        for words in wanted {
            assert!(text.contains(words), "no {words:?} in:\n{text}");
        }
    }

    /// All attributes that users may write, by their paths.
    fn attributes(fields: &Value, at: &str, into: &mut BTreeSet<String>) {
        for (name, field) in fields.as_object().into_iter().flatten() {
            let path = format!("{at}.{name}");
            attributes(&field["nested_type"]["attributes"], &path, into);
            if field["computed"] != true {
                into.insert(path);
            }
        }
    }

    /// Those that have a value.
    fn set(value: &Value, at: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Null => {}
            Value::Array(elements) => {
                into.insert(at.to_owned());
                elements.iter().for_each(|element| set(element, at, into));
            }
            Value::Object(fields) => {
                into.insert(at.to_owned());
                fields.iter().for_each(|(name, field)| set(field, &format!("{at}.{name}"), into));
            }
            _ => drop(into.insert(at.to_owned())),
        }
    }

    #[tokio::test]
    async fn each_attribute_of_each_resource_is_applied_imported_and_leaves_nothing_to_plan() {
        let (_scratch, dev, terraform) = world("terraform-every").await;
        let all = format!("{EVERY}{LEAST}");
        let workspace = terraform.workspace("every", &all);
        workspace.apply();
        assert_eq!(workspace.changes(), None, "a plan after an apply is empty");

        let schemas = workspace.json(&["providers", "schema"]);
        let schemas = &schemas["provider_schemas"]["mesh.internal/mesh/mesh"]["resource_schemas"];
        let shown = workspace.json(&["show"]);
        let resources = shown["values"]["root_module"]["resources"].as_array().expect("resources");
        let (mut all_of_them, mut written) = (BTreeSet::new(), BTreeSet::new());
        for (name, schema) in schemas.as_object().expect("schemas") {
            attributes(&schema["block"]["attributes"], name, &mut all_of_them);
        }
        for resource in resources {
            set(&resource["values"], resource["type"].as_str().expect("a type"), &mut written);
        }
        let refused = |path: &&String| REFUSED.iter().any(|refused| path.starts_with(refused));
        let missing: Vec<_> = all_of_them.difference(&written).filter(|path| !refused(path)).collect();
        assert!(missing.is_empty(), "in no example: {missing:?}");

        let imports = resources.iter().map(|resource| {
            let name = |field: &str| resource["values"][field].as_str();
            let id = name("namespace").into_iter().chain(name("name")).collect::<Vec<_>>().join("/");
            format!(
                "import {{\n  to = {}\n  id = \"{id}\"\n}}\n",
                resource["address"].as_str().expect("an address")
            )
        });
        let another = terraform.workspace("imported", &all);
        another.write("imports.tf", &imports.collect::<String>());
        // What is left out, and what is empty, is one to the API: there the words are set to those of the configuration.
        let said = another.apply();
        has(&said, &[&format!("{} imported, 0 added", resources.len()), "0 destroyed"]);
        assert_eq!(another.changes(), None, "nor after an import");

        workspace.run(&["destroy", "-auto-approve"]).fine();
        let client = dev.client().expect("a client");
        let left = client.list(Kind::Service, &Selection::default()).await.expect("services");
        assert!(left.items.is_empty(), "{:?}", left.items);
        has(&another.changes().expect("all is gone"), &[&format!("{} to add", resources.len())]);
    }

    #[tokio::test]
    async fn the_examples_of_all_pages_apply() {
        let (_scratch, dev, terraform) = world("terraform-pages").await;
        let workspace = terraform.workspace("pages", &EXAMPLES.concat());
        workspace.apply();
        assert_eq!(workspace.changes(), None);
        let outputs = workspace.json(&["output"]);
        assert_eq!(outputs["orders_address"]["value"], json!("240.0.0.1"));
        has(outputs["roots"]["value"].as_str().expect("a text"), &["-----BEGIN CERTIFICATE-----"]);
        assert_eq!(outputs["hosts_that_refuse_their_configuration"]["value"], json!([]));

        // The secret is hidden from people, and is the token that it says.
        assert_eq!(outputs["ci_token"]["sensitive"], json!(true));
        let token = outputs["ci_token"]["value"].as_str().expect("a token").to_owned();
        let shown = workspace.run(&["show", "-no-color"]).fine();
        assert!(!shown.contains(&token) && shown.contains("(sensitive value)"), "{shown}");
        let bearer = dev.command(&["get", "services", "-o", "json"]).env("MESH_TOKEN", &token).output();
        assert!(bearer.expect("meshctl starts").status.success());

        // One page's import is typed as it stands; Terraform is told the others' at once, which is the same for it.
        let taken = terraform.workspace("taken", &EXAMPLES.concat());
        let lines = import_lines();
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        taken.run(&words[0][1..]).fine();
        let rest = words[1..].iter().map(|words| {
            let [_, _, to, id] = words[..] else { panic!("{words:?}") };
            format!("import {{\n  to = {to}\n  id = \"{id}\"\n}}\n")
        });
        taken.write("imports.tf", &rest.collect::<String>());
        has(&taken.apply(), &[&format!("{} imported, 0 added, ", words.len() - 1), " 0 destroyed"]);
        assert_eq!(taken.changes(), None);
    }

    /// What the pages say that is typed, one line for each resource.
    fn import_lines() -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/terraform");
        let pages = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let text = |page: PathBuf| std::fs::read_to_string(page).expect("a page");
        let mut lines: Vec<String> = pages
            .flat_map(|page| {
                let text = text(page);
                let typed = text.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
                typed.map(|(line, _)| line.to_owned()).collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        assert!(lines.iter().all(|line| line.starts_with("terraform import ")), "{lines:?}");
        let resources = EXAMPLES.iter().filter(|example| example.starts_with("resource ")).count();
        assert_eq!(lines.len(), resources, "each resource's page says how it is imported: {lines:?}");
        lines
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_before_anything_is_done() {
        let (_scratch, dev, terraform) = world("terraform-wrong").await;
        let wrong = "\
variable \"port\" { type = number }
resource \"mesh_service\" \"wrong\" {
  namespace = \"default\"
  name      = \"Wrong\"
  labels    = { \"-key\" = \"v\" }
  spec      = { ports = [{ port = 70000, protocol = \"smtp\" }, { port = var.port, protocol = \"smtp\" }] }
}
";
        let workspace = terraform.workspace("wrong", wrong);
        // Without a control plane, and with a port that is not known yet.
        let told = workspace.json(&["validate"]);
        let told: BTreeSet<_> = told["diagnostics"]
            .as_array()
            .expect("some")
            .iter()
            .map(|one| one["detail"].to_string())
            .collect();
        let told = told.into_iter().collect::<Vec<_>>().join("\n");
        has(
            &told,
            &[
                "metadata.name: ",
                "metadata.labels.-key: a label's key must",
                "spec.ports[0].port: must be a whole number from 1 to 65535, is 70000",
            ],
        );
        has(&told, &["spec.ports[0].protocol: must be one of http, http2, grpc, tcp, tls, auto"]);
        assert!(!told.contains("spec.ports[1]"), "its port may make it right: {told}");

        // By the dry run: what only the servers know. The namespace that the same plan makes is no fault.
        let unknown = "\
resource \"mesh_namespace\" \"shop\" { name = \"shop\" }
resource \"mesh_service\" \"fine\" {
  namespace = mesh_namespace.shop.name
  name      = \"fine\"
  spec      = { ports = [{ port = 80 }] }
}
resource \"mesh_service\" \"lost\" {
  namespace = \"nowhere\"
  name      = \"lost\"
  spec      = { ports = [{ port = 80 }] }
}
resource \"mesh_access_token\" \"ci\" {
  name = \"ci\"
  spec = { roles = [\"viewer\", \"nobody\"] }
}
";
        workspace.write("main.tf", unknown);
        let told = workspace.refused(&["plan"]);
        has(&told, &["Service nowhere/lost would be refused", "spec.roles[1]: role nobody does not exist"]);
        assert!(!told.contains("shop/fine"), "{told}");

        dev.client().expect("a client").put(&service()).await.expect("it is taken");
        workspace.write("main.tf", SERVICE);
        let plan = words(&workspace.run(&["plan"]).fine());
        has(
            &plan,
            &["Service default/orders exists already", "terraform import mesh_service.NAME default/orders"],
        );
        has(
            &workspace.refused(&["apply", "-auto-approve"]),
            &["Error: Service default/orders exists already"],
        );
        has(
            &workspace.refused(&["import", "mesh_service.orders", "orders"]),
            &["is imported by NAMESPACE/NAME"],
        );
        workspace.run(&["import", "mesh_service.orders", "default/orders"]).fine();
        assert_eq!(workspace.changes(), None);
    }

    fn service() -> Object {
        let spec = json!({"ports": [{"port": 80, "protocol": "http"}]});
        Object::new(key(Kind::Service, "orders"), spec.as_object().expect("an object").clone())
    }

    #[tokio::test]
    async fn what_others_change_is_planned_or_a_conflict_and_never_overwritten() {
        let (_scratch, dev, terraform) = world("terraform-drift").await;
        let (client, orders) = (dev.client().expect("a client"), key(Kind::Service, "orders"));
        let workspace = terraform.workspace("drift", SERVICE);
        workspace.apply();

        // Before the plan: it shows, and apply puts it right.
        change(&client, &orders, |object| object.spec["ports"][0]["protocol"] = json!("grpc")).await;
        has(&words(&workspace.changes().expect("a difference")), &["~ protocol = \"grpc\" -> \"http\""]);
        workspace.apply();
        assert_eq!(client.get(&orders).await.expect("it is there").spec, service().spec);

        // Between plan and apply: nothing is overwritten.
        let updated = SERVICE.replace("protocol = \"http\"", "protocol = \"http2\"");
        workspace.write("main.tf", &updated);
        workspace.run(&["plan", "-out=saved"]).fine();
        change(&client, &orders, |object| object.spec["ports"][0]["port"] = json!(81)).await;
        has(
            &workspace.refused(&["apply", "saved"]),
            &["Service default/orders was changed elsewhere", "Nothing was overwritten"],
        );
        assert_eq!(client.get(&orders).await.expect("it is there").spec["ports"][0]["port"], json!(81));
        workspace.run(&["plan", "-destroy", "-out=saved"]).fine();
        change(&client, &orders, |object| object.spec["ports"][0]["port"] = json!(82)).await;
        has(&workspace.refused(&["apply", "saved"]), &["was changed elsewhere"]);
        workspace.apply();
        assert_eq!(
            client.get(&orders).await.expect("it is there").spec["ports"][0],
            json!({"port": 80, "protocol": "http2"})
        );

        // Written, but saying the same: no conflict.
        workspace.write("main.tf", SERVICE);
        workspace.run(&["plan", "-out=saved"]).fine();
        change(&client, &orders, |object| object.spec["ports"][0]["port"] = json!(83)).await;
        change(&client, &orders, |object| object.spec["ports"][0]["port"] = json!(80)).await;
        workspace.run(&["apply", "saved"]).fine();
        assert_eq!(workspace.changes(), None);

        // Removed: made anew. Annotations of others show, too.
        client.delete(&orders).await.expect("it is removed");
        has(&workspace.apply(), &["1 added, 0 changed"]);
        change(&client, &orders, |object| {
            let note = serde_json::from_value(json!({"example.com/by": "hand"})).expect("annotations");
            object.metadata.annotations = note;
        })
        .await;
        has(&workspace.changes().expect("a difference"), &["example.com/by"]);
    }

    #[tokio::test]
    async fn what_can_be_changed_is_changed_in_place_and_all_else_is_replaced() {
        let (_scratch, dev, terraform) = world("terraform-replace").await;
        let client = dev.client().expect("a client");
        let token = |name: &str, roles: &str, label: &str| {
            format!(
                "resource \"mesh_access_token\" \"ci\" {{\n  name = \"{name}\"\n  labels = {{ by = \"{label}\" }}\n  spec = {{ roles = [{roles}] }}\n}}\n\
                 output \"token\" {{\n  value = mesh_access_token.ci.token\n  sensitive = true\n}}\n"
            )
        };
        let workspace = terraform.workspace("replace", &token("ci", "\"viewer\"", "a"));
        workspace.apply();
        let secret = || workspace.json(&["output"])["token"]["value"].as_str().expect("a token").to_owned();
        let first = secret();
        workspace.write("main.tf", &token("ci", "\"viewer\"", "b"));
        has(&workspace.apply(), &["0 added, 1 changed, 0 destroyed"]);
        assert_eq!(secret(), first, "a label is not what it was given out for");
        workspace.write("main.tf", &token("ci", "\"viewer\", \"operator\"", "b"));
        let plan = workspace.changes().expect("a difference");
        has(&plan, &["must be replaced", "# forces replacement", "1 to add, 0 to change, 1 to destroy"]);
        assert!(!plan.contains("Warning"), "{plan}");
        has(&workspace.apply(), &["1 added, 0 changed, 1 destroyed"]);
        let second = secret();
        assert_ne!(second, first);
        // As it is marked where its secret was lost on the way.
        workspace.run(&["taint", "mesh_access_token.ci"]).fine();
        has(&workspace.apply(), &["1 added, 0 changed, 1 destroyed"]);
        let third = secret();
        assert_ne!(third, second);
        workspace.write("main.tf", &token("renamed", "\"viewer\", \"operator\"", "b"));
        has(&workspace.apply(), &["1 added, 0 changed, 1 destroyed"]);
        assert_ne!(secret(), third);
        let gone = client.get(&key(Kind::AccessToken, "ci")).await.expect_err("it is gone");
        assert_eq!(gone.status(), Some(404));
    }

    #[tokio::test]
    async fn two_workspaces_at_once_do_not_disturb_each_other() {
        let (_scratch, dev, terraform) = world("terraform-two").await;
        let many = |first: char| {
            let services = SERVICE.replace("\"orders\" {", "\"many\" {\n  count = 40");
            services.replace("name      = \"orders\"", &format!("name      = \"{first}-${{count.index}}\""))
        };
        let workspaces = ['a', 'b'].map(|first| terraform.workspace(&first.to_string(), &many(first)));
        let running = workspaces.each_ref().map(|workspace| workspace.start(&["apply", "-auto-approve"]));
        running.into_iter().for_each(mesh_tests::terraform::Running::fine);
        let client = dev.client().expect("a client");
        let services = client.list(Kind::Service, &Selection::default()).await.expect("services");
        assert_eq!(services.items.len(), 80);
        for workspace in &workspaces {
            assert_eq!(workspace.changes(), None);
        }

        // One object of both: the second is told, whatever the plan said.
        let mine = terraform.workspace("mine", SERVICE);
        let theirs = terraform.workspace("theirs", SERVICE);
        theirs.run(&["plan", "-out=saved"]).fine();
        mine.apply();
        has(&theirs.refused(&["apply", "saved"]), &["Service default/orders exists already"]);
    }

    #[tokio::test]
    async fn an_apply_goes_on_when_the_leader_is_killed_in_the_middle() {
        let scratch = Scratch::new("terraform-failover");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three members");
        let addresses: Vec<_> = cluster.members.iter().map(mesh_tests::cluster::Member::url).collect();
        let terraform = Terraform::new(scratch.path(), &addresses.join(","), &cluster.token, &cluster.cacert);
        let services = SERVICE.replace("\"orders\" {", "\"many\" {\n  count = 150");
        let services = services.replace("name      = \"orders\"", "name      = \"many-${count.index}\"");
        let workspace = terraform.workspace("failover", &services);
        let leader = cluster.leader().await.expect("a leader");
        // The first address is the one that dies.
        let other = cluster.client((leader + 1) % 3).expect("a client");
        let apply = workspace.start(&["apply", "-auto-approve", "-parallelism=4"]);
        let count = || async {
            let services =
                other.list(Kind::Service, &Selection::default()).await.map_err(|error| error.to_string())?;
            let count = services.items.len();
            if count >= 10 { Ok(count) } else { Err(format!("{count} services")) }
        };
        let begun =
            until("an apply that has begun", Duration::from_secs(60), count).await.expect("it begins");
        cluster.members[leader].kill();
        assert!(begun < 150, "the leader was killed after the end");
        apply.fine();
        let services = other.list(Kind::Service, &Selection::default()).await.expect("services");
        assert_eq!(services.items.len(), 150);
        assert_eq!(workspace.changes(), None);
    }
}
