//! Against a control plane of one object, which loses answers on demand.

use std::{
    io,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use model::{client::Settings, kind::Kind};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// One object, or none.
#[derive(Default)]
struct Plane {
    object: Option<Value>,
    revision: u64,
    /// So many writes are done and not answered.
    loses: usize,
}

type Shared = Arc<Mutex<Plane>>;

/// The plane, and a way to it.
async fn plane(object: Option<&Object>, loses: usize) -> (Shared, Control) {
    let key = KeyPair::generate().expect("chance");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("signed");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let tls = tls.expect("versions").with_no_client_auth();
    let tls = tls.with_single_cert(vec![certificate.der().clone()], key).expect("they fit");
    let plane = Plane { object: object.map(|object| json!(object)), revision: 7, loses };
    let (plane, listener) =
        (Arc::new(Mutex::new(plane)), TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(listen(listener, TlsAcceptor::from(Arc::new(tls)), plane.clone()));
    let address = format!("https://localhost:{port}");
    let control = Control::new(vec![Settings { address, token: None, roots: Some(certificate.pem()) }]);
    (plane, control.expect("settings"))
}

async fn listen(listener: TcpListener, tls: TlsAcceptor, plane: Shared) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, plane) = (tls.clone(), plane.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = hyper::service::service_fn(move |request| answer(plane.clone(), request));
            // An answer that is lost ends the connection with an error.
            _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

async fn answer(plane: Shared, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let said = |name| {
        head.headers.get(name).map(|value| value.to_str().expect("ASCII").trim_matches('"').to_owned())
    };
    let mut plane = plane.lock().expect("sound");
    let present = plane.object.as_ref().map(|object| object["metadata"]["revision"].to_string());
    let unmet = match (said(header::IF_MATCH), said(header::IF_NONE_MATCH)) {
        (_, Some(_)) => present.is_some(),
        (Some(wanted), _) => present.as_ref().is_some_and(|revision| *revision != wanted),
        _ => false,
    };
    let (status, shown) = match (&head.method, unmet) {
        (_, true) => (StatusCode::PRECONDITION_FAILED, None),
        (&Method::GET, _) => (StatusCode::OK, plane.object.clone()),
        (&Method::DELETE, _) => (StatusCode::OK, plane.object.take()),
        _ if present.is_none() && said(header::IF_MATCH).is_some() => (StatusCode::NOT_FOUND, None),
        _ => {
            plane.revision += 1;
            let mut object: Value = serde_json::from_slice(&body)?;
            object["metadata"]["revision"] = json!(plane.revision);
            plane.object = Some(object.clone());
            if present.is_none() {
                object["status"] = json!({"token": "told once"});
            }
            (StatusCode::OK, Some(object))
        }
    };
    if head.method != Method::GET && status == StatusCode::OK && plane.loses > 0 {
        plane.loses -= 1;
        return Err(io::Error::other("lost"));
    }
    let status = if status == StatusCode::OK && shown.is_none() { StatusCode::NOT_FOUND } else { status };
    let body = shown.unwrap_or_else(|| json!({"title": "", "status": status.as_u16()})).to_string();
    Ok(Response::builder().status(status).body(Full::from(body)).expect("an answer"))
}

fn object(kind: Kind, roles: &[&str]) -> Object {
    let spec = json!({"roles": roles});
    let mut object = Object::new(
        Key::mesh_wide(kind, "a".parse().expect("a name")),
        spec.as_object().expect("fields").clone(),
    );
    object.metadata.revision = 7;
    object
}

fn spec(plane: &Shared) -> Value {
    plane.lock().expect("sound").object.as_ref().map_or(Value::Null, |object| object["spec"]["roles"].clone())
}

#[tokio::test]
async fn a_lost_answer_is_no_lost_write_but_a_lost_secret_is_told() {
    let (role, token) = (object(Kind::Role, &["a"]), object(Kind::AccessToken, &["a"]));
    let (_, control) = plane(None, 1).await;
    assert!(create(&control, &role).await.is_ok(), "what was made at the first try is ours");
    let (_, control) = plane(None, 0).await;
    let made = create(&control, &token).await.expect("it is made");
    assert_eq!(made.status.expect("a status")["token"], json!("told once"));
    let (_, control) = plane(None, 1).await;
    assert!(matches!(create(&control, &token).await, Err(Undone::SecretLost(_))));

    let (shared, control) = plane(Some(&role), 1).await;
    assert!(update(&control, &object(Kind::Role, &["b"]), &role, 7).await.is_ok());
    assert_eq!(spec(&shared), json!(["b"]));
    let (shared, control) = plane(Some(&role), 1).await;
    assert!(delete(&control, &role, 7, None).await.is_ok());
    assert_eq!(spec(&shared), Value::Null);
}

#[tokio::test]
async fn what_is_there_already_is_not_taken_over() {
    let role = object(Kind::Role, &["a"]);
    let (_, control) = plane(Some(&role), 0).await;
    assert!(matches!(create(&control, &role).await, Err(Undone::Exists(_))), "though it says the same");
    // Our own try was lost on the way there, and somebody else made another one.
    let (shared, control) = plane(Some(&object(Kind::Role, &["b"])), 0).await;
    assert!(matches!(create(&control, &role).await, Err(Undone::Exists(_))));
    assert_eq!(spec(&shared), json!(["b"]));
}

#[tokio::test]
async fn who_changed_what_is_written_wins_and_who_changed_its_status_does_not() {
    let (before, after) = (object(Kind::Role, &["a"]), object(Kind::Role, &["b"]));
    let (shared, control) = plane(Some(&before), 0).await;
    assert!(update(&control, &after, &before, 5).await.is_ok(), "another revision says the same");
    assert_eq!(spec(&shared), json!(["b"]));
    assert!(matches!(delete(&control, &before, 5, None).await, Err(Undone::Changed(_))));

    let (shared, control) = plane(Some(&object(Kind::Role, &["c"])), 0).await;
    assert!(matches!(update(&control, &after, &before, 5).await, Err(Undone::Changed(_))));
    assert!(matches!(delete(&control, &before, 5, None).await, Err(Undone::Changed(_))));
    assert_eq!(spec(&shared), json!(["c"]));

    let (_, control) = plane(None, 0).await;
    assert!(matches!(update(&control, &after, &before, 5).await, Err(Undone::Gone(_))));
    assert!(delete(&control, &before, 5, None).await.is_ok(), "gone is as good as removed");
}
