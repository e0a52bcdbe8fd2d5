//! Pure. Whom Kuma's references mean.

use model::name::{Name, ServiceName};

use super::super::fields::{At, Fields};

/// Whom a reference means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whom {
    /// All of the mesh.
    All,
    /// A service, perhaps a part of it, at a port of its own.
    Service { service: ServiceName, subset: Option<String>, port: Option<u64> },
}

const NAME_IT: &str = "name a MeshService";

/// What a reference means; `None` if there is no such thing here, which is told.
pub(crate) fn of(at: &At<'_>, home: &Name) -> Option<Whom> {
    meant(at, at.fields()?, home)
}

/// The same with the weight and port that stand beside it.
pub(crate) fn with_weight(at: &At<'_>, home: &Name) -> Option<(Whom, Option<u64>, Option<u64>)> {
    let mut fields = at.fields()?;
    let weight = fields.take_given("weight").and_then(|at| at.whole(0, 1_000_000));
    let port = fields.take("port").and_then(|at| at.whole(1, 65_535));
    Some((meant(at, fields, home)?, weight, port))
}

fn meant(at: &At<'_>, mut fields: Fields<'_>, home: &Name) -> Option<Whom> {
    let kind = fields.take("kind")?;
    fields.pass(&["mesh"]);
    let name = fields.take("name");
    let place = fields.take("namespace");
    let tags = fields.take("tags");
    let labels = fields.take("labels");
    let section = fields.take("sectionName");
    fields.lost("proxyTypes", "there is one kind of proxy", "leave it out");
    fields.finish();
    let whom = match (kind.text()?.as_str(), name) {
        ("Mesh", _) => Some(Whom::All),
        ("MeshService", Some(name)) => service(&name, place.as_ref(), home),
        ("MeshSubset" | "Dataplane", None) => by_tags(at, tags.as_ref().or(labels.as_ref()), home),
        ("MeshServiceSubset", Some(name)) => part(service(&name, place.as_ref(), home), tags.as_ref()),
        (kind, _) => {
            at.lost(&format!("no object of ours stands for a {kind} without a service's name"), NAME_IT);
            return None;
        }
    };
    if let Some(at) = section {
        at.lost("a policy of ours is for all ports of a service", "leave it out, or make it two services");
        return None;
    }
    whom
}

/// A service by its name, or by the tag that holds name, namespace and port.
fn service(name: &At<'_>, place: Option<&At<'_>>, home: &Name) -> Option<Whom> {
    let text = name.text()?;
    if let Some((service, port)) = tag(&text) {
        return Some(Whom::Service { service, subset: None, port: Some(port) });
    }
    let place = match place {
        Some(at) => at.parse()?,
        None => home.clone(),
    };
    Some(Whom::Service { service: ServiceName::new(place, name.parse()?), subset: None, port: None })
}

/// What Kubernetes' services are called in a tag: `orders_shop_svc_8080`.
fn tag(text: &str) -> Option<(ServiceName, u64)> {
    let parts: Vec<_> = text.split('_').collect();
    let [name, place, "svc", port] = parts[..] else { return None };
    Some((ServiceName::new(place.parse().ok()?, name.parse().ok()?), port.parse().ok()?))
}

/// The service of which this is the tag or the name.
pub(crate) fn id(text: &str, home: &Name) -> Option<ServiceName> {
    let named = || Some(ServiceName::new(home.clone(), text.parse().ok()?));
    tag(text).map(|(service, _)| service).or_else(named)
}

/// Tags that name a service, and nothing but it.
fn by_tags(at: &At<'_>, tags: Option<&At<'_>>, home: &Name) -> Option<Whom> {
    let Some(mut fields) = tags.and_then(At::fields) else { return Some(Whom::All) };
    let named = fields.take("kuma.io/service");
    let others = fields.rest();
    match (named, &others[..]) {
        (Some(name), []) => service(&name, None, home),
        _ => {
            at.lost("no policy of ours is for proxies by their tags", NAME_IT);
            None
        }
    }
}

/// A part of a service: by `version`, whose value is the subset's name.
fn part(whom: Option<Whom>, tags: Option<&At<'_>>) -> Option<Whom> {
    let Whom::Service { service, port, .. } = whom? else { return None };
    let mut fields: Fields<'_> = tags?.fields()?;
    let version = fields.take("version").and_then(|at| at.parse::<Name>());
    for (_, at) in fields.rest() {
        at.lost("a part of a service comes over by the tag `version` alone", "write the subset");
    }
    Some(Whom::Service { service, subset: Some(version?.to_string()), port })
}
