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
    shut: &mut bool,
) -> Vec<Entry<'a>> {
    let (called, mut found) = (target.map(|whom| called(whom, place)), Vec::new());
    for (whom, mut fields, at) in entries(&mut spec, "from", place) {
        let action = fields.take("default").and_then(|at| at.fields());
        fields.finish();
        let verdict = action.map_or_else(Verdict::closed, of_action);
        let caller = whom.map(|whom| match whom {
            Whom::All => Caller::Anyone,
            Whom::Service { service, .. } => Caller::Service(service),
        });
        add(called.as_ref(), caller, verdict, at, &mut found);
    }
    for rule in spec.take("rules").map_or_else(Vec::new, |at| at.list()) {
        let Some(mut fields) = rule.fields() else { continue };
        let lists = fields.take("default").and_then(|at| at.fields());
        fields.finish();
        let Some(mut lists) = lists else { continue };
        // Here a refusal counts, wherever it stands.
        let kinds = [
            ("allow", Verdict::open()),
            ("allowWithShadowDeny", Verdict::open()),
            ("deny", Verdict::closed()),
        ];
        for (list, verdict) in kinds {
            for at in lists.take(list).map_or_else(Vec::new, |at| at.list()) {
                if list == "allowWithShadowDeny" {
                    shadow(&at);
                }
                add(called.as_ref(), by_id(&at, &place.home), verdict.clone(), at, &mut found);
            }
        }
        lists.finish();
    }
    spec.finish();
    *shut |= called.is_none() && found.iter().any(|entry| entry.verdict == Verdict::closed());
    found
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
    let Some(called) = called else { return };
    if caller.is_none() && closes {
        // Those who were let in before, too: they may be who shall not be.
        for entry in found.iter_mut().filter(|entry| entry.called == called) {
            close(entry, "who shall not be let in beside it cannot be said");
        }
    }
    if let Some(caller) = caller.or(closes.then_some(Caller::Anyone)) {
        found.push(Entry { called, caller, verdict, at });
    }
}

/// Of two entries of one policy the later one counts, of two policies for the same the later one by name: where an entry for
/// all and one for a single caller differ, the single one is closed unless it comes later in the same policy.
/// `shut`: somebody is refused by services that cannot be named, which may be any.
pub(super) fn settle(policies: Vec<Vec<Entry<'_>>>, shut: bool) -> Vec<Entry<'_>> {
    let mut all = Vec::new();
    for (number, policy) in policies.iter().enumerate() {
        for (place, entry) in policy.iter().enumerate() {
            let mut entry = entry.clone();
            let anyone = |other: &&Entry<'_>| {
                other.called == entry.called
                    && other.caller == Caller::Anyone
                    && other.verdict != entry.verdict
            };
            let same = policy[place..].iter().find(anyone);
            let others = policies.iter().enumerate().filter(|(other, _)| *other != number);
            let other = others.flat_map(|(_, policy)| policy).find(anyone);
            if entry.caller != Caller::Anyone && same.or(other).is_some() {
                close(&mut entry, "an entry for all callers says otherwise, and may come after it");
            }
            if shut && entry.verdict != Verdict::closed() {
                close(
                    &mut entry,
                    "a policy for services that cannot be named refuses callers, and may be for this one",
                );
            }
            all.push(entry);
        }
    }
    all
}

fn close(entry: &mut Entry<'_>, why: &str) {
    entry.at.lost(why, CLOSED);
    entry.verdict = Verdict::closed();
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
