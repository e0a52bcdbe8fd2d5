//! Services from directories that are not ours, beside Consul: what they say stands in the registry soon, and goes when it
//! goes there; and real proxies call it.

use std::{net::Ipv4Addr, path::Path};

use mesh_tests::{
    dnsmasq::Dnsmasq,
    elsewhere::Elsewhere,
    eureka::{self, Eureka},
    fake::Fake,
    kubernetes::{self, Kubernetes},
    nomad::{self, Nomad},
    python,
};

#[tokio::test]
async fn what_other_directories_say_stands_here_and_goes_when_it_goes_there() {
    let mesh = Elsewhere::open("peers", 1).await;
    let folder = mesh.scratch.path().to_owned();
    dns(&mesh, &folder, mesh.cluster.network.address(20)).await;
    of_nomad(&mesh).await;
    of_eureka(&mesh).await;
    of_kubernetes(&mesh).await;
}

/// A source that follows this cluster.
fn cluster(mesh: &Elsewhere, fake: &Fake<Kubernetes>) -> String {
    let token = mesh.scratch.write("kubernetes.token", kubernetes::TOKEN);
    format!(
        "{{type: Kubernetes, kubernetes: {{address: {:?}, tokenFile: {token:?}}}, filter: {{tags: [team=shop]}}}}",
        fake.url
    )
}

/// A source that follows this Nomad.
fn nomad(mesh: &Elsewhere, fake: &Fake<Nomad>) -> String {
    let token = mesh.scratch.write("nomad.token", nomad::TOKEN);
    format!(
        "{{type: Nomad, nomad: {{address: {:?}, tokenFile: {token:?}, namespace: \"*\"}}, filter: {{tags: [mesh]}}}}",
        fake.url
    )
}

/// A source that follows this Eureka.
fn eureka(mesh: &Elsewhere, fake: &Fake<Eureka>, more: &str) -> String {
    let (address, password) =
        (format!("{}/eureka", fake.url), mesh.scratch.write("eureka.password", eureka::SECRET));
    format!("{{type: Eureka, eureka: {{address: {address:?}, passwordFile: {password:?}, every: 1s}}{more}}}")
}

/// EndpointSlices, from a server of the tests' own.
async fn of_kubernetes(mesh: &Elsewhere) {
    let fake = Fake::start(Kubernetes::default()).await;
    fake.api.put("shop/one parcels 8080", &["10.0.3.1 ready", "10.0.3.2 not"]);
    mesh.follow("old-cluster", &cluster(mesh, &fake)).await;
    mesh.has("old-cluster", &["parcels 10.0.3.1 8080 Healthy", "parcels 10.0.3.2 8080 Unhealthy"]).await;
    fake.api.put("shop/two parcels 8081", &["10.0.3.3 ready"]);
    fake.api.put("shop/one parcels 8080", &["10.0.3.1 serving"]);
    mesh.has("old-cluster", &["parcels 10.0.3.1 8080 Draining", "parcels 10.0.3.3 8081 Healthy"]).await;
    fake.api.remove("shop/one");
    fake.api.compact();
    mesh.has("old-cluster", &["parcels 10.0.3.3 8081 Healthy"]).await;
}

/// What a client that is not ours makes of the server that stands for Kubernetes.
#[tokio::test]
async fn a_client_of_kubernetes_takes_the_one_of_the_tests_for_a_cluster() {
    let fake = Fake::start(Kubernetes::default()).await;
    for (slice, address) in [
        ("shop/a orders 8080", "10.0.3.1"),
        ("shop/b orders 8080", "10.0.3.2"),
        ("default/c web 80", "10.0.3.3"),
    ] {
        fake.api.put(slice, &[&format!("{address} ready")]);
    }
    let program = include_str!("../programs/kubernetes_slices.py");
    let client = async |step: &str| {
        let said = python::run(program, &[&fake.url, kubernetes::TOKEN, step]).await.expect("it runs");
        assert_eq!(said.trim(), "as it should be", "{step}");
    };
    client("all").await;
    fake.api.compact();
    client("gone").await;
}

/// What a client that is not ours registers at the Eureka of the tests, and reads back, in XML, as it should be.
async fn of_eureka(mesh: &Elsewhere) {
    let fake = Fake::start(Eureka::default()).await;
    let said_by = fake.url.replacen("http://", "http://mesh:secret@", 1);
    let client = async |step: &str| {
        let program = include_str!("../programs/eureka_client.py");
        let said = python::run(program, &[&format!("{said_by}/eureka"), step]).await.expect("it runs");
        assert_eq!(said.trim(), "as it should be", "{step}");
    };
    client("register").await;
    mesh.follow("old-eureka", &eureka(mesh, &fake, ", filter: {tags: [team=shop]}")).await;
    mesh.has("old-eureka", &["legacy 10.0.2.1 8080 Healthy", "legacy 10.0.2.2 8080 Healthy"]).await;
    client("change").await;
    mesh.has("old-eureka", &["legacy 10.0.2.1 8080 Draining"]).await;
    client("cancel").await;
    mesh.has("old-eureka", &[]).await;
}

/// Nomad's own services, from a server of the tests' own.
async fn of_nomad(mesh: &Elsewhere) {
    let fake = Fake::start(Nomad::default()).await;
    fake.api.put("default", "cart", &["1 10.0.1.1 8080 mesh,v2"]);
    fake.api.put("shop", "stock", &["2 10.0.1.2 8080 other"]);
    mesh.follow("old-nomad", &nomad(mesh, &fake)).await;
    mesh.has("old-nomad", &["cart 10.0.1.1 8080 Healthy"]).await;
    fake.api.put("shop", "stock", &["2 10.0.1.2 8080 mesh"]);
    fake.api.put("default", "cart", &["3 10.0.1.3 8081 mesh"]);
    mesh.has("old-nomad", &["cart 10.0.1.3 8081 Healthy", "stock 10.0.1.2 8080 Healthy"]).await;
    fake.api.put("default", "cart", &[]);
    mesh.has("old-nomad", &["stock 10.0.1.2 8080 Healthy"]).await;
}

/// What a client that is not ours makes of the server that stands for Nomad.
#[tokio::test]
async fn a_client_of_nomad_s_takes_the_one_of_the_tests_for_nomad() {
    let fake = Fake::start(Nomad::default()).await;
    fake.api.put("default", "cart", &["1 10.0.1.1 8080 mesh,v2"]);
    fake.api.put("shop", "stock", &["2 10.0.1.2 8080 mesh"]);
    let said = python::run(include_str!("../programs/nomad_services.py"), &[&fake.url, nomad::TOKEN]).await;
    assert_eq!(said.expect("it runs").trim(), "as it should be");
}

/// Names of a real DNS server.
async fn dns(mesh: &Elsewhere, folder: &Path, address: Ipv4Addr) {
    let server = Dnsmasq::start(folder, address, &["--srv-host=_billing._tcp.example,b.example,9002,0,5"]);
    let server = server.await.expect("dnsmasq");
    let at = |last| Ipv4Addr::new(10, 0, 0, last);
    server.set(&[("orders.example", at(1)), ("orders.example", at(2)), ("b.example", at(3))]).expect("set");
    let spec = format!(
        "{{type: DNS, dns: {{servers: [{:?}], services: [{{name: orders, host: orders.example, port: 8080}}, {{name: billing, srv: _billing._tcp.example}}]}}, stalePolicy: {{after: 3s}}}}",
        server.at()
    );
    mesh.follow("names", &spec).await;
    let billing = "billing 10.0.0.3 9002 Healthy";
    mesh.has("names", &[billing, "orders 10.0.0.1 8080 Healthy", "orders 10.0.0.2 8080 Healthy"]).await;
    server.set(&[("orders.example", at(2)), ("b.example", at(3))]).expect("set");
    mesh.has("names", &[billing, "orders 10.0.0.2 8080 Healthy"]).await;
    server.set(&[("b.example", at(3))]).expect("set");
    mesh.has("names", &[billing]).await;
    // That there is no such name is an answer.
    mesh.stands("names", "Synced", "").await;
    server.hang();
    mesh.stands("names", "Stale", "does not answer").await;
    mesh.has("names", &[billing]).await;
}

/// A real proxy calls what directories list, and goes on through the death of the leader that follows them.
mod patient {
    use std::net::Ipv4Addr;

    use mesh_tests::{
        backend::Backend,
        dnsmasq::Dnsmasq,
        elsewhere::{Caller, Elsewhere, PATIENCE, SOON},
        eureka::Eureka,
        fake::Fake,
        kubernetes::Kubernetes,
        nomad::Nomad,
        wait::until,
    };
    use serde_json::Value;

    use super::{cluster, eureka, nomad};

    #[tokio::test]
    async fn what_a_cluster_lists_is_called_within_two_seconds_and_no_call_fails_when_the_leader_is_killed() {
        let mut mesh = Elsewhere::open("cluster", 3).await;
        // Where an endpoint is tells it from others.
        let [here, there] = [21, 22].map(|n| mesh.cluster.network.address(n));
        let (first, second) =
            (Backend::start_at("first", here).await, Backend::start_at("second", there).await);
        let (first, second) = (first.expect("an application"), second.expect("an application"));
        let fake = Fake::start(Kubernetes::default()).await;
        let list = |slice: &str, at: Ipv4Addr, one: &Backend| {
            fake.api.put(&format!("shop/{slice} parcels {}", one.port), &[&format!("{at} ready")]);
        };
        list("one", here, &first);
        let caller = mesh.caller(&[("parcels", 9_001)]).await;
        mesh.follow("old-cluster", &cluster(&mesh, &fake)).await;
        caller.answers("parcels", "first for nobody", PATIENCE).await;
        list("one", there, &second);
        caller.answers("parcels", "second for nobody", SOON).await;
        // All at once: one comes, one goes, and so does whoever follows them. Soon after the next one leads, it holds.
        let calls = caller.calls("parcels");
        list("two", here, &first);
        fake.api.remove("shop/one");
        mesh.lose_leader().await;
        alone(&caller, "first for nobody").await;
        calls.without("second for nobody");
        mesh.has("old-cluster", &[&format!("parcels {here} {} Healthy", first.port)]).await;
        // It listed anew, and watches from there.
        list("one", there, &second);
        calls.without("nobody");
        fake.api.remove("shop/two");
        alone(&caller, "second for nobody").await;
        calls.without("first for nobody");
        mesh.has("old-cluster", &[&format!("parcels {there} {} Healthy", second.port)]).await;
        calls.end().await;
    }

    /// Soon this one alone answers: ten calls in a row.
    async fn alone(caller: &Caller, want: &str) {
        until(&format!("{want} alone answers"), SOON, || async {
            for _ in 0..10 {
                let said = caller.call("parcels").await?;
                if said != want {
                    return Err(said);
                }
            }
            Ok(())
        })
        .await
        .expect("in time");
    }

    #[tokio::test]
    async fn what_nomad_and_eureka_list_is_called() {
        let (first, second) = (Backend::start("first").await, Backend::start("second").await);
        let (first, second) = (first.expect("an application"), second.expect("an application"));
        let (of_nomad, of_eureka) =
            (Fake::start(Nomad::default()).await, Fake::start(Eureka::default()).await);
        of_nomad.api.put("default", "cart", &[&format!("1 127.0.0.1 {} mesh", first.port)]);
        of_eureka.api.put(&format!("LEGACY one 127.0.0.1 {} UP", first.port));
        let mesh = Elsewhere::open("called", 1).await;
        let caller = mesh.caller(&[("cart", 9_001), ("legacy", 9_002)]).await;
        mesh.follow("old-nomad", &nomad(&mesh, &of_nomad)).await;
        mesh.follow("old-eureka", &eureka(&mesh, &of_eureka, "")).await;
        caller.answers("cart", "first for nobody", PATIENCE).await;
        caller.answers("legacy", "first for nobody", PATIENCE).await;
        of_nomad.api.put("default", "cart", &[&format!("2 127.0.0.1 {} mesh", second.port)]);
        caller.answers("cart", "second for nobody", SOON).await;
        of_eureka.api.put(&format!("LEGACY one 127.0.0.1 {} UP", second.port));
        // It is asked each second.
        caller.answers("legacy", "second for nobody", PATIENCE).await;
    }

    /// Two names of a real DNS server, which asks another one for the second.
    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_is_kept_and_marked_and_the_other_is_followed() {
        let mesh = Elsewhere::open("half", 1).await;
        let [near, far] = [20, 21].map(|n| mesh.cluster.network.address(n));
        let folder = mesh.scratch.path().join("far");
        std::fs::create_dir(&folder).expect("a folder");
        let other = Dnsmasq::start(&folder, far, &[]).await.expect("dnsmasq");
        let asks = format!("--server=/far.example/{far}#5353");
        let server = Dnsmasq::start(mesh.scratch.path(), near, &[&asks]).await.expect("dnsmasq");
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        server.set(&[("near.example", at(1))]).expect("set");
        other.set(&[("a.far.example", at(9))]).expect("set");
        let spec = format!(
            "{{type: DNS, dns: {{servers: [{:?}], services: [{{name: near, host: near.example, port: 80}}, {{name: far, host: a.far.example, port: 80}}]}}, stalePolicy: {{after: 3s}}}}",
            server.at()
        );
        mesh.follow("half", &spec).await;
        let far = "far 10.0.0.9 80 Healthy";
        mesh.has("half", &[far, "near 10.0.0.1 80 Healthy"]).await;
        other.hang();
        mesh.stands("half", "Synced", "service \"far\" is stale: ").await;
        server.set(&[("near.example", at(2))]).expect("set");
        mesh.has("half", &[far, "near 10.0.0.2 80 Healthy"]).await;
        until("the one alone is marked", PATIENCE, || async {
            let all = mesh.get(&["endpoints"]).await["items"].take();
            let stale =
                |one: &Value| format!("{} {}", one["spec"]["service"], one["status"]["stale"] == true);
            let marks: Vec<_> = all.as_array().into_iter().flatten().map(stale).collect();
            if marks == ["\"far\" true", "\"near\" false"] { Ok(()) } else { Err(format!("{marks:?}")) }
        })
        .await
        .expect("in time");
        other.go_on();
        mesh.stands("half", "Synced", "").await;
    }
}
