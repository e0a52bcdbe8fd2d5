//! Every certificate that is no identity, presented at a real handshake on both sides: by a client to a listener, and
//! by a server to a dialler. docs/spiffe.md names these tests.

mod world;

use std::sync::Arc;

use model::trust::Distrusted;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use svid::{Accept, Expect, Trust, TrustStore, Usage, verify};
use world::*;

const WEB: &str = "/ns/default/svc/web";
const ORDERS: &str = "/ns/default/svc/orders";

/// `chain` is refused with `want`, by the listener as a client's, by the dialler as a server's, and the peer learns of
/// it by an alert.
#[track_caller]
fn refused_by(world: &World, chain: &Chain, trust: &Arc<TrustStore>, want: &str) {
    let good = world.leaf(ORDERS);
    let server = Arc::new(world.server(&good, trust.clone(), Accept::Services));
    let client = Arc::new(world.client(Some(chain), trust.clone(), Expect::Id(id(ORDERS))));
    let shaken = shake(&client, "orders.default.mesh", &server);
    assert!(shaken.server_refusal().contains(want), "as a client: {}", shaken.server_refusal());
    let alert = shaken.client_error.as_ref().expect("the client is told");
    assert!(matches!(alert, rustls::Error::AlertReceived(_)), "{alert}");

    let server = Arc::new(world.server(chain, trust.clone(), Accept::Services));
    let client = Arc::new(world.client(Some(&good), trust.clone(), Expect::Id(id(WEB))));
    let shaken = shake(&client, "web.default.mesh", &server);
    assert!(shaken.client_refusal().contains(want), "as a server: {}", shaken.client_refusal());
    let alert = shaken.server_error.as_ref().expect("the server is told");
    assert!(matches!(alert, rustls::Error::AlertReceived(_)), "{alert}");
}

#[track_caller]
fn refused(world: &World, chain: &Chain, want: &str) {
    refused_by(world, chain, &world.trust(), want);
}

/// A leaf as `change` makes it is refused, where the same leaf unchanged is taken.
#[track_caller]
fn leaf_refused(change: impl FnOnce(&mut rcgen::CertificateParams), want: &str) {
    let world = world();
    taken(&world, &world.leaf(WEB), &world.trust());
    refused(&world, &world.bad_leaf(WEB, change), want);
}

#[track_caller]
fn taken(world: &World, chain: &Chain, trust: &Arc<TrustStore>) {
    let good = world.leaf(ORDERS);
    let server = Arc::new(world.server(&good, trust.clone(), Accept::Services));
    let client = Arc::new(world.client(Some(chain), trust.clone(), Expect::Id(id(ORDERS))));
    shake(&client, "orders.default.mesh", &server).fine();
    let server = Arc::new(world.server(chain, trust.clone(), Accept::Services));
    let client = Arc::new(world.client(Some(&good), trust.clone(), Expect::Id(id(WEB))));
    shake(&client, "web.default.mesh", &server).fine();
}

/// A chain by an intermediate as `change` makes it is refused.
#[track_caller]
fn authority_refused(change: impl FnOnce(&mut rcgen::CertificateParams), want: &str) {
    let world = world();
    let bad = world.root.authority("meshd-2", change);
    refused(&world, &world.leaf_of(&bad, WEB, |_| {}), want);
}

// --- the SPIFFE id of the leaf -----------------------------------------------------------------

#[test]
fn two_uri_sans_are_refused() {
    let two = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names.push(uri_name("spiffe://mesh.internal/ns/default/svc/other"));
    };
    leaf_refused(two, "certificate has 2 URI SANs; an SVID has exactly one");
    // Also when the second is the same, or no SPIFFE id at all.
    leaf_refused(
        |params| params.subject_alt_names.push(params.subject_alt_names[0].clone()),
        "has 2 URI SANs",
    );
    leaf_refused(|params| params.subject_alt_names.push(uri_name("https://example.org/")), "has 2 URI SANs");
}

#[test]
fn no_uri_san_is_refused() {
    leaf_refused(
        |params| params.subject_alt_names.clear(),
        "certificate has 0 URI SANs; an SVID has exactly one",
    );
    let dns = SanType::DnsName("web.default.mesh".try_into().expect("ASCII"));
    leaf_refused(|params| params.subject_alt_names = vec![dns], "certificate has 0 URI SANs");
}

#[test]
fn other_sans_beside_the_id_are_taken() {
    let world = world();
    let chain = world.bad_leaf(WEB, |params| {
        params.subject_alt_names.push(SanType::DnsName("web.default.mesh".try_into().expect("ASCII")));
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    });
    taken(&world, &chain, &world.trust());
}

#[test]
fn uri_sans_that_are_no_spiffe_ids_are_refused() {
    for (uri, want) in [
        ("https://mesh.internal/ns/default/svc/web", "must start with spiffe://"),
        ("SPIFFE://mesh.internal/ns/default/svc/web", "must start with spiffe://"),
        ("spiffe:///ns/default/svc/web", "trust domain must have 1 to 255 characters"),
        ("spiffe://mesh.internal:8443/ns/default/svc/web", "trust domain 'mesh.internal:8443' may only have"),
        ("spiffe://me@mesh.internal/ns/default/svc/web", "trust domain 'me@mesh.internal' may only have"),
        ("spiffe://mesh.internal/ns/default/svc/web?a=b", "path segment 'web?a=b'"),
        ("spiffe://mesh.internal/ns/default/svc/web#a", "path segment 'web#a'"),
        ("spiffe://mesh.internal/ns/default/svc/web/", "path segment ''"),
        ("spiffe://mesh.internal/ns//svc/web", "path segment ''"),
        ("spiffe://mesh.internal/ns/../svc/web", "path segment '..'"),
        ("spiffe://mesh.internal/ns/d%65fault/svc/web", "path segment 'd%65fault'"),
    ] {
        let world = world();
        let chain = world.bad_leaf(WEB, |params| params.subject_alt_names = vec![uri_name(uri)]);
        refused(&world, &chain, want);
    }
    let long = format!("spiffe://mesh.internal/{}", "x".repeat(2_048));
    leaf_refused(|params| params.subject_alt_names = vec![uri_name(&long)], "must have at most 2048 bytes");
}

#[test]
fn an_id_of_2048_bytes_is_taken() {
    let world = world();
    let path = format!("/{}", "x".repeat(2_048 - "spiffe://mesh.internal/".len()));
    let chain = world.leaf(&path);
    let peer = verify(&chain.certs, &world.trust().load(), Usage::Client, unix(NOW)).expect("the longest id");
    assert_eq!(peer.id.to_string().len(), 2_048);
}

#[test]
fn a_leaf_without_path_is_refused() {
    leaf_refused(
        |params| params.subject_alt_names = vec![uri_name("spiffe://mesh.internal")],
        "spiffe://mesh.internal names a trust domain, not a workload",
    );
}

#[test]
fn another_trust_domain_is_refused() {
    let theirs = "spiffe://other.example/ns/default/svc/web";
    let want = "spiffe://other.example/ns/default/svc/web is of another trust domain than mesh.internal";
    leaf_refused(|params| params.subject_alt_names = vec![uri_name(theirs)], want);
    // Their own authority signed it, as in life.
    let other = World { root: Authority::root("root", "spiffe://other.example"), ..world() };
    let theirs_signed =
        other.leaf_of(&other.root, WEB, |params| params.subject_alt_names = vec![uri_name(theirs)]);
    refused(&world(), &theirs_signed, want);
}

// --- the leaf's other fields -------------------------------------------------------------------

#[test]
fn a_ca_flag_on_a_leaf_is_refused() {
    let want = "spiffe://mesh.internal/ns/default/svc/web: the CA flag is set on a leaf certificate";
    leaf_refused(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), want);
}

#[test]
fn a_signing_certificate_does_not_authenticate() {
    let world = world();
    let authority = world.root.authority("meshd-2", |params| {
        params.subject_alt_names = vec![uri_name("spiffe://mesh.internal/ns/default/svc/web")];
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
    });
    let leaf = world.leaf_of(&authority, WEB, |_| {});
    // Its own certificate in place of a leaf; the key does not matter, as the certificate is judged first.
    let chain = Chain { certs: vec![authority.cert.clone()], key: leaf.key };
    refused(&world, &chain, "the CA flag is set on a leaf certificate");
}

#[test]
fn key_cert_sign_on_a_leaf_is_refused() {
    let want = "key usage keyCertSign is set on a leaf certificate";
    leaf_refused(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign), want);
}

#[test]
fn crl_sign_on_a_leaf_is_refused() {
    let want = "key usage cRLSign is set on a leaf certificate";
    leaf_refused(|params| params.key_usages.push(KeyUsagePurpose::CrlSign), want);
}

#[test]
fn a_leaf_without_key_usage_is_refused() {
    leaf_refused(|params| params.key_usages.clear(), "the key usage extension is missing");
}

#[test]
fn key_usage_that_is_not_critical_is_refused() {
    let uncritical = |params: &mut rcgen::CertificateParams| {
        params.key_usages.clear();
        params.custom_extensions.push(extension(&[2, 5, 29, 15], false, &[0x03, 0x02, 0x07, 0x80]));
    };
    leaf_refused(uncritical, "the key usage extension is not marked critical");
}

#[test]
fn a_leaf_without_digital_signature_is_refused() {
    let want = "key usage digitalSignature is not set";
    leaf_refused(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement], want);
}

#[test]
fn key_agreement_beside_digital_signature_is_taken() {
    let world = world();
    let chain = world.bad_leaf(WEB, |params| {
        params.key_usages.extend([KeyUsagePurpose::KeyAgreement, KeyUsagePurpose::KeyEncipherment]);
    });
    taken(&world, &chain, &world.trust());
}

#[test]
fn extended_key_usage_must_have_both_or_be_absent() {
    let only = |usage| move |params: &mut rcgen::CertificateParams| params.extended_key_usages = vec![usage];
    leaf_refused(only(ExtendedKeyUsagePurpose::ServerAuth), "extended key usage lacks clientAuth");
    leaf_refused(only(ExtendedKeyUsagePurpose::ClientAuth), "extended key usage lacks serverAuth");
    leaf_refused(only(ExtendedKeyUsagePurpose::CodeSigning), "extended key usage lacks serverAuth");
    let world = world();
    let absent = world.bad_leaf(WEB, |params| params.extended_key_usages.clear());
    taken(&world, &absent, &world.trust());
}

/// The SAN extension of the web service's id, byte by byte.
fn san(critical: bool) -> rcgen::CustomExtension {
    let uri = format!("spiffe://{DOMAIN}{WEB}");
    let length = u8::try_from(uri.len()).expect("short");
    extension(&[2, 5, 29, 17], critical, &[&[0x30, length + 2, 0x86, length], uri.as_bytes()].concat())
}

#[test]
fn an_empty_subject_needs_a_critical_san() {
    let with = |critical| {
        move |params: &mut rcgen::CertificateParams| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.subject_alt_names.clear();
            params.custom_extensions.push(san(critical));
        }
    };
    leaf_refused(with(false), "the subject is empty and the SAN extension is not marked critical");
    let world = world();
    taken(&world, &world.bad_leaf(WEB, with(true)), &world.trust());
}

#[test]
fn unknown_critical_extensions_are_refused() {
    let unknown = |critical| {
        move |params: &mut rcgen::CertificateParams| {
            params.custom_extensions.push(extension(&[1, 3, 6, 1, 4, 1, 99_999, 1], critical, &[0x05, 0x00]));
        }
    };
    leaf_refused(unknown(true), "a critical extension that is not understood");
    let world = world();
    taken(&world, &world.bad_leaf(WEB, unknown(false)), &world.trust());
}

#[test]
fn extensions_that_cannot_be_read_are_refused() {
    let garbled = |params: &mut rcgen::CertificateParams| {
        params.is_ca = IsCa::NoCa;
        params.custom_extensions.push(extension(&[2, 5, 29, 19], true, &[0x01]));
    };
    leaf_refused(garbled, "malformed certificate");
    let doubled = |params: &mut rcgen::CertificateParams| params.custom_extensions.push(san(true));
    leaf_refused(doubled, "malformed certificate");
}

// --- the path ----------------------------------------------------------------------------------

#[test]
fn an_expired_certificate_is_refused() {
    let want = "spiffe://mesh.internal/ns/default/svc/web: the certificate expired at 2027-01-15T07:59:59Z";
    leaf_refused(valid(NOW - 72 * HOUR, NOW - 1), want);
}

#[test]
fn a_certificate_that_is_not_yet_valid_is_refused() {
    let want =
        "spiffe://mesh.internal/ns/default/svc/web: the certificate is not valid before 2027-01-15T08:00:01Z";
    leaf_refused(valid(NOW + 1, NOW + 72 * HOUR), want);
}

#[test]
fn an_unknown_root_is_refused() {
    let stranger = world();
    refused(&world(), &stranger.leaf(WEB), "web is not signed by a root of mesh.internal");
    let world = world();
    let alone = Chain { certs: world.leaf(WEB).certs[..1].to_vec(), key: world.leaf(WEB).key };
    refused(&world, &alone, "web is not signed by a root of mesh.internal");
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let (world, stranger) = (world(), world());
    // Signed by a stranger's intermediate of the same name; presented with ours.
    let mut chain = stranger.leaf(WEB);
    chain.certs[1] = world.intermediate.cert.clone();
    refused(&world, &chain, "web is not signed by a root of mesh.internal");
}

#[test]
fn an_expired_signing_certificate_is_refused() {
    let want = "web: a signing certificate of its chain expired at 2027-01-15T07:59:59Z";
    authority_refused(valid(NOW - 72 * HOUR, NOW - 1), want);
}

#[test]
fn a_signing_certificate_without_ca_flag_is_refused() {
    let want = "web: signing certificate 'CN=meshd-2' has no CA flag";
    authority_refused(|params| params.is_ca = IsCa::ExplicitNoCa, want);
    authority_refused(|params| params.is_ca = IsCa::NoCa, want);
}

#[test]
fn a_signing_certificate_without_key_cert_sign_is_refused() {
    let want = "signing certificate 'CN=meshd-2' lacks key usage keyCertSign";
    authority_refused(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature], want);
    authority_refused(
        |params| params.key_usages.clear(),
        "signing certificate 'CN=meshd-2' has no key usage",
    );
    let uncritical = |params: &mut rcgen::CertificateParams| {
        params.key_usages.clear();
        params.custom_extensions.push(extension(&[2, 5, 29, 15], false, &[0x03, 0x02, 0x02, 0x04]));
    };
    authority_refused(uncritical, "has a key usage extension that is not marked critical");
}

#[test]
fn a_signing_certificate_whose_id_has_a_path_is_refused() {
    let named = |uri: &'static str| {
        move |params: &mut rcgen::CertificateParams| params.subject_alt_names = vec![uri_name(uri)]
    };
    let want = "signing certificate 'CN=meshd-2' has the id spiffe://mesh.internal/meshd/2 with a path";
    authority_refused(named("spiffe://mesh.internal/meshd/2"), want);
    authority_refused(
        named("spiffe://other.example"),
        "has the id spiffe://other.example of another trust domain",
    );
    authority_refused(named("https://mesh.internal"), "no SPIFFE id: must start with spiffe://");
    let two = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names.push(uri_name("spiffe://mesh.internal"));
    };
    authority_refused(two, "has 2 URI SANs; at most one is allowed");
}

#[test]
fn a_signing_certificate_without_id_is_taken() {
    let world = world();
    let plain = world.root.authority("meshd-2", |params| params.subject_alt_names.clear());
    taken(&world, &world.leaf_of(&plain, WEB, |_| {}), &world.trust());
}

#[test]
fn a_path_longer_than_its_constraint_is_refused() {
    let world = world();
    let below = world.intermediate.authority("below", |_| {});
    let mut chain = world.leaf_of(&below, WEB, |_| {});
    chain.certs.push(world.intermediate.cert.clone());
    refused(&world, &chain, "longer than a signing certificate's pathLenConstraint allows");
}

#[test]
fn chains_without_end_are_not_read() {
    let world = world();
    let mut chain = world.leaf(WEB);
    chain.certs.extend(std::iter::repeat_n(world.intermediate.cert.clone(), 5));
    refused(&world, &chain, "a chain of 7 certificates; at most 6 are read");
}

#[test]
fn every_presented_signing_certificate_is_held_to_the_rules() {
    let world = world();
    let unneeded = world.root.authority("unneeded", |params| params.is_ca = IsCa::ExplicitNoCa);
    let mut chain = world.leaf(WEB);
    chain.certs.push(unneeded.cert);
    refused(&world, &chain, "signing certificate 'CN=unneeded' has no CA flag");
    let mut chain = world.leaf(WEB);
    chain.certs.push(world.root.cert.clone());
    taken(&world, &chain, &world.trust());
}

#[test]
fn a_flipped_bit_anywhere_in_the_chain_is_refused() {
    let world = world();
    let (chain, trust) = (world.leaf(WEB), world.trust().load());
    assert!(verify(&chain.certs, &trust, Usage::Client, unix(NOW)).is_ok());
    for place in 0..chain.certs.len() {
        for bit in 0..chain.certs[place].len() * 8 {
            let mut changed = chain.certs[place].to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut certs = chain.certs.clone();
            certs[place] = changed.into();
            let verified = verify(&certs, &trust, Usage::Client, unix(NOW));
            assert!(verified.is_err(), "certificate {place}, bit {bit}: {verified:?}");
        }
    }
}

#[test]
fn a_chain_that_was_found_sound_is_held_against_the_clock_each_time() {
    let world = world();
    let (chain, store) = (world.leaf(WEB), world.trust());
    let trust = store.load();
    let at = |now| verify(&chain.certs, &trust, Usage::Client, unix(now)).map(drop);
    let text = |now| at(now).expect_err("not then").to_string();
    assert_eq!(at(NOW), Ok(()));
    assert!(text(NOW + 999 * HOUR).contains("expired"), "{}", text(NOW + 999 * HOUR));
    assert_eq!(at(NOW), Ok(()));
    assert!(text(NOW - 999 * HOUR).contains("not valid before"), "{}", text(NOW - 999 * HOUR));
}

// --- distrust ----------------------------------------------------------------------------------

fn distrusting(world: &World, distrusted: Distrusted) -> Arc<TrustStore> {
    TrustStore::new(world.trust_but(distrusted))
}

#[test]
fn a_distrusted_id_is_refused() {
    let world = world();
    let trust = distrusting(&world, Distrusted { ids: [(id(WEB), NOW)].into(), ..Default::default() });
    refused_by(
        &world,
        &world.leaf(WEB),
        &trust,
        "/svc/web is distrusted, by id spiffe://mesh.internal/ns/default/svc/web",
    );
}

#[test]
fn a_service_of_a_distrusted_node_is_refused_until_it_is_set_up_anew() {
    let world = world();
    let host = "host-b".parse().expect("a name");
    let trust = distrusting(&world, Distrusted { nodes: [(host, NOW)].into(), ..Default::default() });
    let on_b = |params: &mut rcgen::CertificateParams| params.distinguished_name = unit("host-b");
    refused_by(&world, &world.bad_leaf(WEB, on_b), &trust, "/svc/web is distrusted, by node host-b");
    taken(&world, &world.leaf(WEB), &trust);
    // Signed one second later: `notBefore` is five minutes back.
    let anew = world.bad_leaf(WEB, |params| {
        on_b(params);
        valid(NOW + 1 - 300, NOW + 72 * HOUR)(params);
    });
    taken(&world, &anew, &trust);
}

#[test]
fn a_distrusted_intermediate_is_refused() {
    let world = world();
    let leaked = world.root.authority("meshd-2", |_| {});
    let entry = [(leaked.fingerprint(), NOW)].into();
    let trust = distrusting(&world, Distrusted { intermediates: entry, ..Default::default() });
    let want = format!("/svc/web is distrusted, by intermediate {}", leaked.fingerprint());
    refused_by(&world, &world.leaf_of(&leaked, WEB, |_| {}), &trust, &want);
    taken(&world, &world.leaf(WEB), &trust);
}

// --- several roots -----------------------------------------------------------------------------

#[test]
fn every_root_of_the_trust_is_believed_and_none_that_was_dropped() {
    let (world, second) = (world(), Authority::root("root 2", "spiffe://mesh.internal"));
    let by_second = second.authority("meshd-2", |_| {});
    let chain = world.leaf_of(&by_second, WEB, |_| {});
    let both = vec![world.root.cert.clone(), second.cert.clone()];
    let trust = TrustStore::new(Trust::new(domain(), 2, both, Distrusted::default()).expect("trust"));
    taken(&world, &chain, &trust);
    trust.replace(world.trust_but(Distrusted::default()));
    refused_by(&world, &chain, &trust, "is not signed by a root of mesh.internal");
}

#[test]
fn a_root_must_be_a_signing_certificate_of_the_domain() {
    let world = world();
    let trust = |cert: &rustls::pki_types::CertificateDer<'static>| {
        Trust::new(domain(), 1, vec![cert.clone()], Distrusted::default()).expect_err("no root").to_string()
    };
    assert!(trust(&world.leaf(WEB).certs[0]).contains("has no CA flag"));
    let foreign = Authority::root("root", "spiffe://other.example");
    assert!(trust(&foreign.cert).contains("has the id spiffe://other.example of another trust domain"));
    let none = Trust::new(domain(), 1, Vec::new(), Distrusted::default()).expect_err("nobody").to_string();
    assert_eq!(none, "no root certificate for mesh.internal");
    assert!(trust(&vec![1, 2, 3].into()).starts_with("roots[0]: malformed certificate"));
}
