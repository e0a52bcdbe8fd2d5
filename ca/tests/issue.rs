//! From a request to a certificate that others take: our own verifier, and openssl.

use std::{path::Path, process::Command, time::Duration};

use ca::{
    Csr, CsrError, Grant, Intermediate, NodeGrant, Root, Sealed, Serial, SignerError, Ttl, Unlock, decide,
};
use model::{
    identity::{Identity, SpiffeId, TrustDomain},
    trust::{Distrusted, TrustBundle},
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{ServerName, UnixTime};
use svid::{Accept, Expect, KeyRequest, Svid, Trust, Usage, pem, verify};

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3_600;

fn unix(secs: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(secs))
}

fn domain() -> TrustDomain {
    "mesh.internal".parse().expect("a domain")
}

fn serial(n: u8) -> Serial {
    Serial::from_random([n; 16])
}

fn identity(path: &str) -> Identity {
    id(path).identity().clone()
}

fn id(path: &str) -> SpiffeId {
    format!("spiffe://mesh.internal{path}").parse().expect("an id")
}

/// A request with its key.
fn request() -> (Csr, KeyRequest) {
    let request = KeyRequest::generate().expect("a key");
    let csr = Csr::from_pem(&request.csr_pem).expect("a request");
    assert_eq!(csr.fingerprint(), request.fingerprint);
    (csr, request)
}

struct Authorities {
    root: Root,
    intermediate: Intermediate,
}

fn authorities() -> Authorities {
    let root = Root::generate(&domain(), serial(1), unix(NOW)).expect("a root");
    let (csr, request) = request();
    let certificate = root.sign_intermediate(&csr, 1, serial(2), unix(NOW)).expect("it signs");
    let intermediate =
        Intermediate::from_pem(&domain(), &certificate, &request.key_pem).expect("an intermediate");
    Authorities { root, intermediate }
}

impl Authorities {
    fn trust(&self) -> Trust {
        Trust::from_bundle(&TrustBundle {
            trust_domain: domain(),
            epoch: "e".to_owned(),
            generation: 1,
            roots: vec![self.root.certificate_pem()],
            distrusted: Distrusted::default(),
        })
        .expect("trust")
    }

    /// A certificate for the service that host-a may run.
    fn sign(&self, grant: &Grant, csr: &Csr, ttl: Ttl, now: u64) -> ca::Signed {
        self.intermediate.sign(grant, csr, ttl, serial(3), unix(now)).expect("it signs")
    }
}

fn web_on_host_a() -> Grant {
    let node = NodeGrant {
        name: "host-a".parse().expect("a name"),
        services: vec!["default/*".parse().expect("a glob")],
        disabled: false,
    };
    decide(&node, &identity("/ns/default/svc/web"), &identity("/node/host-a")).expect("granted")
}

fn meshd() -> Grant {
    Grant::member(7, &["cp1".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])
}

fn host_a() -> Grant {
    Grant::joined(&"host-a".parse().expect("a name"))
}

#[test]
fn what_is_signed_is_an_identity() {
    let authorities = authorities();
    let trust = authorities.trust();
    let table = [(web_on_host_a(), "/ns/default/svc/web"), (host_a(), "/node/host-a"), (meshd(), "/meshd/7")];
    for (grant, path) in table {
        let (csr, request) = request();
        let signed = authorities.sign(&grant, &csr, Ttl::default(), NOW);
        let svid = Svid::from_pem(&signed.chain_pem, &request.key_pem).expect("the key fits");
        assert_eq!(svid.chain.len(), 2, "leaf and intermediate, no root");
        assert_eq!((svid.not_before, svid.not_after), (unix(NOW - 300), unix(NOW + 72 * HOUR)));
        assert_eq!(signed.not_after, svid.not_after);
        for (usage, now) in
            [(Usage::Client, NOW), (Usage::Server, NOW - 299), (Usage::Client, NOW + 71 * HOUR)]
        {
            let peer = verify(&svid.chain, &trust, usage, unix(now)).expect("it verifies");
            assert_eq!(peer.id, id(path));
            let node = (path != "/meshd/7").then(|| "host-a".parse().expect("a name"));
            assert_eq!(peer.node, node);
        }
    }
}

#[test]
fn a_meshd_is_dialled_by_its_names_and_addresses() {
    let authorities = authorities();
    let chain = pem::certificates(&authorities.sign(&meshd(), &request().0, Ttl::default(), NOW).chain_pem)
        .expect("PEM");
    let dial = |name: &str| {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        Expect::Meshd.recheck(Some(&chain), &name, &authorities.trust(), unix(NOW)).is_ok()
    };
    assert!(dial("cp1") && dial("127.0.0.1") && dial("::1"));
    assert!(!dial("cp2") && !dial("127.0.0.2"));
    assert!(Accept::Members.recheck(Some(&chain), &authorities.trust(), unix(NOW)).is_ok());
}

#[test]
fn nothing_but_the_key_is_taken_from_a_request() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationalUnitName, "host-b");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.subject_alt_names = vec![
        SanType::URI("spiffe://mesh.internal/meshd/1".try_into().expect("ASCII")),
        SanType::DnsName("cp1".try_into().expect("ASCII")),
    ];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], b"\x05\x00".to_vec())];
    let csr = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    let csr = Csr::from_pem(&csr).expect("whatever it asks for, the key is fine");

    let authorities = authorities();
    let signed = authorities.sign(&web_on_host_a(), &csr, Ttl::default(), NOW);
    let svid = Svid::from_pem(&signed.chain_pem, &key.serialize_pem()).expect("the key fits");
    let peer = verify(&svid.chain, &authorities.trust(), Usage::Server, unix(NOW)).expect("an ordinary leaf");
    assert_eq!((peer.id, peer.node), (id("/ns/default/svc/web"), Some("host-a".parse().expect("a name"))));

    let text = openssl_text(&svid.chain[0]);
    for asked in
        ["CA:TRUE", "Certificate Sign", "CRL Sign", "Code Signing", "DNS:", "meshd/1", "host-b", "1.2.3.4"]
    {
        assert!(!text.contains(asked), "{asked} came through:\n{text}");
    }
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let (_, request) = request();
    let der = |text: &str| {
        use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
        CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).expect("PEM").to_vec()
    };
    let mut forged = der(&request.csr_pem);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(Csr::from_der(&forged), Err(CsrError::Signature));
    // Another's key, with the signature of one's own.
    let other = der(&KeyRequest::generate().expect("a key").csr_pem);
    let mut stolen = der(&request.csr_pem);
    let at = stolen.windows(2).position(|bytes| bytes == [0x03, 0x42]).expect("the point");
    stolen[at..at + 68].copy_from_slice(&other[at..at + 68]);
    assert_eq!(Csr::from_der(&stolen), Err(CsrError::Signature));
    let mut trailing = der(&request.csr_pem);
    trailing.push(0);
    assert!(matches!(Csr::from_der(&trailing), Err(CsrError::Malformed(_))));
    assert!(matches!(Csr::from_der(b"nothing"), Err(CsrError::Malformed(_))));
    assert!(matches!(Csr::from_pem("nothing"), Err(CsrError::Pem(_))));
    assert!(matches!(Csr::from_pem(&request.key_pem), Err(CsrError::Pem(_))), "a key is no request");
    assert_eq!(Csr::from_pem(&"x".repeat(8_193)), Err(CsrError::Length(8_193)));
}

#[test]
fn a_flipped_bit_in_a_request_never_yields_another_key() {
    let csr = CertificateParams::default()
        .serialize_request(&KeyPair::generate().expect("a key"))
        .expect("a request");
    let taken = Csr::from_der(csr.der()).expect("a request");
    let mut refused = 0;
    for bit in 0..csr.der().len() * 8 {
        let mut changed = csr.der().to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        match Csr::from_der(&changed) {
            // Some bits of the frame around what is signed are read leniently.
            Ok(same) => assert_eq!(same, taken, "bit {bit}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > csr.der().len() * 7, "only {refused} of {} were refused", csr.der().len() * 8);
}

#[test]
fn only_p_256_keys_are_certified() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).expect("a request");
        assert!(matches!(Csr::from_der(csr.der()), Err(CsrError::Key(_))), "{algorithm:?}");
    }
}

#[test]
fn a_leaf_ends_with_its_intermediate_at_the_latest() {
    let authorities = authorities();
    let end = NOW + 30 * 24 * HOUR;
    let week = Ttl::new(Duration::from_secs(7 * 24 * HOUR)).expect("the longest");
    let (csr, _) = request();
    assert_eq!(authorities.intermediate.validity(), (unix(NOW - 300), unix(end)));
    assert_eq!(authorities.sign(&host_a(), &csr, week, end - 8 * 24 * HOUR).not_after, unix(end - 24 * HOUR));
    assert_eq!(authorities.sign(&host_a(), &csr, week, end - 24 * HOUR).not_after, unix(end));
    let late = authorities.intermediate.sign(&host_a(), &csr, week, serial(3), unix(end + 1));
    assert!(matches!(late, Err(SignerError::NotValid { .. })), "{late:?}");
    let early = authorities.intermediate.sign(&host_a(), &csr, week, serial(3), unix(NOW - 301));
    assert!(matches!(early, Err(SignerError::NotValid { .. })), "{early:?}");
}

#[test]
fn an_intermediate_signs_leafs_only_and_a_leaf_nothing() {
    let authorities = authorities();
    let (csr, request) = request();
    let leaf = authorities.sign(&host_a(), &csr, Ttl::default(), NOW);
    let leaf = pem::encode("CERTIFICATE", &pem::certificates(&leaf.chain_pem).expect("PEM")[0]);
    let refused =
        Intermediate::from_pem(&domain(), &leaf, &request.key_pem).err().expect("a leaf").to_string();
    assert!(refused.contains("has no CA flag"), "{refused}");
    let other = "other.example".parse().expect("a domain");
    let certificate = authorities.intermediate.certificate_pem();
    let refused =
        Intermediate::from_pem(&other, &certificate, &request.key_pem).err().expect("foreign").to_string();
    assert!(refused.contains("has the id spiffe://mesh.internal of another trust domain"), "{refused}");
    let refused =
        Intermediate::from_pem(&domain(), &certificate, &request.key_pem).err().expect("another's key");
    assert_eq!(refused, SignerError::Mismatch);
}

#[test]
fn a_root_rests_sealed_and_signs_again() {
    let authorities = authorities();
    let unlock = Unlock::new(ca::seal::UnlockKind::Keyfile, &[7; 32]).expect("long enough");
    let sealed = Sealed::seal(&authorities.root.secret(), &[unlock]).expect("it seals");
    let unlock = Unlock::new(ca::seal::UnlockKind::Keyfile, &[7; 32]).expect("long enough");
    let secret = sealed.open(&unlock).expect("it opens");
    let root =
        Root::from_parts(&domain(), &authorities.root.certificate_pem(), &secret).expect("the same root");
    assert_eq!((root.pin(), root.not_after()), (authorities.root.pin(), authorities.root.not_after()));
    let (csr, request) = request();
    let certificate = root.sign_intermediate(&csr, 2, serial(9), unix(NOW)).expect("it signs");
    let second = Intermediate::from_pem(&domain(), &certificate, &request.key_pem).expect("an intermediate");
    assert_ne!(second.fingerprint(), authorities.intermediate.fingerprint());
    let signed =
        second.sign(&host_a(), &request_csr(), Ttl::default(), serial(3), unix(NOW)).expect("it signs");
    let chain = pem::certificates(&signed.chain_pem).expect("PEM");
    assert!(verify(&chain, &authorities.trust(), Usage::Client, unix(NOW)).is_ok());
    let other = Root::generate(&domain(), serial(1), unix(NOW)).expect("a root");
    let mixed = Root::from_parts(&domain(), &other.certificate_pem(), &secret);
    assert_eq!(mixed.err().expect("another's key"), SignerError::Mismatch);
}

fn request_csr() -> Csr {
    request().0
}

#[test]
fn the_distrust_of_an_intermediate_is_by_its_fingerprint() {
    let authorities = authorities();
    let signed = authorities.sign(&host_a(), &request_csr(), Ttl::default(), NOW);
    let chain = pem::certificates(&signed.chain_pem).expect("PEM");
    let intermediates = [(authorities.intermediate.fingerprint().to_owned(), NOW)].into();
    let roots = authorities.trust().roots().to_vec();
    let trust =
        Trust::new(domain(), 2, roots, Distrusted { intermediates, ..Default::default() }).expect("trust");
    let refused = verify(&chain, &trust, Usage::Client, unix(NOW)).expect_err("distrusted").to_string();
    assert!(refused.contains("is distrusted, by intermediate"), "{refused}");
}

// --- openssl -----------------------------------------------------------------------------------

/// Runs the openssl of the machine; these tests need it (Debian: openssl).
#[track_caller]
fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl must be installed");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "openssl {arguments:?}:\n{text}");
    text
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a temporary file");
    path.to_str().expect("UTF-8").to_owned()
}

fn openssl_text(der: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write(folder.path(), "cert.pem", &pem::encode("CERTIFICATE", der));
    openssl(&["x509", "-in", &path, "-noout", "-text"])
}

#[test]
fn openssl_verifies_the_chain_for_both_ends() {
    let authorities = authorities();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = write(folder.path(), "root.pem", &authorities.root.certificate_pem());
    let intermediate = write(folder.path(), "intermediate.pem", &authorities.intermediate.certificate_pem());
    for grant in [web_on_host_a(), host_a(), meshd()] {
        let chain = authorities.sign(&grant, &request_csr(), Ttl::default(), NOW).chain_pem;
        let leaf = write(folder.path(), "leaf.pem", &chain);
        for purpose in ["sslserver", "sslclient"] {
            let at = NOW.to_string();
            let text = openssl(&[
                "verify",
                "-x509_strict",
                "-attime",
                &at,
                "-purpose",
                purpose,
                "-CAfile",
                &root,
                "-untrusted",
                &intermediate,
                &leaf,
            ]);
            assert!(text.contains("OK"), "{text}");
        }
    }
}

#[test]
fn openssl_reads_the_fields_of_the_profile() {
    let authorities = authorities();
    let der = |pem_text: &str| pem::certificates(pem_text).expect("PEM")[0].to_vec();
    let check = |der: &[u8], wants: &[&str]| {
        let text = openssl_text(der).split_whitespace().collect::<Vec<_>>().join(" ");
        for want in wants {
            assert!(text.contains(want), "{want} is not in:\n{text}");
        }
    };
    let leaf = authorities.sign(&web_on_host_a(), &request_csr(), Ttl::default(), NOW).chain_pem;
    check(
        &der(&leaf),
        &[
            "Subject: OU = host-a",
            "NIST CURVE: P-256",
            "X509v3 Key Usage: critical Digital Signature X509v3",
            "X509v3 Extended Key Usage: TLS Web Server Authentication, TLS Web Client Authentication",
            "X509v3 Basic Constraints: critical CA:FALSE",
            "X509v3 Authority Key Identifier",
            "X509v3 Subject Alternative Name: URI:spiffe://mesh.internal/ns/default/svc/web",
            "Serial Number: 43:03:03:03:03:03:03:03:03:03:03:03:03:03:03:03",
        ],
    );
    let member = authorities.sign(&meshd(), &request_csr(), Ttl::default(), NOW).chain_pem;
    let names =
        "URI:spiffe://mesh.internal/meshd/7, DNS:cp1, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1";
    check(&der(&member), &[names, "Subject: CN = meshd-7"]);
    check(
        &der(&authorities.intermediate.certificate_pem()),
        &[
            "CA:TRUE, pathlen:0",
            "critical Certificate Sign X509v3",
            "URI:spiffe://mesh.internal",
            "CN = meshd-1 42020202",
        ],
    );
    check(
        &der(&authorities.root.certificate_pem()),
        &["CA:TRUE, pathlen:1", "critical Certificate Sign X509v3"],
    );
}

#[test]
fn openssl_takes_our_requests_and_we_take_those_of_openssl() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = write(folder.path(), "ours.csr", &KeyRequest::generate().expect("a key").csr_pem);
    assert!(openssl(&["req", "-in", &ours, "-noout", "-verify"]).contains("verify OK"));
    let (key, theirs) = (folder.path().join("key.pem"), folder.path().join("theirs.csr"));
    let (key, theirs) = (key.to_str().expect("UTF-8"), theirs.to_str().expect("UTF-8"));
    let curve = "ec_paramgen_curve:P-256";
    openssl(&[
        "req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", key, "-out", theirs, "-subj",
        "/CN=x",
    ]);
    let csr = std::fs::read_to_string(theirs).expect("a request");
    assert_eq!(Csr::from_pem(&csr).expect("a request").fingerprint().len(), 64);
    openssl(&[
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", theirs, "-subj", "/CN=x",
    ]);
    let csr = std::fs::read_to_string(theirs).expect("a request");
    assert!(matches!(Csr::from_pem(&csr), Err(CsrError::Key(_))));
}
