//! How the Terraform provider is started and ends: by Terraform alone, and never later than Terraform.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use mesh_tests::{binaries, scratch::Said};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

const COOKIE: (&str, &str) =
    ("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2");

fn certificate() -> String {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("chance");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.self_signed(&key).expect("signed").pem()
}

#[test]
fn nobody_but_terraform_starts_it() {
    let provider = || {
        let mut provider = Command::new(binaries::path("terraform-provider-mesh"));
        provider.env_remove(COOKIE.0).stdin(Stdio::null());
        provider
    };
    let said = |command: &mut Command| Said::from(command.output().expect("it starts"));
    let by_hand = said(&mut provider()).failed(1);
    assert!(by_hand.contains("is started by Terraform"), "{by_hand}");
    let old = said(provider().env(COOKIE.0, COOKIE.1).env("PLUGIN_PROTOCOL_VERSIONS", "5")).failed(1);
    assert!(old.contains("speaks protocol 5"), "{old}");
    let plain = said(provider().env(COOKIE.0, COOKIE.1).env("PLUGIN_PROTOCOL_VERSIONS", "5,6")).failed(1);
    assert!(plain.contains("PLUGIN_CLIENT_CERT"), "{plain}");
}

#[test]
fn it_ends_when_terraform_is_killed() {
    // A shell is the Terraform that dies: it starts the provider and waits.
    let mut terraform = Command::new("sh")
        .args(["-c", "\"$0\" & wait"])
        .arg(binaries::path("terraform-provider-mesh"))
        .env(COOKIE.0, COOKIE.1)
        .env("PLUGIN_PROTOCOL_VERSIONS", "6")
        .env("PLUGIN_CLIENT_CERT", certificate())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell starts");
    let mut stdout = BufReader::new(terraform.stdout.take().expect("it was asked for"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the handshake");
    let parts: Vec<_> = line.trim().split('|').collect();
    assert_eq!((parts.len(), parts[0], parts[1], parts[2], parts[4]), (6, "1", "6", "tcp", "grpc"), "{line}");
    assert!(parts[3].starts_with("127.0.0.1:") && !parts[5].contains('='), "{line}");
    terraform.kill().expect("it runs");
    terraform.wait().expect("it can be waited for");
    // The provider held the other end: this returns when it has ended, and the test is ended if it does not.
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("a pipe");
    assert_eq!(rest, "");
}
