//! Pure. Who may call whom in Kuma: nobody, unless a permission lets them in; the most specific one decides.

use model::name::Name;

use super::{
    super::{
        access::{self, Caller, Entry, Verdict},
        fields::{At, Fields},
    },
    Called, MESH_WIDE, Place, called, entries,
    refer::{self, Whom},
};

const CLOSED: &str = "write the policy by hand; until then it is closed";

pub(super) fn read<'a>(
    target: Option<Whom>,
    place: &Place,
    mut spec: Fields<'a>,
    found: &mut Vec<Entry<'a>>,
) {
    let called = target.map(|whom| called(whom, place));
    for (whom, mut fields, at) in entries(&mut spec, "from", place) {
        let action = fields.take("default").and_then(|at| at.fields());
        fields.finish();
        let verdict = action.map_or_else(Verdict::closed, of_action);
        let caller = whom.map(|whom| match whom {
            Whom::All => Caller::Anyone,
            Whom::Service { service, .. } => Caller::Service(service),
        });
        add(called.as_ref(), caller, verdict, at, found);
    }
    for rule in spec.take("rules").map_or_else(Vec::new, |at| at.list()) {
        let Some(mut fields) = rule.fields() else { continue };
        let lists = fields.take("default").and_then(|at| at.fields());
        fields.finish();
        let Some(mut lists) = lists else { continue };
        let kinds = [
            ("deny", Verdict::closed()),
            ("allow", Verdict::open()),
            ("allowWithShadowDeny", Verdict::open()),
        ];
        for (list, verdict) in kinds {
            for at in lists.take(list).map_or_else(Vec::new, |at| at.list()) {
                if list == "allowWithShadowDeny" {
                    shadow(&at);
                }
                add(called.as_ref(), by_id(&at, &place.home), verdict.clone(), at, found);
            }
        }
        lists.finish();
    }
    spec.finish();
}

/// Adds what is said. Whom cannot be said is not let in, and where that is who shall not be, nobody is.
fn add<'a>(
    called: Option<&Called>,
    caller: Option<Caller>,
    verdict: Verdict,
    at: At<'a>,
    found: &mut Vec<Entry<'a>>,
) {
    let closes = verdict == Verdict::closed();
    let system: Name = MESH_WIDE.parse().expect("a label");
    let called = match called {
        Some(Called::Service(service)) => Some(access::Called::Service(service.clone())),
        Some(Called::All(namespace)) if *namespace == system => Some(access::Called::All(system)),
        Some(Called::All(_)) => {
            at.lost("what is for one namespace is neither for the mesh nor for a service", CLOSED);
            closes.then_some(access::Called::All(system))
        }
        None => closes.then_some(access::Called::All(system)),
    };
    let caller = caller.or(closes.then_some(Caller::Anyone));
    if let Some((called, caller)) = called.zip(caller) {
        found.push(Entry { called, caller, verdict, at });
    }
}

fn of_action(mut fields: Fields<'_>) -> Verdict {
    let action = fields.take("action");
    fields.finish();
    let Some(at) = action else { return Verdict::closed() };
    match at.text().unwrap_or_default().to_ascii_uppercase().as_str() {
        "ALLOW" => Verdict::open(),
        "DENY" => Verdict::closed(),
        "ALLOW_WITH_SHADOW_DENY" | "ALLOWWITHSHADOWDENY" => {
            shadow(&at);
            Verdict::open()
        }
        _ => {
            at.lost("it must be Allow, Deny or AllowWithShadowDeny", CLOSED);
            Verdict::closed()
        }
    }
}

fn shadow(at: &At<'_>) {
    at.differs(
        "it is let in, and nothing notes that it would be refused",
        "write a Deny policy with dryRun: true",
    );
}

/// A caller by its SPIFFE id, as Kuma gives services theirs: `spiffe://<mesh>/<service>`.
fn by_id(at: &At<'_>, home: &Name) -> Option<Caller> {
    let mut fields = at.fields()?;
    let id = fields.take("spiffeID");
    fields.finish();
    let mut id = id.and_then(|at| at.fields())?;
    let kind = id.text("type");
    let value = id.text("value").unwrap_or_default();
    id.finish();
    let name = value.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
    let service = name.and_then(|name| refer::id(name, home));
    if kind.as_deref() != Some("Exact") || service.is_none() {
        at.lost("only the exact id of a service comes over: spiffe://<mesh>/<service>", CLOSED);
        return None;
    }
    service.map(Caller::Service)
}
