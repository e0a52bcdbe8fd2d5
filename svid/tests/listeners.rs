//! Who is taken where: the listeners of the mesh and those who dial them, at real handshakes.

mod world;

use std::sync::Arc;

use model::name::ServiceName;
use rcgen::SanType;
use rustls::pki_types::ServerName;
use svid::{
    Accept, Expect, Identities, SvidError, TrustStore, client_config, peer_id, refusal, server_config,
};
use world::*;

const WEB: &str = "/ns/default/svc/web";
const ORDERS: &str = "/ns/default/svc/orders";
const NODE: &str = "/node/host-a";
const MESHD: &str = "/meshd/1";

/// A caller with the id `path` at a listener: taken (`""`) or refused with a text, by name.
#[track_caller]
fn check(accept: Accept, caller: Option<&str>, want: &str) {
    let world = world();
    let trust = world.trust();
    let server = Arc::new(world.server(&world.leaf(MESHD), trust.clone(), accept));
    let chain = caller.map(|path| world.leaf(path));
    let client = Arc::new(world.client(chain.as_ref(), trust, Expect::Id(id(MESHD))));
    let shaken = shake(&client, "cp1", &server);
    if want.is_empty() {
        shaken.fine();
    } else {
        assert!(shaken.server_refusal().contains(want), "{}", shaken.server_refusal());
        assert!(
            matches!(shaken.client_error, Some(rustls::Error::AlertReceived(_))),
            "{:?}",
            shaken.client_error
        );
    }
}

#[test]
fn the_inbound_listener_takes_services_only() {
    check(Accept::Services, Some(WEB), "");
    let want = "spiffe://mesh.internal/node/host-a is not accepted here: only services";
    check(Accept::Services, Some(NODE), want);
    check(
        Accept::Services,
        Some(MESHD),
        "spiffe://mesh.internal/meshd/1 is not accepted here: only services",
    );
    check(Accept::Services, Some("/else"), "spiffe://mesh.internal/else is not accepted here");
}

#[test]
fn the_members_listener_takes_members_only() {
    check(Accept::Members, Some(MESHD), "");
    check(Accept::Members, Some(WEB), "/svc/web is not accepted here: only members of the control plane");
    check(
        Accept::Members,
        Some(NODE),
        "/node/host-a is not accepted here: only members of the control plane",
    );
}

#[test]
fn the_api_takes_nodes_members_and_people_without_certificate_but_no_service() {
    check(Accept::NodesAndMembers, Some(NODE), "");
    check(Accept::NodesAndMembers, Some(MESHD), "");
    check(Accept::NodesAndMembers, None, "");
    check(Accept::NodesAndMembers, Some(WEB), "/svc/web is not accepted here: only nodes and members");
}

#[test]
fn a_client_without_certificate_is_refused() {
    check(Accept::Services, None, "no certificate was presented");
    check(Accept::Members, None, "no certificate was presented");
}

#[test]
fn another_service_than_the_expected_one_is_refused() {
    let world = world();
    let trust = world.trust();
    let server = Arc::new(world.server(&world.leaf(ORDERS), trust.clone(), Accept::Services));
    let client =
        Arc::new(world.client(Some(&world.leaf(WEB)), trust, Expect::Id(id("/ns/default/svc/payments"))));
    let want = "spiffe://mesh.internal/ns/default/svc/orders answered where spiffe://mesh.internal/ns/default/svc/payments was expected";
    assert_eq!(shake(&client, "payments.default.mesh", &server).client_refusal(), want);
}

/// A dialler that expects some meshd under `name`, and a server with `path` and names.
#[track_caller]
fn dial_meshd(path: &str, name: &str, want: &str) {
    let world = world();
    let trust = world.trust();
    let chain = world.bad_leaf(path, |params| {
        params.subject_alt_names.push(SanType::DnsName("cp1".try_into().expect("ASCII")));
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    });
    let server = Arc::new(world.server(&chain, trust.clone(), Accept::NodesAndMembers));
    let client = Arc::new(world.client(None, trust, Expect::Meshd));
    let shaken = shake(&client, name, &server);
    if want.is_empty() {
        shaken.fine();
    } else {
        assert!(shaken.client_refusal().contains(want), "{}", shaken.client_refusal());
    }
}

#[test]
fn whoever_dials_the_control_plane_wants_a_meshd_of_that_name() {
    dial_meshd(MESHD, "cp1", "");
    dial_meshd(MESHD, "127.0.0.1", "");
    dial_meshd(MESHD, "cp2", "certificate of spiffe://mesh.internal/meshd/1 is not for 'cp2'");
    dial_meshd(MESHD, "127.0.0.2", "certificate of spiffe://mesh.internal/meshd/1 is not for '127.0.0.2'");
    dial_meshd(NODE, "cp1", "/node/host-a answered where a member of the control plane was expected");
    dial_meshd(WEB, "cp1", "/svc/web answered where a member of the control plane was expected");
}

fn service(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

#[test]
fn the_inbound_listener_answers_as_the_service_that_was_dialled() {
    let world = world();
    let (trust, identities) = (world.trust(), Identities::new());
    identities.put(&service("default/web"), world.leaf(WEB).svid());
    identities.put(&service("default/orders"), world.leaf(ORDERS).svid());
    let server =
        server_config(identities.clone(), trust.clone(), Accept::Services, &[ALPN], world.clock.clone());
    let server = Arc::new(server);
    let caller = world.leaf(WEB);
    let dial = |path: &str, name: &str| {
        shake(&Arc::new(world.client(Some(&caller), trust.clone(), Expect::Id(id(path)))), name, &server)
    };
    for (path, name) in [(WEB, "web.default.mesh"), (ORDERS, "orders.default.mesh")] {
        let shaken = dial(path, name).fine();
        assert_eq!(peer_id(shaken.client.peer_certificates().expect("a chain")), Ok(id(path)));
        assert_eq!(peer_id(shaken.server.peer_certificates().expect("a chain")), Ok(id(WEB)));
    }
    for unknown in ["payments.default.mesh", "web.other.mesh", "web.default.example", "127.0.0.1"] {
        let shaken = dial(WEB, unknown);
        assert!(shaken.server_error.is_some() && shaken.client_error.is_some(), "{unknown} was answered");
    }
    identities.remove(&service("default/orders"));
    assert!(dial(ORDERS, "orders.default.mesh").server_error.is_some(), "it is no longer here");
    assert_eq!(identities.services(), [service("default/web")]);
}

#[test]
fn a_renewed_identity_is_used_from_the_next_handshake_on() {
    let world = world();
    let (trust, identities) = (world.trust(), Identities::new());
    let slot = identities.put(&service("default/web"), world.leaf(WEB).svid());
    let server = server_config(identities.clone(), trust.clone(), Accept::Services, &[], world.clock.clone());
    let client = client_config(Some(slot.clone()), trust, Expect::Id(id(WEB)), &[], world.clock.clone());
    let (server, client) = (Arc::new(server), Arc::new(client));
    let first = shake(&client, "web.default.mesh", &server).fine();
    let renewed = world.leaf(WEB);
    let again = identities.put(&service("default/web"), renewed.svid());
    assert!(Arc::ptr_eq(&slot, &again), "who holds the slot sees the new identity");
    let second = shake(&client, "web.default.mesh", &server).fine();
    assert_ne!(first.server.peer_certificates(), second.server.peer_certificates());
    assert_eq!(second.server.peer_certificates(), Some(renewed.certs.as_slice()));
    assert_eq!(second.client.peer_certificates(), Some(renewed.certs.as_slice()));
}

#[test]
fn handshakes_are_tls_1_3_post_quantum_and_aes_128() {
    let world = world();
    let trust = world.trust();
    let server = Arc::new(world.server(&world.leaf(ORDERS), trust.clone(), Accept::Services));
    let client = Arc::new(world.client(Some(&world.leaf(WEB)), trust, Expect::Id(id(ORDERS))));
    let shaken = shake(&client, "orders.default.mesh", &server).fine();
    assert_eq!(shaken.server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let group = shaken.server.negotiated_key_exchange_group().expect("a group").name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    let suite = shaken.server.negotiated_cipher_suite().expect("a suite").suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(shaken.client.alpn_protocol(), Some(ALPN));
}

#[test]
fn a_live_connection_is_judged_again_when_trust_changes() {
    let world = world();
    let trust = world.trust();
    let server = Arc::new(world.server(&world.leaf(ORDERS), trust.clone(), Accept::Services));
    let client = Arc::new(world.client(Some(&world.leaf(WEB)), trust.clone(), Expect::Id(id(ORDERS))));
    let shaken = shake(&client, "orders.default.mesh", &server).fine();
    let (callers, servers) = (shaken.server.peer_certificates(), shaken.client.peer_certificates());
    let (expect, name) =
        (Expect::Id(id(ORDERS)), ServerName::try_from("orders.default.mesh").expect("a name"));
    let both = |trust: &TrustStore, now: u64| {
        let caller =
            Accept::Services.recheck(callers, &trust.load(), unix(now)).map(|peer| peer.expect("a caller"));
        (caller, expect.recheck(servers, &name, &trust.load(), unix(now)))
    };
    let (caller, callee) = both(&trust, NOW + HOUR);
    let caller = caller.expect("fine");
    assert_eq!((caller.id, caller.not_after), (id(WEB), unix(NOW + 72 * HOUR)));
    assert_eq!(caller.node, Some("host-a".parse().expect("a name")));
    assert_eq!(callee.expect("fine").id, id(ORDERS));

    let (caller, callee) = both(&trust, NOW + 73 * HOUR);
    assert!(matches!(caller, Err(SvidError::Expired { .. })), "{caller:?}");
    assert!(matches!(callee, Err(SvidError::Expired { .. })), "{callee:?}");

    let host = "host-a".parse().expect("a name");
    let distrusted = model::trust::Distrusted { nodes: [(host, NOW)].into(), ..Default::default() };
    trust.replace(world.trust_but(distrusted));
    let (caller, callee) = both(&trust, NOW + HOUR);
    assert!(matches!(caller, Err(SvidError::Distrusted { .. })), "{caller:?}");
    assert!(matches!(callee, Err(SvidError::Distrusted { .. })), "{callee:?}");
}

#[test]
fn without_certificate_a_recheck_says_what_the_handshake_says() {
    let trust = world().trust();
    for none in [None, Some([].as_slice())] {
        assert_eq!(Accept::NodesAndMembers.recheck(none, &trust.load(), unix(NOW)), Ok(None));
        assert_eq!(Accept::Services.recheck(none, &trust.load(), unix(NOW)), Err(SvidError::NoCertificate));
        let name = ServerName::try_from("cp1").expect("a name");
        let callee = Expect::Meshd.recheck(none, &name, &trust.load(), unix(NOW));
        assert_eq!(callee, Err(SvidError::NoCertificate));
    }
}

#[test]
fn errors_that_are_no_refusals_of_ours_are_not_taken_for_such() {
    let io = std::io::Error::other("disk");
    assert_eq!(refusal(&io), None);
    assert_eq!(refusal(&rustls::Error::HandshakeNotComplete), None);
    assert_eq!(refusal(&SvidError::NoCertificate), Some(&SvidError::NoCertificate));
}
