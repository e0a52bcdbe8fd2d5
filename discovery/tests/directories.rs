//! Types Nomad, Eureka and Kubernetes against servers of the tests' own, which are as strict as the documentation, and misbehave as told.
//! That clients which are not ours take them for what they stand for is seen in `tests/tests/discovery_peers.rs`.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use discovery::{
    News, Source, beat,
    files::Files,
    found::{Found, FoundKey, Instance},
    open,
};
use mesh_tests::{
    eureka::{self, Eureka},
    fake::{Fake, Manner},
    kubernetes::{self, Kubernetes},
    nomad::{self, Nomad},
    pki::Pki,
};
use model::{object::Parsed, resource::Resource};
use serde_json::{Value, json};

/// A source of such a spec.
fn source(spec: &Value, after: Duration) -> Box<dyn Source> {
    let object = json!({"kind": "DiscoverySource", "metadata": {"name": "old"}, "spec": spec});
    let Resource::DiscoverySource(spec) = Parsed::from_input(&object, None).expect("valid").resource else {
        panic!("{object}")
    };
    open(&spec, beat(after), &Files::default()).expect("a source")
}

/// The next that is no sign of life.
async fn next(source: &mut Box<dyn Source>) -> Result<String, String> {
    loop {
        return match source.next().await {
            Ok(News::Same | News::Silent(..) | News::Again(_)) => continue,
            Ok(News::Full(set)) => {
                let all: Vec<_> = set.iter().map(|(key, found)| show(key, Some(found))).collect();
                Ok(format!("full {}", all.join("; ")))
            }
            Ok(News::Changed(key, found)) => Ok(show(&key, found.as_ref())),
            Err(failure) => Err(failure.to_string()),
        };
    }
}

/// The next that is neither a sign of life nor a failure.
async fn told(source: &mut Box<dyn Source>) -> String {
    loop {
        if let Ok(told) = next(source).await {
            return told;
        }
    }
}

fn show(key: &FoundKey, found: Option<&Found>) -> String {
    let name = match &key.namespace {
        Some(namespace) => format!("{namespace}/{}", key.name),
        None => key.name.clone(),
    };
    let Some(found) = found else { return format!("{name} gone") };
    let instances = found.instances.values();
    let one = |one: &Instance| {
        let of_one = one.ports.first().map(|port| port.target_port.to_string());
        let port = one.port.map(|port| port.to_string()).or(of_one).unwrap_or_default();
        format!(" {}:{port} {}", one.address, one.health)
    };
    let instances: String = instances.map(one).collect();
    format!("{name}{instances}")
}

fn of_nomad(fake: &Fake<Nomad>, folder: &std::path::Path, namespace: &str) -> Value {
    let token = folder.join("token");
    std::fs::write(&token, format!("{}\n", nomad::TOKEN)).expect("written");
    json!({"type": "Nomad", "filter": {"tags": ["mesh"]},
           "nomad": {"address": fake.url, "tokenFile": token, "region": nomad::REGION, "namespace": namespace}})
}

#[tokio::test]
async fn nomad_s_services_are_told_once_and_then_as_they_change_each_in_its_namespace() {
    let (fake, folder) = (Fake::start(Nomad::default()).await, tempfile::tempdir().expect("a folder"));
    fake.api.put("default", "orders", &["1 10.0.0.1 8080 mesh"]);
    fake.api.put("shop", "orders", &["2 10.0.0.2 8080 mesh"]);
    fake.api.put("shop", "hidden", &["3 10.0.0.3 8080 other"]);
    let mut source = source(&of_nomad(&fake, folder.path(), "*"), Duration::from_secs(30));
    assert_eq!(
        next(&mut source).await.as_deref(),
        Ok("full default/orders 10.0.0.1:8080 Healthy; shop/orders 10.0.0.2:8080 Healthy")
    );
    let first = fake.api.asked();
    assert!(first.contains(&("/v1/service/orders".to_owned(), "shop".to_owned(), 0)), "{first:?}");
    assert!(!first.iter().any(|(path, ..)| path.contains("hidden")), "it is not wanted: {first:?}");
    fake.api.put("shop", "orders", &["2 10.0.0.2 8080 mesh", "4 10.0.0.4 8080 mesh"]);
    assert_eq!(
        next(&mut source).await.as_deref(),
        Ok("shop/orders 10.0.0.2:8080 Healthy 10.0.0.4:8080 Healthy")
    );
    fake.api.put("default", "orders", &[]);
    let mut gone = next(&mut source).await.expect("it is well");
    if gone == "default/orders" {
        // Without instances first, then without the service: two questions, and either may be answered first.
        gone = next(&mut source).await.expect("it is well");
    }
    assert_eq!(gone, "default/orders gone");
}

#[tokio::test]
async fn a_nomad_whose_index_goes_backwards_is_asked_anew_and_nothing_is_missed() {
    let (fake, folder) = (Fake::start(Nomad::default()).await, tempfile::tempdir().expect("a folder"));
    fake.api.put("shop", "orders", &["1 10.0.0.1 8080 mesh"]);
    let mut source = source(&of_nomad(&fake, folder.path(), "shop"), Duration::from_secs(3));
    next(&mut source).await.expect("it is well");
    fake.api.put("shop", "orders", &["1 10.0.0.7 8080 mesh"]);
    fake.api.restore(3);
    assert_eq!(next(&mut source).await.as_deref(), Ok("shop/orders 10.0.0.7:8080 Healthy"));
    fake.api.put("shop", "orders", &["1 10.0.0.8 8080 mesh"]);
    assert_eq!(next(&mut source).await.as_deref(), Ok("shop/orders 10.0.0.8:8080 Healthy"));
}

#[tokio::test]
async fn a_nomad_that_fails_says_nothing_that_counts() {
    let (fake, folder) = (Fake::start(Nomad::default()).await, tempfile::tempdir().expect("a folder"));
    fake.api.put("shop", "orders", &["1 10.0.0.1 8080 mesh"]);
    let spec = of_nomad(&fake, folder.path(), "shop");
    for (manner, want) in
        [(Manner::Failing, "answers 500"), (Manner::Halving, "breaks off"), (Manner::Limiting, "answers 429")]
    {
        fake.behave(manner);
        let mut source = source(&spec, Duration::from_secs(3));
        let failure = next(&mut source).await.expect_err("it fails");
        assert!(failure.contains(want), "{failure}");
        fake.behave(Manner::Well);
        assert_eq!(told(&mut source).await, "full shop/orders 10.0.0.1:8080 Healthy");
    }
    std::fs::write(folder.path().join("token"), "wrong\n").expect("written");
    let mut source = source(&spec, Duration::from_secs(3));
    let failure = next(&mut source).await.expect_err("it is refused");
    assert!(failure.contains("answers 403"), "{failure}");
}

#[tokio::test]
async fn over_tls_both_sides_show_who_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::make(folder.path()).expect("papers");
    let fake = Fake::start_tls(Nomad::default(), pki.acceptor.clone()).await;
    fake.api.put("shop", "orders", &["1 10.0.0.1 8080 mesh"]);
    let with = |papers: Value| {
        let mut spec = of_nomad(&fake, folder.path(), "shop");
        spec["nomad"].as_object_mut().expect("fields").extend(papers.as_object().expect("fields").clone());
        source(&spec, Duration::from_secs(3))
    };
    let mut right = with(json!({"caFile": pki.ca, "certFile": pki.certificate, "keyFile": pki.key}));
    assert_eq!(next(&mut right).await.as_deref(), Ok("full shop/orders 10.0.0.1:8080 Healthy"));
    let failure = next(&mut with(json!({"caFile": pki.ca}))).await.expect_err("nobody asks");
    assert!(failure.starts_with(&fake.url), "{failure}");
    let stranger = json!({"certFile": pki.certificate, "keyFile": pki.key});
    let failure = next(&mut with(stranger)).await.expect_err("the system does not trust it");
    assert!(failure.contains("cannot be reached"), "{failure}");
    // Files are read anew: who gets papers later is let in.
    let late = folder.path().join("late.pem");
    std::fs::write(&late, "").expect("written");
    let mut source = with(json!({"caFile": pki.ca, "certFile": late, "keyFile": pki.key}));
    let failure = next(&mut source).await.expect_err("it is empty");
    assert!(failure.contains("late.pem: is no certificate"), "{failure}");
    std::fs::copy(&pki.certificate, &late).expect("copied");
    assert_eq!(told(&mut source).await, "full shop/orders 10.0.0.1:8080 Healthy");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_hangs_is_told_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (nomad, eureka) = (Fake::start(Nomad::default()).await, Fake::start(Eureka::default()).await);
    nomad.behave(Manner::Hanging);
    eureka.behave(Manner::Hanging);
    for spec in [of_nomad(&nomad, folder.path(), "shop"), of_eureka(&eureka, folder.path())] {
        let mut source = source(&spec, Duration::from_secs(30));
        let failure = next(&mut source).await.expect_err("it hangs");
        assert!(failure.ends_with("does not answer in time"), "{failure}");
    }
}

fn of_eureka(fake: &Fake<Eureka>, folder: &std::path::Path) -> Value {
    let password = folder.join("password");
    std::fs::write(&password, eureka::SECRET).expect("written");
    let address = format!("{}/eureka/", fake.url);
    json!({"type": "Eureka", "eureka": {"address": address, "passwordFile": password, "every": "1s"}})
}

#[tokio::test]
async fn eureka_is_asked_for_all_once_and_then_for_what_became_another() {
    let (fake, folder) = (Fake::start(Eureka::default()).await, tempfile::tempdir().expect("a folder"));
    fake.api.put("ORDERS a 10.0.0.1 8080 UP");
    fake.api.put("WEB w 10.0.0.9 80 STARTING");
    let mut source = source(&of_eureka(&fake, folder.path()), Duration::from_secs(30));
    assert_eq!(
        next(&mut source).await.as_deref(),
        Ok("full orders 10.0.0.1:8080 Healthy; web 10.0.0.9:80 Unhealthy")
    );
    fake.api.put("ORDERS a 10.0.0.1 8080 OUT_OF_SERVICE");
    fake.api.put("ORDERS b 10.0.0.2 8080 UP");
    fake.api.remove("WEB", "w");
    assert_eq!(
        next(&mut source).await.as_deref(),
        Ok("full orders 10.0.0.1:8080 Draining 10.0.0.2:8080 Healthy")
    );
    assert_eq!(source.next().await, Ok(News::Same), "the same may be said again");
    let asked = fake.api.asked();
    assert_eq!(asked.iter().filter(|path| *path == "apps").count(), 1, "{asked:?}");
    assert!(asked.contains(&"apps/delta".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn where_the_hash_says_otherwise_or_a_server_has_no_changes_all_is_asked_for_anew() {
    let (fake, folder) = (Fake::start(Eureka::default()).await, tempfile::tempdir().expect("a folder"));
    fake.api.put("ORDERS a 10.0.0.1 8080 UP");
    let mut source = source(&of_eureka(&fake, folder.path()), Duration::from_secs(30));
    next(&mut source).await.expect("it is well");
    fake.api.put("ORDERS b 10.0.0.2 8080 UP");
    fake.api.forget_changes();
    let both = "full orders 10.0.0.1:8080 Healthy 10.0.0.2:8080 Healthy";
    assert_eq!(next(&mut source).await.as_deref(), Ok(both), "it was not said, but counted");
    // What the hash cannot see: the same number of each status.
    fake.behave(Manner::Failing);
    let failure = next(&mut source).await.expect_err("it fails");
    assert!(failure.contains("answers 500"), "{failure}");
    fake.api.put("ORDERS b 10.0.0.3 8080 UP");
    fake.api.forget_changes();
    fake.behave(Manner::Well);
    let both = "full orders 10.0.0.1:8080 Healthy 10.0.0.3:8080 Healthy";
    assert_eq!(told(&mut source).await, both, "after a failure all is asked for");
    fake.api.disable_delta();
    fake.api.remove("ORDERS", "b");
    assert_eq!(next(&mut source).await.as_deref(), Ok("full orders 10.0.0.1:8080 Healthy"));
}

#[tokio::test]
async fn a_eureka_that_fails_says_nothing_that_counts() {
    let (fake, folder) = (Fake::start(Eureka::default()).await, tempfile::tempdir().expect("a folder"));
    fake.api.put("ORDERS a 10.0.0.1 8080 UP");
    let spec = of_eureka(&fake, folder.path());
    for (manner, want) in [(Manner::Halving, "breaks off"), (Manner::Limiting, "answers 429")] {
        fake.behave(manner);
        let mut source = source(&spec, Duration::from_secs(3));
        let failure = next(&mut source).await.expect_err("it fails");
        assert!(failure.contains(want), "{failure}");
        fake.behave(Manner::Well);
        assert_eq!(told(&mut source).await, "full orders 10.0.0.1:8080 Healthy");
    }
    std::fs::write(folder.path().join("password"), "words\n").expect("written");
    let mut source = source(&spec, Duration::from_secs(3));
    let failure = next(&mut source).await.expect_err("it is none");
    assert!(failure.ends_with("password: is no USER:PASSWORD: one line of it"), "{failure}");
}

fn of_kubernetes(fake: &Fake<Kubernetes>, folder: &std::path::Path) -> Value {
    let token = folder.join("kubernetes");
    std::fs::write(&token, kubernetes::TOKEN).expect("written");
    json!({"type": "Kubernetes", "kubernetes": {"address": fake.url, "tokenFile": token, "labelSelector": "team=shop"}})
}

#[tokio::test]
async fn a_cluster_is_listed_once_page_by_page_and_then_watched_from_where_it_was() {
    let (fake, folder) = (Fake::start(Kubernetes::default()).await, tempfile::tempdir().expect("a folder"));
    fake.api.put("shop/a orders 8080", &["10.0.0.1 ready"]);
    fake.api.put("shop/b orders 8080", &["10.0.0.2 ready"]);
    fake.api.put("default/c web 80", &["10.0.0.3 not"]);
    let mut source = source(&of_kubernetes(&fake, folder.path()), Duration::from_secs(3));
    assert_eq!(
        next(&mut source).await.as_deref(),
        Ok("full default/web 10.0.0.3:80 Unhealthy; shop/orders 10.0.0.1:8080 Healthy 10.0.0.2:8080 Healthy")
    );
    fake.api.put("shop/b orders 8080", &["10.0.0.2 serving", "10.0.0.4 ready"]);
    assert_eq!(
        next(&mut source).await.as_deref(),
        Ok("shop/orders 10.0.0.1:8080 Healthy 10.0.0.2:8080 Draining 10.0.0.4:8080 Healthy")
    );
    fake.api.remove("default/c");
    assert_eq!(next(&mut source).await.as_deref(), Ok("default/web gone"));
    // Several watches later it is still not listed again.
    for _ in 0..3 {
        assert_eq!(source.next().await, Ok(News::Same));
    }
    let asked = fake.api.asked();
    assert_eq!(asked.iter().filter(|what| *what == "list").count(), 2, "two pages: {asked:?}");
    assert!(asked.iter().filter(|what| what.starts_with("watch from 1")).count() > 3, "{asked:?}");
    assert_eq!(asked.last().map(String::as_str), Some("watch from 15"), "by what it heard");
}

#[tokio::test]
async fn a_version_that_is_no_longer_kept_leads_to_a_list_and_nothing_is_missed() {
    let (fake, folder) = (Fake::start(Kubernetes::default()).await, tempfile::tempdir().expect("a folder"));
    fake.api.put("shop/a orders 8080", &["10.0.0.1 ready"]);
    let mut source = source(&of_kubernetes(&fake, folder.path()), Duration::from_secs(3));
    next(&mut source).await.expect("it is well");
    for (failing, address) in [(false, "10.0.0.7"), (true, "10.0.0.8")] {
        // In the middle of a watch, and between two: while it could not be asked.
        if failing {
            fake.behave(Manner::Failing);
            let failure = next(&mut source).await.expect_err("it fails");
            assert!(failure.contains("answers 500"), "{failure}");
        }
        fake.api.put("shop/a orders 8080", &[&format!("{address} ready")]);
        fake.api.compact();
        fake.behave(Manner::Well);
        let mut said = told(&mut source).await;
        if said == format!("shop/orders {address}:8080 Healthy") {
            // It was told before the version was gone.
            said = told(&mut source).await;
        }
        assert_eq!(said, format!("full shop/orders {address}:8080 Healthy"));
    }
}

#[tokio::test]
async fn a_kubeconfig_says_where_a_cluster_is_and_as_whom_it_is_asked_and_is_read_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::make(folder.path()).expect("papers");
    let fake = Fake::start_tls(Kubernetes::default(), pki.acceptor.clone()).await;
    fake.api.put("shop/a orders 8080", &["10.0.0.1 ready"]);
    let path = folder.path().join("kubeconfig");
    let root = STANDARD.encode(std::fs::read(&pki.ca).expect("read"));
    let name = |path: &std::path::Path| path.file_name().expect("a file").to_string_lossy().into_owned();
    let write = |context: &str, token: &str| {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{"name": "old", "cluster": {"server": fake.url, "certificate-authority-data": root}}],
            "contexts": [{"name": "mesh", "context": {"cluster": "old", "user": "mesh"}}],
            "users": [{"name": "mesh", "user": {
                "client-certificate": name(pki.certificate.as_ref()), "client-key": name(pki.key.as_ref()),
                "token": token,
            }}],
        });
        std::fs::write(&path, config.to_string()).expect("written");
    };
    write("mesh", kubernetes::TOKEN);
    let spec = json!({"type": "Kubernetes", "kubernetes": {"kubeconfig": path}});
    let mut source = source(&spec, Duration::from_secs(3));
    assert_eq!(told(&mut source).await, "full shop/orders 10.0.0.1:8080 Healthy");
    write("mesh", "other");
    let failure = next(&mut source).await.expect_err("it is no token");
    assert!(failure.contains("answers 401"), "{failure}");
    write("lost", kubernetes::TOKEN);
    let failure = next(&mut source).await.expect_err("there is none");
    assert!(failure.ends_with("kubeconfig: has no context \"lost\""), "{failure}");
    write("mesh", kubernetes::TOKEN);
    assert_eq!(told(&mut source).await, "full shop/orders 10.0.0.1:8080 Healthy");
}
