use std::{io, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use registry::{Addresses, Dial, Registry, Settings, Stream};
use svid::{Usage, verify};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::clock;

const DAY: u64 = 24 * 3_600;

struct Nobody;

impl Dial for Nobody {
    fn dial(&self, _: MemberId, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        async { Err(io::ErrorKind::NotConnected.into()) }.boxed()
    }
}

/// A founded mesh of one member, with its authority.
struct World {
    authority: Arc<Authority>,
    registry: Registry,
    folder: Folder,
    _place: TempDir,
}

impl World {
    async fn new(unlock: bool) -> Self {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::open(&place.path().join("ca")).expect("a folder");
        let (domain, cluster) = ("mesh.internal".parse().expect("a domain"), Uuid::new_v4());
        let founded = found::found(&domain, cluster, 1, secret(), &folder, clock::unix()).expect("founded");
        let addresses = Addresses { raft: "127.0.0.1:1".to_owned(), api: "127.0.0.1:1".to_owned() };
        let settings = Settings::new(place.path().to_owned(), 1, cluster, addresses);
        let (registry, _) = Registry::open(settings, Arc::new(Nobody)).await.expect("it opens");
        registry.bootstrap(founded.genesis).await.expect("founded");
        let authority = open(&folder, unlock.then(secret)).expect("it opens");
        authority.follow(&registry.applied());
        Self { authority, registry, folder, _place: place }
    }
}

fn secret() -> Unlock {
    Unlock::new(ca::seal::UnlockKind::Keyfile, b"a secret for tests").expect("long enough")
}

fn open(folder: &Folder, unlock: Option<Unlock>) -> Result<Arc<Authority>, AuthorityError> {
    open_at(folder, unlock, clock::unix())
}

fn open_at(folder: &Folder, unlock: Option<Unlock>, now: UnixTime) -> Result<Arc<Authority>, AuthorityError> {
    let (names, ttl) = (vec!["127.0.0.1".to_owned()], Ttl::default());
    Authority::open(Opening { member: 1, names, ttl, folder: folder.clone(), unlock }, now)
}

fn later(days: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(clock::unix().as_secs() + days * DAY))
}

#[tokio::test]
async fn an_intermediate_is_followed_by_the_next_at_half_its_life() {
    let world = World::new(true).await;
    let before = world.authority.intermediate().fingerprint().to_owned();
    let mut slot = renew::slot(&world.authority);
    let steps = async |slot: &mut _, days| {
        for _ in 0..3 {
            world.authority.renew_intermediate(&world.registry, slot, later(days)).await.expect("it goes on");
        }
    };
    steps(&mut slot, 14).await;
    assert_eq!(world.authority.intermediate().fingerprint(), before, "not yet");
    steps(&mut slot, 16).await;
    let after = world.authority.intermediate();
    assert_ne!(after.fingerprint(), before);
    let state = world.registry.applied();
    let recorded = &state.trust().expect("founded").intermediates[&1];
    assert_eq!(*recorded, after.certificate_pem(), "the log knows of it");
    // The leaf is the new one's, and everybody who knows the root believes it.
    let leaf = world.authority.leaf().load();
    let peer = verify(&leaf.chain, &world.authority.trust().load(), Usage::Server, later(16)).expect("good");
    assert_eq!(peer.id.to_string(), "spiffe://mesh.internal/meshd/1");
    assert_eq!(svid::pem::encode_chain(&leaf.chain[1..]), after.certificate_pem());
    let again = open_at(&world.folder, None, later(16)).expect("it opens");
    assert_eq!(again.intermediate().fingerprint(), after.fingerprint(), "a restart goes on with it");
}

#[tokio::test]
async fn without_the_seal_and_without_others_the_old_one_goes_on() {
    let world = World::new(false).await;
    let before = world.authority.intermediate().fingerprint().to_owned();
    let mut slot = renew::slot(&world.authority);
    let error = world.authority.renew_intermediate(&world.registry, &mut slot, later(16)).await;
    assert!(matches!(error, Err(AuthorityError::NobodySigned(_))), "{error:?}");
    assert_eq!(world.authority.intermediate().fingerprint(), before);
}

#[tokio::test]
async fn a_server_that_was_away_for_longer_than_its_intermediate_lives_comes_back() {
    let world = World::new(true).await;
    let error = open_at(&world.folder, None, later(31)).err().expect("nobody signs");
    assert!(matches!(error, AuthorityError::NoSeal), "{error}");
    let back = open_at(&world.folder, Some(secret()), later(31)).expect("it signs itself a new one");
    assert_ne!(back.intermediate().fingerprint(), world.authority.intermediate().fingerprint());
    let leaf = back.leaf().load();
    assert!(verify(&leaf.chain, &back.trust().load(), Usage::Server, later(31)).is_ok());
    back.renew_intermediate(&world.registry, &mut renew::slot(&back), later(31)).await.expect("recorded");
    let state = world.registry.applied();
    let recorded = &state.trust().expect("founded").intermediates[&1];
    assert_eq!(*recorded, back.intermediate().certificate_pem(), "the log learns of it");
}

#[tokio::test]
async fn a_member_whose_intermediate_is_distrusted_draws_another() {
    let world = World::new(true).await;
    let before = world.authority.intermediate().fingerprint().to_owned();
    let refused = registry::Refused::Intermediate(before.clone());
    let change = registry::Command::Trust(registry::TrustChange::Distrust(refused));
    world.registry.propose(change).await.expect("done");
    world.authority.follow(&world.registry.applied());
    let judged = || {
        let (leaf, trust) = (world.authority.leaf().load(), world.authority.trust().load());
        verify(&leaf.chain, &trust, Usage::Server, clock::unix())
    };
    assert!(judged().is_err(), "its leaf is refused");
    let mut slot = renew::slot(&world.authority);
    world.authority.renew_intermediate(&world.registry, &mut slot, clock::unix()).await.expect("drawn");
    assert_ne!(world.authority.intermediate().fingerprint(), before);
    assert!(judged().is_ok(), "it is back");
}

#[tokio::test]
async fn trust_follows_the_log_and_outlives_a_restart() {
    let world = World::new(true).await;
    let version = world.authority.trust().version();
    assert!(!world.authority.follow(&world.registry.applied()), "nothing new");
    let refused = registry::Refused::Node("host-a".parse().expect("a name"));
    let change = registry::Command::Trust(registry::TrustChange::Distrust(refused));
    world.registry.propose(change).await.expect("done");
    assert!(world.authority.follow(&world.registry.applied()));
    assert_eq!(world.authority.trust().version(), version + 1, "tickets of before are void");
    assert_eq!(world.authority.trust().load().distrusted().nodes.len(), 1);
    let again = open(&world.folder, None).expect("it opens");
    assert_eq!(again.bundle(), world.authority.bundle(), "before it has looked into its log");
    assert_eq!(again.pin(), world.authority.pin());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder::open(place.path()).expect("a folder");
    let error = open(&folder, None).err().expect("nothing is there").to_string();
    assert!(error.contains(BUNDLE_FILE) && error.contains("neither initialised nor did it join"), "{error}");
    let domain = "mesh.internal".parse().expect("a domain");
    found::found(&domain, Uuid::new_v4(), 1, secret(), &folder, clock::unix()).expect("founded");
    folder.write(INTERMEDIATE_FILE, "garbage").expect("written");
    let error = open(&folder, None).err().expect("it is damaged").to_string();
    assert!(error.contains("the signing certificate"), "{error}");
}
