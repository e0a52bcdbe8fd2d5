//! Identities as they come from disk: chain and key as PEM.

mod world;

use svid::{KeyRequest, Svid, TrustError, pem};
use world::*;

const WEB: &str = "/ns/default/svc/web";

fn texts(chain: &Chain) -> (String, String) {
    (pem::encode_chain(&chain.certs), pem::encode("PRIVATE KEY", chain.key.secret_der()))
}

#[test]
fn a_chain_and_its_key_are_read_from_pem() {
    let chain = world().leaf(WEB);
    let (certs, key) = texts(&chain);
    let svid = Svid::from_pem(&certs, &key).expect("an SVID");
    assert_eq!((&svid.id, &svid.chain), (&id(WEB), &chain.certs));
    assert_eq!((svid.not_before, svid.not_after), (unix(NOW - 300), unix(NOW + 72 * HOUR)));
    assert_eq!(svid.left(unix(NOW)).as_secs(), 72 * HOUR);
    assert_eq!(svid.left(unix(NOW + 99 * HOUR)).as_secs(), 0);
    assert!(!format!("{svid:?}").contains("key"), "{svid:?}");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let world = world();
    let ((certs, key), (_, other)) = (texts(&world.leaf(WEB)), texts(&world.leaf(WEB)));
    let refused = |certs: &str, key: &str| Svid::from_pem(certs, key).expect_err("no identity").to_string();
    assert!(refused(&certs, &other).starts_with(
        "the private key does not fit the certificate of spiffe://mesh.internal/ns/default/svc/web"
    ));
    assert_eq!(refused("", &key), "certificate chain holds 0 certificates, not one");
    assert!(refused(&certs, "").starts_with("private key is no PEM text"));
    assert!(refused(&certs, &certs).starts_with("private key is no PEM text"));
    let nameless = world.bad_leaf(WEB, |params| params.subject_alt_names.clear());
    let (certs, key) = texts(&nameless);
    assert_eq!(refused(&certs, &key), "certificate has 0 URI SANs; an SVID has exactly one");
}

#[test]
fn renewal_falls_between_a_quarter_and_a_third_of_the_life() {
    let world = world();
    let svid = world.bad_leaf(WEB, valid(NOW, NOW + 72 * HOUR)).svid();
    assert_eq!(svid.renew_at(0), unix(NOW + 18 * HOUR));
    assert_eq!(svid.renew_at(u32::MAX / 2), unix(NOW + 21 * HOUR - 1));
    assert_eq!(svid.renew_at(u32::MAX), unix(NOW + 24 * HOUR));
}

#[test]
fn requests_are_signed_by_fresh_keys() {
    let (a, b) = (KeyRequest::generate().expect("a key"), KeyRequest::generate().expect("a key"));
    assert_ne!(a.fingerprint, b.fingerprint);
    assert!(pem::private_key(&a.key_pem).is_ok());
    let parsed = rcgen::CertificateSigningRequestParams::from_pem(&a.csr_pem).expect("its signature holds");
    assert_eq!(parsed.params.subject_alt_names, []);
    assert!(!format!("{a:?}").contains("PRIVATE"));
}

#[test]
fn trust_comes_as_a_bundle() {
    let world = world();
    let root = pem::encode("CERTIFICATE", &world.root.cert);
    let mut bundle = model::trust::TrustBundle {
        trust_domain: domain(),
        epoch: "e".to_owned(),
        generation: 7,
        roots: vec![root.clone()],
        distrusted: Default::default(),
    };
    let trust = svid::Trust::from_bundle(&bundle).expect("trust");
    assert_eq!(
        (trust.generation(), trust.domain(), trust.roots()),
        (7, &domain(), [world.root.cert.clone()].as_slice())
    );
    bundle.roots = vec![root.clone() + &root];
    let refused = svid::Trust::from_bundle(&bundle).expect_err("two in one text");
    assert_eq!(
        refused,
        TrustError::Unreadable { index: 0, problem: "holds 2 certificates, not one".to_owned() }
    );
}
