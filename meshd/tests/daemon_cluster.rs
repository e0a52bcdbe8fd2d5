//! Several servers: made by init and join, with mTLS among them, through the loss of a leader and restarts.

mod world;

use std::{fs, io::Write, sync::Arc, time::Duration};

use ca::{Csr, Grant, Intermediate, Root, Serial, Ttl};
use meshd::{
    authority::{Authority, Opening},
    peer::{IntermediateAnswer, IntermediateRequest, Peer},
};
use model::identity::{SpiffeId, TrustDomain};
use reqwest::Method;
use serde_json::{Value, json};
use svid::{Expect, IdentitySlot, KeyRequest, Svid};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;
use world::{
    Host, Operator,
    cluster::{Cluster, Place, sealed_by},
    eventually,
};

async fn write(operator: &Operator, name: &str) -> Option<u16> {
    let path = format!("/v1/namespaces/default/services/{name}");
    let body = json!({"metadata": {"namespace": "default", "name": name}, "spec": {"ports": [{"port": 80}]}});
    operator.try_ask(Method::PUT, &path, Some(body)).await.map(|answer| answer.status)
}

async fn read(operator: &Operator, name: &str) -> Option<u16> {
    let answer =
        operator.try_ask(Method::GET, &format!("/v1/namespaces/default/services/{name}"), None).await;
    answer.map(|answer| answer.status)
}

#[tokio::test]
async fn three_servers_take_writes_anywhere_and_outlive_their_leader() {
    let mut cluster = Cluster::of_three().await;
    let first = cluster.leader(None).await;
    let follower = cluster.alive().into_iter().find(|id| *id != first).expect("three members");
    assert_eq!(write(&cluster.at(follower), "before").await, Some(201));
    for id in cluster.alive() {
        assert_eq!(read(&cluster.at(id), "before").await, Some(200), "member {id}");
    }
    cluster.kill(first);
    let killed = meshd::clock::now();
    let heir = cluster.at(follower);
    eventually("writes go on", async || {
        (write(&heir, "after").await.is_some_and(|status| status < 300)).then_some(())
    })
    .await;
    let took = meshd::clock::now() - killed;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let second = cluster.leader(Some(first)).await;
    let status = cluster.status().await.expect("a status");
    let lost = status["members"].as_array().expect("a list").iter().find(|member| member["id"] == first);
    assert_eq!(lost.expect("it is still a member")["reachable"], false, "{status}");
    cluster.start(first);
    cluster.voters(3).await;
    assert_eq!(read(&cluster.at(first), "after").await, Some(200), "the old leader caught up");
    assert_ne!(second, first);
}

#[tokio::test]
async fn all_servers_restart_from_their_disks() {
    let mut cluster = Cluster::of_three().await;
    assert_eq!(write(&cluster.operator, "kept").await, Some(201));
    let token = cluster.operator.join_token("late", json!({"services": ["default/*"]})).await;
    for id in cluster.alive() {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.start(id);
    }
    cluster.voters(3).await;
    for id in 1..=3 {
        assert_eq!(read(&cluster.at(id), "kept").await, Some(200), "member {id}");
    }
    let host =
        Host::join(&cluster.places[2].address(), "host-a", &token).await.expect("the token is still good");
    let key = KeyRequest::generate().expect("a key");
    let issued = host.certificate(json!({"service": "default/web"}), &key, None).await;
    assert!(issued.certificate.is_some(), "the third member signs with its own intermediate");
}

#[tokio::test]
async fn a_leader_that_is_stopped_hands_over_and_ends_well() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader(None).await;
    assert_eq!(cluster.server(leader).terminate().await, Some(0));
    assert!(cluster.server(leader).log().contains("leadership handed over"));
    cluster.kill(leader);
    let other = cluster.leader(Some(leader)).await;
    let follower = cluster.alive().into_iter().find(|id| *id != other).expect("two are left");
    let operator = cluster.at(follower);
    let answer = operator.ask(Method::POST, "/v1/cluster/transfer", Some(json!({"to": follower}))).await;
    assert_eq!((answer.status, &answer.body["leader"]), (200, &json!(follower)), "{answer:?}");
    let nobody =
        cluster.at(follower).ask(Method::POST, "/v1/cluster/transfer", Some(json!({"to": 77}))).await;
    assert_eq!((nobody.status, nobody.problem().errors[0].path.as_str()), (422, "to"));
}

#[tokio::test]
async fn a_member_is_removed_and_refused_and_its_place_is_taken_by_another() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader(None).await;
    let gone = cluster.alive().into_iter().find(|id| *id != leader && *id != 1).expect("another");
    let removed = cluster.operator.ask(Method::DELETE, &format!("/v1/cluster/members/{gone}"), None).await;
    assert_eq!(removed.status, 200, "{removed:?}");
    eventually("the removed server says so", async || {
        cluster.server(gone).log().contains("refuses this server's certificate").then_some(())
    })
    .await;
    let refused = format!("spiffe://mesh.internal/meshd/{gone} is distrusted");
    assert!(cluster.server(leader).log().contains(&refused), "the leader's log names it");
    cluster.kill(gone);
    cluster.voters(2).await;
    cluster.join(&sealed_by(&cluster.folder.path().join("seal.key"))).await;
    let status = cluster.voters(3).await;
    let ids: Vec<&Value> =
        status["members"].as_array().expect("a list").iter().map(|member| &member["id"]).collect();
    assert!(ids.contains(&&json!(4)) && !ids.contains(&&json!(gone)), "ids are not used again: {ids:?}");
    let none = cluster.operator.ask(Method::DELETE, "/v1/cluster/members/77", None).await;
    assert_eq!(none.status, 404);
}

fn snapshots_often(place: &Place) {
    let mut config = fs::OpenOptions::new().append(true).open(&place.config).expect("it is there");
    config.write_all(b"[registry]\nsnapshot_every = 100\nlog_kept = 100\n").expect("written");
}

#[tokio::test]
async fn a_server_that_its_disk_fails_before_it_has_caught_up_ends_too() {
    let mut cluster = Cluster::of_three().await;
    for id in 1..=3 {
        cluster.kill(id);
        snapshots_often(&cluster.places[id - 1]);
    }
    (1..=2).for_each(|id| cluster.start(id));
    cluster.leader(None).await;
    for n in 0..300 {
        assert_eq!(write(&cluster.operator, &format!("s{n}")).await, Some(201));
    }
    // What it missed is in no log any more, and the snapshot that it is sent instead cannot be written.
    let snapshots = cluster.places[2].data_dir.join("snapshots");
    for index in 0..2_000 {
        fs::create_dir(snapshots.join(format!("{index:020}.tmp"))).expect("made");
    }
    cluster.start(3);
    assert_eq!(cluster.server(3).ended().await, Some(1));
    let log = cluster.server(3).log();
    assert!(log.contains("the registry cannot go on: ") && log.contains("Is a directory"), "{log}");
    fs::remove_dir_all(&snapshots).expect("it is there");
    cluster.start(3);
    cluster.voters(3).await;
    assert_eq!(read(&cluster.at(3), "s299").await, Some(200));
}

#[tokio::test]
async fn a_server_that_its_disk_fails_ends_and_goes_on_when_it_is_started_again() {
    let mut cluster = Cluster::found().await;
    cluster.kill(1);
    snapshots_often(&cluster.places[0]);
    cluster.start(1);
    cluster.voters(1).await;
    fs::remove_dir_all(cluster.places[0].data_dir.join("snapshots")).expect("it is there");
    let mut taken = 0;
    while write(&cluster.operator, &format!("s{taken}")).await == Some(201) {
        taken += 1;
    }
    assert!(taken < 200, "there was nowhere to put a snapshot");
    let server = cluster.server(1);
    assert_eq!(server.ended().await, Some(1));
    let log = server.log();
    assert!(log.contains("the registry cannot go on: ") && log.contains("No such file"), "{log}");
    cluster.start(1);
    cluster.voters(1).await;
    for name in [0, taken - 1] {
        assert_eq!(read(&cluster.operator, &format!("s{name}")).await, Some(200), "s{name}");
    }
}

#[tokio::test]
async fn the_only_member_cannot_be_removed() {
    let cluster = Cluster::found().await;
    let answer = cluster.operator.ask(Method::DELETE, "/v1/cluster/members/1", None).await;
    assert_eq!(
        (answer.status, answer.problem().detail.contains("the only one that votes")),
        (409, true),
        "{answer:?}"
    );
    let snapshot = cluster.operator.get("/v1/snapshot").await;
    assert!(snapshot.body.as_str().is_some_and(|text| text.starts_with("MESHSAVE")), "a snapshot file");
}

#[tokio::test]
async fn a_server_without_the_seal_joins_and_a_host_s_token_lets_no_server_in() {
    let mut cluster = Cluster::found().await;
    cluster.join("[seal]\nkind = \"keyfile\"\npath = \"/nowhere/seal.key\"\n").await;
    cluster.voters(2).await;
    assert!(cluster.server(2).log().contains("cannot unseal the root"));
    // It has another member sign its next intermediate; a host's certificate would not do for that.
    let opening = Opening {
        member: 2,
        names: vec!["127.0.0.1".to_owned()],
        ttl: Ttl::default(),
        folder: meshd::home::authority_folder(&cluster.places[1].data_dir).expect("its keys"),
        unlock: None,
    };
    let authority = Authority::open(opening, meshd::clock::unix()).expect("its keys");
    let key = KeyRequest::generate().expect("a key");
    let request = IntermediateRequest { csr: key.csr_pem.clone() };
    let peer = Peer::member(&authority, &format!("127.0.0.1:{}", cluster.places[0].api)).expect("a client");
    let signed: IntermediateAnswer = peer.post("/v1/ca/intermediate", &request).await.expect("signed");
    assert!(Intermediate::from_pem(authority.domain(), &signed.certificate, &key.key_pem).is_ok());
    let itself = Peer::member(&authority, &format!("127.0.0.1:{}", cluster.places[1].api)).expect("a client");
    let refused =
        itself.post::<IntermediateAnswer>("/v1/ca/intermediate", &request).await.expect_err("no seal");
    assert!(refused.to_string().contains("cannot open the sealed root"), "{refused}");
    let token = cluster.operator.join_token("host", json!({"role": "host"})).await;
    let place = Place::new(cluster.folder.path(), 3, "");
    let mut command = world::meshd();
    command.args(["join", &cluster.places[0].address(), "--token", &token, "--config"]).arg(&place.config);
    let output = command.output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("the token is for a Host, not for a Server"),
        "{error}"
    );
    let again = std::process::Command::new(env!("CARGO_BIN_EXE_meshd"))
        .args(["init", "--config"])
        .arg(&cluster.places[0].config)
        .output()
        .expect("it runs");
    assert!(String::from_utf8_lossy(&again.stderr).contains("holds a server already"));
}

#[tokio::test]
async fn the_members_listener_takes_members_only_and_names_who_it_refused() {
    let cluster = Cluster::found().await;
    let token = cluster.operator.join_token("t", json!({"services": ["default/*"]})).await;
    let host = Host::join(&cluster.places[0].address(), "host-a", &token).await.expect("it may join");
    let key = KeyRequest::generate().expect("a key");
    let web =
        host.certificate(json!({"service": "default/web"}), &key, None).await.certificate.expect("granted");
    let service = Svid::from_pem(&web, &key.key_pem).expect("an identity");
    let node = Svid::from_pem(&host.chain, &host.key.key_pem).expect("an identity");
    for (identity, reason) in [
        (None, "no certificate was presented"),
        (Some(service), "spiffe://mesh.internal/ns/default/svc/web is not accepted here: only members"),
        (Some(node), "spiffe://mesh.internal/node/host-a is not accepted here: only members"),
        (Some(stranger("evil.example")), "spiffe://evil.example/meshd/1 is of another trust domain"),
        (
            Some(stranger("mesh.internal")),
            "spiffe://mesh.internal/meshd/1 is not signed by a root of mesh.internal",
        ),
    ] {
        knock(&cluster, &host, identity).await;
        eventually(reason, async || {
            let log = cluster.servers[0].as_ref().expect("it runs").log();
            log.lines().any(|line| line.contains("refused a member") && line.contains(reason)).then_some(())
        })
        .await;
    }
}

/// A member's identity by an authority of its own.
fn stranger(domain: &str) -> Svid {
    let (domain, now): (TrustDomain, _) = (domain.parse().expect("a domain"), meshd::clock::unix());
    let serial = || Serial::from_random(meshd::clock::random());
    let root = Root::generate(&domain, serial(), now).expect("a root");
    let (key, leaf) = (KeyRequest::generate().expect("a key"), KeyRequest::generate().expect("a key"));
    let csr = |key: &KeyRequest| Csr::from_pem(&key.csr_pem).expect("a request");
    let pem = root.sign_intermediate(&csr(&key), 1, serial(), now).expect("signed");
    let intermediate = Intermediate::from_pem(&domain, &pem, &key.key_pem).expect("an intermediate");
    let signed = intermediate.sign(&Grant::member(1, &[]), &csr(&leaf), Ttl::default(), serial(), now);
    Svid::from_pem(&signed.expect("signed").chain_pem, &leaf.key_pem).expect("an identity")
}

/// Shakes hands with the members' listener; it must hang up.
async fn knock(cluster: &Cluster, host: &Host, identity: Option<Svid>) {
    let trust = host.trust.clone();
    let expect = Expect::Id(SpiffeId::meshd(trust.load().domain(), 1));
    let slot = identity.map(IdentitySlot::new);
    let config = svid::client_config(slot, trust, expect, &[meshd::members::ALPN], meshd::clock::tls());
    let stream = TcpStream::connect(("127.0.0.1", cluster.places[0].raft)).await.expect("it listens");
    let name = "127.0.0.1".try_into().expect("an address");
    // With TLS 1.3 the client learns of a refusal when it reads.
    if let Ok(mut tls) = TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        let read = tokio::time::timeout(world::DEADLINE, tls.read_u8()).await.expect("it hangs up");
        assert!(read.is_err(), "nobody is served");
    }
}
