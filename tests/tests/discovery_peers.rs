//! Services from directories that are not ours, beside Consul: what they say stands in the registry soon, and goes when it
//! goes there. That proxies call it is seen in discovery.rs.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use mesh_tests::{
    cluster::Cluster,
    dnsmasq::Dnsmasq,
    eureka::{self, Eureka},
    fake::Fake,
    kubernetes::{self, Kubernetes},
    nomad::{self, Nomad},
    python,
    scratch::Scratch,
    wait::until,
};
use serde_json::Value;

/// How long the mesh may take to do what it does by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// One server, and the directories that it follows.
struct Mesh {
    scratch: Scratch,
    cluster: Cluster,
}

impl Mesh {
    async fn follow(&self, name: &str, spec: &str) {
        let manifest = format!("{{kind: DiscoverySource, metadata: {{name: {name}}}, spec: {spec}}}");
        let file = self.scratch.write("source.yaml", manifest).display().to_string();
        self.cluster.said(&["apply", "-f", &file]).await.fine();
    }

    async fn get(&self, what: &[&str]) -> Value {
        let said = self.cluster.said(&[&["get"][..], what, &["-o", "json"]].concat()).await.fine();
        serde_json::from_str(&said).expect("JSON")
    }

    /// The endpoints that a source brought become these: `service address port health`.
    async fn has(&self, source: &str, want: &[&str]) {
        until(&format!("{source} brought {want:?}"), PATIENCE, || async {
            let all = self.get(&["endpoints"]).await;
            let mut has: Vec<_> = all["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|one| {
                    let spec = &one["spec"];
                    let own = spec["source"] == format!("discovery/{source}");
                    let (service, address) = (spec["service"].as_str()?, spec["address"].as_str()?);
                    let (port, health) = (&spec["ports"][0]["targetPort"], one["status"]["health"].as_str()?);
                    own.then(|| format!("{service} {address} {port} {health}"))
                })
                .collect();
            has.sort();
            if has == want { Ok(()) } else { Err(format!("{has:?}")) }
        })
        .await
        .expect("in time");
    }

    /// The status of a source becomes so, with such an error.
    async fn stands(&self, source: &str, state: &str, error: &str) {
        until(&format!("{source} is {state}: {error}"), PATIENCE, || async {
            let status = self.get(&["discoverysource", source]).await["status"].clone();
            let says = status["error"]
                .as_str()
                .is_some_and(|says| says.contains(error) && (says.is_empty() == error.is_empty()));
            if status["state"] == state && says { Ok(()) } else { Err(status.to_string()) }
        })
        .await
        .expect("in time");
    }
}

#[tokio::test]
async fn what_other_directories_say_stands_here_and_goes_when_it_goes_there() {
    let scratch = Scratch::new("peers");
    let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
    let folder = scratch.path().to_owned();
    let address = cluster.network.address(20);
    let mesh = Mesh { scratch, cluster };
    dns(&mesh, &folder, address).await;
    of_nomad(&mesh).await;
    of_eureka(&mesh).await;
    of_kubernetes(&mesh).await;
}

/// EndpointSlices, from a server of the tests' own.
async fn of_kubernetes(mesh: &Mesh) {
    let fake = Fake::start(Kubernetes::default()).await;
    fake.api.put("shop/one parcels 8080", &["10.0.3.1 ready", "10.0.3.2 not"]);
    let token = mesh.scratch.write("kubernetes.token", kubernetes::TOKEN).display().to_string();
    let spec = format!(
        "{{type: Kubernetes, kubernetes: {{address: {:?}, tokenFile: {token:?}}}, filter: {{tags: [team=shop]}}}}",
        fake.url
    );
    mesh.follow("old-cluster", &spec).await;
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
async fn of_eureka(mesh: &Mesh) {
    let fake = Fake::start(Eureka::default()).await;
    let address = format!("{}/eureka", fake.url);
    let said_by = fake.url.replacen("http://", "http://mesh:secret@", 1);
    let client = async |step: &str| {
        let program = include_str!("../programs/eureka_client.py");
        let said = python::run(program, &[&format!("{said_by}/eureka"), step]).await.expect("it runs");
        assert_eq!(said.trim(), "as it should be", "{step}");
    };
    client("register").await;
    let password = mesh.scratch.write("eureka.password", eureka::SECRET).display().to_string();
    let spec = format!(
        "{{type: Eureka, eureka: {{address: {address:?}, passwordFile: {password:?}, every: 1s}}, filter: {{tags: [team=shop]}}}}"
    );
    mesh.follow("old-eureka", &spec).await;
    mesh.has("old-eureka", &["legacy 10.0.2.1 8080 Healthy", "legacy 10.0.2.2 8080 Healthy"]).await;
    client("change").await;
    mesh.has("old-eureka", &["legacy 10.0.2.1 8080 Draining"]).await;
    client("cancel").await;
    mesh.has("old-eureka", &[]).await;
}

/// Nomad's own services, from a server of the tests' own.
async fn of_nomad(mesh: &Mesh) {
    let fake = Fake::start(Nomad::default()).await;
    fake.api.put("default", "cart", &["1 10.0.1.1 8080 mesh,v2"]);
    fake.api.put("shop", "stock", &["2 10.0.1.2 8080 other"]);
    let token = mesh.scratch.write("nomad.token", nomad::TOKEN).display().to_string();
    let spec = format!(
        "{{type: Nomad, nomad: {{address: {:?}, tokenFile: {token:?}, namespace: \"*\"}}, filter: {{tags: [mesh]}}}}",
        fake.url
    );
    mesh.follow("old-nomad", &spec).await;
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
async fn dns(mesh: &Mesh, folder: &Path, address: Ipv4Addr) {
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
