use super::*;

fn resource(name: &str) -> ResourceType {
    resources().into_iter().find(|resource| resource.name == name).expect(name)
}

fn field<'a>(fields: &'a [Field], name: &str) -> &'a Field {
    fields.iter().find(|field| field.name == name).unwrap_or_else(|| panic!("no {name}"))
}

/// All fields at any depth, by their path.
fn all<'a>(fields: &'a [Field], at: &str, into: &mut Vec<(String, &'a Field)>) {
    for field in fields {
        let path = format!("{at}.{}", field.name);
        into.push((path.clone(), field));
        all(field.of.fields(), &path, into);
    }
}

#[test]
fn every_kind_that_operators_write_is_a_resource() {
    let names: Vec<_> = resources().into_iter().map(|resource| resource.name).collect();
    assert_eq!(names.len(), Kind::ALL.len() - 1, "all but Endpoint");
    for name in ["mesh_http_route", "mesh_grpc_route", "mesh_tcp_route", "mesh_peer_authentication"] {
        assert!(names.contains(&name.to_owned()), "no {name} among {names:?}");
    }
}

#[test]
fn names_are_those_of_the_kinds_in_snake_case() {
    for (name, want) in [
        ("HTTPRoute", "http_route"),
        ("backendRefs", "backend_refs"),
        ("grpcCodes", "grpc_codes"),
        ("name", "name"),
        ("mode2Ports", "mode2_ports"),
    ] {
        assert_eq!(snake(name), want);
    }
    for resource in resources() {
        let mut fields = Vec::new();
        all(&resource.fields, &resource.name, &mut fields);
        for (path, field) in fields {
            let words = field
                .name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            assert!(words && !field.name.starts_with('_'), "{path}");
            assert!(!field.about.is_empty(), "{path} has no words");
        }
    }
}

#[test]
fn what_the_model_declares_is_what_stands_here() {
    let service = resource("mesh_service");
    let given: Vec<_> = service.fields.iter().map(|field| (field.name.as_str(), field.given)).collect();
    let (required, optional) = (Given::Required, Given::Optional);
    let want = [
        ("namespace", required),
        ("name", required),
        ("annotations", optional),
        ("labels", optional),
        ("spec", optional),
        ("wait_for_applied", optional),
    ];
    assert_eq!(given, want);
    let ports = field(field(&service.fields, "spec").of.fields(), "ports");
    assert!(matches!(&ports.of, Type::List(of) if matches!(**of, Type::Record(_))));
    let port = field(ports.of.fields(), "port");
    assert_eq!(
        (port.given, &port.of, port.bounds.as_str()),
        (required, &Type::Number, "A whole number from 1 to 65535.")
    );
    let protocol = field(ports.of.fields(), "protocol");
    assert_eq!(protocol.default, Some(Json::from("auto")));
    assert!(protocol.description().contains("`http2`"), "{}", protocol.description());
    assert_eq!(field(ports.of.fields(), "target_port").wire, "targetPort");
}

#[test]
fn a_secret_is_told_by_the_mesh_and_hidden() {
    for name in ["mesh_join_token", "mesh_access_token"] {
        let resource = resource(name);
        let token = encode("", &resource.fields).block.expect("a block").attributes;
        let token = token.into_iter().find(|attribute| attribute.name == "token").expect("a token");
        assert!(token.computed && token.sensitive && !token.optional && !token.required);
    }
    let secrets = resources().into_iter().flat_map(|resource| resource.fields);
    assert_eq!(secrets.filter(|field| field.given == Given::Secret).count(), 2);
}

#[test]
fn mesh_wide_kinds_have_no_namespace() {
    assert!(resource("mesh_role").fields.iter().all(|field| field.name != "namespace"));
}
