//! Pure. Kuma's Mesh: whether proxies must show who they are.

use super::super::{fields::Fields, plan::Plan};

pub(super) fn read(mut fields: Fields<'_>, plan: &mut Plan) {
    // Of Kubernetes it has a spec.
    if let Some(mut spec) = fields.take("spec").and_then(|at| at.fields()) {
        spec.at = fields.at.clone();
        fields.finish();
        fields = spec;
    }
    for (name, why, instead) in [
        ("tracing", "collectors are named on each host", "set [tracing] in proxy.toml"),
        ("logging", "each host has its own access log", "set access_log in proxy.toml"),
        ("metrics", "each proxy has its own /metrics", "scrape the admin port of the hosts"),
        ("networking", "where calls out of the mesh may go is not said by it", "see docs/capture.md"),
        ("routing", "zones are said by a TrafficPolicy", "set loadBalancer.zones"),
        ("constraints", "who may join is said by join tokens", "see docs/operating.md"),
    ] {
        fields.lost(name, why, instead);
    }
    fields.pass(&["meshServices", "skipCreatingInitialPolicies"]);
    let at = fields.at.clone();
    let mtls = fields.take("mtls").and_then(|at| at.fields());
    fields.finish();
    let Some(mut mtls) = mtls else {
        at.differs(
            "without mTLS callers have no identity; our proxies always have one among each other",
            "whoever has none is let in: make it Strict when all hosts have joined",
        );
        plan.mode = Some("Permissive");
        return;
    };
    let enabled = mtls.text("enabledBackend");
    mtls.pass(&["skipValidation"]);
    let mut mode = "Strict";
    for at in mtls.take("backends").map_or_else(Vec::new, |at| at.list()) {
        let Some(mut backend) = at.fields() else { continue };
        let name = backend.text("name");
        let own = backend.text("mode");
        backend.pass(&["type"]);
        for name in ["conf", "dpCert", "rootChain"] {
            backend.lost(
                name,
                "the mesh has its own authority",
                "see docs/operating.md; roots of others are not trusted",
            );
        }
        backend.finish();
        if name == enabled && own.is_some_and(|own| own.eq_ignore_ascii_case("permissive")) {
            mode = "Permissive";
        }
    }
    mtls.finish();
    plan.mode = Some(if enabled.is_some() { mode } else { "Permissive" });
}
