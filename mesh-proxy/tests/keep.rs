//! Identities on disk: whatever moment a crash chooses, one whole identity is there afterwards.

mod world;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use mesh_proxy::identity::{Identity, Keep, NodeFile};
use model::{ca::Subject, trust::TrustBundle};
use world::{Authority, id, service};

fn orders() -> Subject {
    Subject::Service(service("orders"))
}

fn held(keep: &Keep) -> Vec<u8> {
    keep.load(&orders()).expect("usable").expect("there").chain[0].to_vec()
}

/// A folder with an identity of orders, and its certificate.
fn with_identity(folder: &Path, authority: &Authority) -> (Keep, Vec<u8>) {
    let keep = Keep::open(folder).expect("made");
    let csr = keep.fresh_key(&orders()).expect("a key").csr_pem;
    let chain = authority.sign(&csr, &id("orders").to_string());
    let svid = keep.certified(&orders(), &chain).expect("kept");
    (keep, svid.chain[0].to_vec())
}

#[test]
fn a_certified_key_is_the_identity_and_private() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let (keep, certificate) = with_identity(folder.path(), &authority);
    assert_eq!(held(&keep), certificate);
    let services = folder.path().join("services");
    for file in ["default.orders.key", "default.orders.pem"] {
        let mode = fs::metadata(services.join(file)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::read_dir(&services).expect("read").count(), 2, "nothing is left over");
}

#[test]
fn a_renewal_that_was_cut_off_before_its_answer_leaves_the_old_identity() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let (keep, certificate) = with_identity(folder.path(), &authority);
    keep.fresh_key(&orders()).expect("a key");
    assert_eq!(held(&keep), certificate);
}

#[test]
fn a_crash_between_the_new_chain_and_its_key_leaves_the_new_identity() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let (keep, old) = with_identity(folder.path(), &authority);
    let csr = keep.fresh_key(&orders()).expect("a key").csr_pem;
    let chain = authority.sign(&csr, &id("orders").to_string());
    fs::write(folder.path().join("services/default.orders.pem"), &chain).expect("written");
    let new = held(&keep);
    assert_ne!(new, old);
    assert_eq!(held(&keep), new, "it was set right for good");
    assert!(!folder.path().join("services/default.orders.key.next").exists());
}

#[test]
fn what_makes_no_identity_is_told() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let (keep, _) = with_identity(folder.path(), &authority);
    let csr = keep.fresh_key(&orders()).expect("a key").csr_pem;
    let other =
        authority.sign(&svid::KeyRequest::generate().expect("a key").csr_pem, &id("orders").to_string());
    assert!(keep.certified(&orders(), &other).is_err(), "a chain for another key");
    drop(csr);
    fs::write(folder.path().join("services/default.orders.key"), "nothing").expect("written");
    fs::write(folder.path().join("services/default.orders.key.next"), "nothing").expect("written");
    let error = keep.load(&orders()).expect_err("unusable").to_string();
    assert!(error.contains("private key is no PEM text"), "{error}");
    assert!(keep.load(&Subject::Service(service("absent"))).expect("no error").is_none());
}

fn joined(folder: &Path, authority: &Authority) -> Keep {
    let keep = Keep::open(folder).expect("made");
    let node: model::name::Name = "host-a".parse().expect("a name");
    let subject = Subject::Node(node.clone());
    let csr = keep.fresh_key(&subject).expect("a key").csr_pem;
    keep.certified(&subject, &authority.sign(&csr, "spiffe://mesh.internal/node/host-a")).expect("kept");
    keep.put_bundle(&bundle(1, authority)).expect("written");
    let (trust_domain, epoch) = ("mesh.internal".parse().expect("a domain"), "e".to_owned());
    let servers = vec!["https://cp1:8443".to_owned()];
    keep.put_node(&NodeFile { node, trust_domain, epoch, servers }).expect("written");
    keep
}

fn bundle(generation: u64, authority: &Authority) -> TrustBundle {
    TrustBundle {
        trust_domain: "mesh.internal".parse().expect("a domain"),
        epoch: "e".to_owned(),
        generation,
        roots: vec![authority.root()],
        distrusted: Default::default(),
    }
}

#[test]
fn a_host_that_has_not_joined_is_told_how() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = Identity::load(Keep::open(folder.path()).expect("made"));
    assert!(refused.err().expect("refused").to_string().contains("run `mesh-proxy join` first"));
}

#[test]
fn trust_that_was_replaced_survives_a_restart_and_nonsense_replaces_nothing() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let identity = Identity::load(joined(folder.path(), &authority)).expect("joined");
    let changes = identity.trust_changes();
    assert_eq!(identity.trust().load().generation(), 1);
    identity.believe(&bundle(2, &authority));
    assert_eq!((identity.trust().load().generation(), *changes.borrow()), (2, 1));
    identity.believe(&bundle(2, &authority));
    assert_eq!(*changes.borrow(), 1, "the same again is no change");
    identity.believe(&TrustBundle { roots: vec!["nothing".to_owned()], ..bundle(3, &authority) });
    assert_eq!((identity.trust().load().generation(), *changes.borrow()), (2, 1));
    let again = Identity::load(Keep::open(folder.path()).expect("made")).expect("joined");
    assert_eq!(again.trust().load().generation(), 2);
}

#[test]
fn services_that_are_gone_lose_their_identity_and_others_take_theirs_from_disk() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let keep = joined(folder.path(), &authority);
    drop(with_identity(folder.path(), &authority));
    let identity = Identity::load(keep).expect("joined");
    identity.adopt(&[service("orders"), service("web")].into());
    assert_eq!(identity.services().services(), [service("orders")]);
    identity.adopt(&[service("web")].into());
    assert!(identity.services().services().is_empty());
}
