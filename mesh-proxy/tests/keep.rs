//! Identities on disk: whatever moment a crash chooses, one whole identity is there afterwards.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::world::{Authority, id, service};
use mesh_proxy::identity::{Identity, Keep, NodeFile};
use model::{ca::Subject, trust::TrustBundle};

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

/// A host that runs orders, and what else may stand in its folder: its configuration, and a file of the operator's.
fn serving(folder: &Path, authority: &Authority) -> Keep {
    let keep = joined(folder, authority);
    drop(with_identity(folder, authority));
    fs::write(folder.join("snapshot.json"), "{}").expect("written");
    fs::write(folder.join("notes.txt"), "the operator's").expect("written");
    keep
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it stands").map(|entry| entry.expect("read").file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn what_leaves_is_erased_also_after_a_crash_and_nothing_else_is() {
    let authority = Authority::new();
    for crashed in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let keep = serving(folder.path(), &authority);
        drop(joined(&folder.path().join("rejoin"), &authority));
        if crashed {
            fs::rename(folder.path().join("node.json"), folder.path().join("left.json")).expect("renamed");
            assert!(keep.node().expect("read").is_none(), "it has left");
            keep.settle().expect("finished");
        } else {
            keep.erase().expect("erased");
        }
        assert_eq!(files(folder.path()), ["notes.txt", "services"]);
        assert!(files(&folder.path().join("services")).is_empty());
    }
}

fn own(keep: &Keep) -> Vec<u8> {
    let subject = Subject::Node("host-a".parse().expect("a name"));
    keep.load(&subject).expect("usable").expect("there").chain[0].to_vec()
}

/// Whatever was taken over when the crash came.
#[test]
fn an_identity_is_replaced_whole_once_the_new_one_is_complete() {
    let authority = Authority::new();
    for taken in 0..=3 {
        let folder = tempfile::tempdir().expect("a folder");
        let keep = serving(folder.path(), &authority);
        let old = own(&keep);
        let next = joined(&folder.path().join("rejoin"), &authority);
        let new = own(&next);
        fs::rename(next.path("node.json"), folder.path().join("rejoin/later")).expect("renamed");
        keep.settle().expect("nothing to do");
        assert_eq!(own(&keep), old, "the new one is not complete");
        assert!(keep.load(&orders()).expect("usable").is_some());
        fs::rename(folder.path().join("rejoin/later"), next.path("node.json")).expect("renamed");
        for name in ["bundle.json", "node.pem", "node.key"].iter().take(taken) {
            fs::rename(next.path(name), keep.path(name)).expect("renamed");
        }
        keep.settle().expect("done");
        assert!(own(&keep) == new && old != new);
        assert!(keep.load(&orders()).expect("read").is_none(), "it was signed for the node of before");
        let left =
            ["bundle.json", "node.json", "node.key", "node.pem", "notes.txt", "services", "snapshot.json"];
        assert_eq!(files(folder.path()), left);
    }
}

#[test]
fn a_host_knows_that_it_is_shut_out_and_what_helps() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let identity = Identity::load(joined(folder.path(), &authority)).expect("joined");
    assert_eq!(identity.shut_out(), None);
    let mut distrusting = bundle(2, &authority);
    distrusting.distrusted.nodes.insert("host-b".parse().expect("a name"), u64::MAX);
    identity.believe(&distrusting);
    assert_eq!(identity.shut_out(), None, "another one is");
    distrusting.distrusted.nodes.insert("host-a".parse().expect("a name"), u64::MAX);
    identity.believe(&distrusting);
    let reason = identity.shut_out().expect("it is distrusted");
    assert_eq!(reason.to_string(), "the mesh distrusts the certificate of node host-a");
    assert!(reason.remedy().contains("--node host-a --rejoin"), "{}", reason.remedy());
}
