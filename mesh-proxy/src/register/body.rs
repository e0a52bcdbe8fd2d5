//! Pure. What a host runs, as the body of its registration.

use std::{collections::BTreeMap, net::IpAddr};

use model::{
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    proxy::{REGISTRATION_OBJECTS_MAX, RegisteredService, Registration},
    resource::Health,
};
use serde_json::{Map, Value, json};

use crate::services::Instance;

/// Where this host's proxy is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The address that other hosts dial.
    pub address: IpAddr,
    /// The port that takes mTLS.
    pub port: u16,
}

/// The registration of these instances, on a host that stands in `zone`; `health` says how each is.
pub fn registration(
    node: &Name,
    place: &Place,
    zone: Option<&Name>,
    instances: &[Instance],
    health: impl Fn(&Instance) -> Health,
) -> Registration {
    let mut services: BTreeMap<&ServiceName, Vec<&Instance>> = BTreeMap::new();
    let instances = &instances[..instances.len().min(REGISTRATION_OBJECTS_MAX / 2)];
    instances.iter().for_each(|instance| services.entry(&instance.service).or_default().push(instance));
    Registration {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        addresses: vec![place.address.to_string()],
        services: services.into_iter().map(|(service, instances)| registered(service, &instances)).collect(),
        endpoints: instances
            .iter()
            .map(|instance| endpoint(node, place, zone, instance, health(instance)))
            .collect(),
    }
}

/// A service with the ports that its instances answer. Where there are several, each needs a name.
fn registered(service: &ServiceName, instances: &[&Instance]) -> RegisteredService {
    let ports: BTreeMap<u16, &&Instance> =
        instances.iter().map(|instance| (instance.number(), instance)).collect();
    let port = |(number, instance): (&u16, &&&Instance)| {
        let mut port = Map::new();
        if ports.len() > 1 {
            port.insert("name".to_owned(), json!(format!("port-{number}")));
        }
        port.insert("port".to_owned(), json!(number));
        port.insert("targetPort".to_owned(), json!(instance.target.value()));
        port.insert("protocol".to_owned(), json!(instance.protocol));
        Value::Object(port)
    };
    RegisteredService {
        service: service.clone(),
        ports: ports.iter().map(port).collect(),
        labels: BTreeMap::new(),
    }
}

fn endpoint(node: &Name, place: &Place, zone: Option<&Name>, instance: &Instance, health: Health) -> Object {
    let ServiceName { namespace, name } = &instance.service;
    let mut spec = json!({
        "service": name,
        "node": node,
        "source": "registration",
        "address": place.address,
        "inboundPort": place.port,
        "ports": [{"port": instance.port.value(), "targetPort": instance.target.value()}],
    });
    if let Some(zone) = zone {
        spec["zone"] = json!(zone);
    }
    let Value::Object(spec) = spec else { unreachable!("it is an object") };
    let mut object =
        Object::new(Key::namespaced(Kind::Endpoint, namespace.clone(), instance.name.clone()), spec);
    object.metadata.labels.clone_from(&instance.labels);
    object.status = Some(json!({"health": health}));
    object
}

#[cfg(test)]
mod tests {
    use model::resource::{EndpointStatus, Port, Protocol, Resource};

    use super::*;

    fn instance(service: &str, port: u64, target: u64, version: &str) -> Instance {
        let labels = [("version".parse().expect("a key"), model::shape::Text::new(version).expect("short"))];
        Instance {
            name: format!("{service}-a-{target}").parse().expect("a name"),
            service: format!("default/{service}").parse().expect("a name"),
            port: Port::clamped(port),
            target: Port::clamped(target),
            protocol: Protocol::Http,
            labels: labels.into(),
            check: None,
        }
    }

    #[test]
    fn a_host_says_its_services_and_endpoints_in_one_body() {
        let place = Place { address: "10.0.0.5".parse().expect("an address"), port: 15_008 };
        let instances = [
            instance("orders", 80, 8_080, "v1"),
            instance("orders", 81, 8_081, "v2"),
            instance("web", 80, 9, "v1"),
        ];
        let node = "a".parse().expect("a name");
        let unwell = |instance: &Instance| {
            if instance.target.value() == 9 { Health::Unhealthy } else { Health::Healthy }
        };
        let zone = "z1".parse().expect("a name");
        let body = registration(&node, &place, Some(&zone), &instances, unwell);
        let services: Vec<_> =
            body.services.iter().map(|service| (service.service.to_string(), json!(service.ports))).collect();
        let orders = json!([
            {"name": "port-80", "port": 80, "targetPort": 8080, "protocol": "http"},
            {"name": "port-81", "port": 81, "targetPort": 8081, "protocol": "http"},
        ]);
        let web = json!([{"port": 80, "targetPort": 9, "protocol": "http"}]);
        assert_eq!(services, [("default/orders".to_owned(), orders), ("default/web".to_owned(), web)]);
        let Resource::Endpoint(spec) = body.endpoints[1].resource().expect("it is one") else {
            panic!("an endpoint")
        };
        assert_eq!(
            (spec.service.as_str(), spec.address, spec.ports[0].target_port.value()),
            ("orders", place.address, 8_081)
        );
        assert_eq!(spec.zone, Some(zone));
        assert_eq!(body.endpoints[1].metadata.labels, instances[1].labels);
        let status = body.endpoints[2].status.as_ref().expect("it has one");
        let status: EndpointStatus = model::object::status(status).expect("it is one");
        assert_eq!(status.health, Health::Unhealthy);
    }
}
