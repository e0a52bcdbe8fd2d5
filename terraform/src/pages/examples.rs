//! Pure. The examples of the pages: files, since a test applies them, too.

/// What the first page begins with.
pub(super) const INTRODUCTION: &str = include_str!("introduction.md");

macro_rules! examples {
    ($($name:literal,)+) => {
        const ALL: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../examples/", $name, ".tf"))),)+];
    };
}

examples! {
    "data-mesh_ca_bundle",
    "data-mesh_cluster",
    "data-mesh_proxies",
    "data-mesh_service",
    "mesh_access_token",
    "mesh_authorization_policy",
    "mesh_discovery_source",
    "mesh_grpc_route",
    "mesh_http_route",
    "mesh_join_token",
    "mesh_namespace",
    "mesh_node",
    "mesh_peer_authentication",
    "mesh_role",
    "mesh_service",
    "mesh_tcp_route",
    "mesh_traffic_policy",
}

/// The example of a page; a page without one fails the test of all pages.
pub(super) fn named(name: &str) -> &'static str {
    let found = ALL.iter().find(|(own, _)| *own == name);
    found.map_or_else(|| panic!("{name} has no example"), |(_, example)| example)
}

/// By what the object of an example is imported.
pub(super) fn id(example: &str) -> String {
    let value = |field: &str| {
        let mut fields = example.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(" = "));
        fields.find_map(|(name, value)| (name.trim_end() == field).then_some(value.trim_matches('"')))
    };
    value("namespace").into_iter().chain(value("name")).collect::<Vec<_>>().join("/")
}
