//! What a resumed session may hand on, and what makes it void.

mod world;

use std::sync::Arc;

use model::trust::Distrusted;
use rustls::{ClientConfig, ServerConfig};
use svid::{Accept, Expect, IdentitySlot, TrustStore, client_config, server_config};
use world::*;

const WEB: &str = "/ns/default/svc/web";
const ORDERS: &str = "/ns/default/svc/orders";
const NAME: &str = "orders.default.mesh";

/// One client, one server, each with its own view of trust, as in life.
struct Pair {
    world: World,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    client_trust: Arc<TrustStore>,
    server_trust: Arc<TrustStore>,
    caller: Arc<IdentitySlot>,
}

fn pair() -> Pair {
    let world = world();
    let (client_trust, server_trust) = (world.trust(), world.trust());
    let (caller, callee) = (slot(&world.leaf(WEB)), slot(&world.leaf(ORDERS)));
    let expect = Expect::Id(id(ORDERS));
    let client =
        client_config(Some(caller.clone()), client_trust.clone(), expect, &[ALPN], world.clock.clone());
    let server = server_config(callee, server_trust.clone(), Accept::Services, &[ALPN], world.clock.clone());
    Pair { world, client: Arc::new(client), server: Arc::new(server), client_trust, server_trust, caller }
}

impl Pair {
    /// Shakes hands; whether that resumed a session.
    #[track_caller]
    fn resumes(&self) -> bool {
        shake(&self.client, NAME, &self.server).fine().resumed()
    }

    /// Has a session, and shows that it would be resumed.
    #[track_caller]
    fn settled() -> Self {
        let pair = pair();
        assert!(!pair.resumes(), "the first handshake is full");
        assert!(pair.resumes(), "the second resumes");
        pair
    }
}

#[test]
fn each_handshake_brings_one_session() {
    let pair = pair();
    for resumed in [false, true] {
        let shaken = shake(&pair.client, NAME, &pair.server).fine();
        assert_eq!((shaken.resumed(), shaken.client.tls13_tickets_received()), (resumed, 1));
    }
}

#[test]
fn a_resumed_session_still_knows_both_chains() {
    let pair = Pair::settled();
    let shaken = shake(&pair.client, NAME, &pair.server).fine();
    assert!(shaken.resumed());
    let trust = pair.server_trust.load();
    let caller =
        Accept::Services.recheck(shaken.server.peer_certificates(), &trust, unix(NOW)).expect("fine");
    assert_eq!(caller.expect("a caller").id, id(WEB));
    let name = NAME.try_into().expect("a name");
    let callee = Expect::Id(id(ORDERS)).recheck(shaken.client.peer_certificates(), &name, &trust, unix(NOW));
    assert_eq!(callee.expect("fine").id, id(ORDERS));
}

/// Distrust that concerns neither end.
fn elsewhere() -> Distrusted {
    Distrusted { ids: [(id("/meshd/9"), NOW)].into(), ..Default::default() }
}

#[test]
fn the_same_trust_again_is_no_news() {
    let pair = Pair::settled();
    assert!(!pair.server_trust.replace(pair.world.trust_but(Distrusted::default())));
    assert!(!pair.client_trust.replace(pair.world.trust_but(Distrusted::default())));
    assert!(pair.resumes());
}

#[test]
fn a_server_whose_trust_changed_resumes_nothing() {
    let pair = Pair::settled();
    assert!(pair.server_trust.replace(pair.world.trust_but(elsewhere())));
    assert!(!pair.resumes(), "the ticket was made under the trust of before");
    assert!(pair.resumes());
}

#[test]
fn a_client_whose_trust_changed_resumes_nothing() {
    let pair = Pair::settled();
    assert!(pair.client_trust.replace(pair.world.trust_but(elsewhere())));
    assert!(!pair.resumes());
    assert!(pair.resumes());
}

#[test]
fn a_caller_distrusted_since_is_refused_although_it_had_a_session() {
    let pair = Pair::settled();
    let distrusted = Distrusted { ids: [(id(WEB), NOW)].into(), ..Default::default() };
    pair.server_trust.replace(pair.world.trust_but(distrusted));
    let refused = shake(&pair.client, NAME, &pair.server).server_refusal();
    assert!(refused.contains("/svc/web is distrusted, by id"), "{refused}");
}

#[test]
fn a_renewed_identity_is_shown_in_full() {
    let pair = Pair::settled();
    let renewed = pair.world.leaf(WEB);
    pair.caller.replace(renewed.svid());
    let shaken = shake(&pair.client, NAME, &pair.server).fine();
    assert!(!shaken.resumed());
    assert_eq!(shaken.server.peer_certificates(), Some(renewed.certs.as_slice()));
}

#[test]
fn a_client_shows_itself_in_full_every_quarter_of_an_hour() {
    let pair = Pair::settled();
    pair.world.clock.put(NOW + 15 * 60 - 1);
    assert!(pair.resumes());
    pair.world.clock.put(NOW + 15 * 60);
    assert!(!pair.resumes());
    assert!(pair.resumes());
}

#[test]
fn tickets_live_an_hour_at_most() {
    let pair = pair();
    let tickets = &pair.server.ticketer;
    assert_eq!((tickets.enabled(), tickets.lifetime()), (true, 3_600));
    let ticket = tickets.encrypt(b"a session").expect("a ticket");
    assert!(!ticket.windows(9).any(|window| window == b"a session"));
    let open = |at: u64, ticket: &[u8]| {
        pair.world.clock.put(at);
        tickets.decrypt(ticket)
    };
    for bit in 0..ticket.len() * 8 {
        let mut changed = ticket.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(NOW, &changed), None, "bit {bit}");
    }
    for cut in 0..ticket.len() {
        assert_eq!(open(NOW, &ticket[..cut]), None, "cut at {cut}");
    }
    assert_eq!(open(NOW, &ticket).as_deref(), Some(b"a session".as_slice()));
    // After an hour the key that sealed it is the one before, and still opens it in its last second.
    assert_eq!(open(NOW + HOUR, &ticket).as_deref(), Some(b"a session".as_slice()));
    assert_eq!(open(NOW + HOUR + 1, &ticket), None);
    assert_eq!(open(NOW - 1, &ticket), None, "from the future");
}

#[test]
fn listeners_do_not_take_each_other_s_tickets() {
    let (a, b) = (pair(), pair());
    let ticket = a.server.ticketer.encrypt(b"a session").expect("a ticket");
    assert_eq!(b.server.ticketer.decrypt(&ticket), None);
}
