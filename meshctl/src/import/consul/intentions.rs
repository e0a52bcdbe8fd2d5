//! Pure. Who may call whom in Consul: the most specific intention decides, and of its permissions the first that fits.

use model::name::{Name, ServiceName};
use serde_json::{Map, Value, json};

use super::{
    super::{
        access::{Call, Called, Caller, Entry, Verdict},
        fields::{At, Fields},
    },
    is_here, matches, namespace,
};

const CLOSED: &str = "write the policy by hand; until then it is closed";

/// What holds where nothing is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usual<'s> {
    verdict: &'s Verdict,
    home: &'s Name,
}

impl<'s> Usual<'s> {
    pub(crate) fn new(verdict: &'s Verdict, home: &'s Name) -> Self {
        Self { verdict, home }
    }
}

/// A permission: whether it allows, which calls, and where it stands.
struct Permission<'a> {
    allow: bool,
    call: Call,
    at: At<'a>,
}

/// Reads a config entry: all that is said of those who call one service.
pub(crate) fn read<'a>(
    name: &At<'a>,
    mut fields: Fields<'a>,
    usual: &Usual<'_>,
    entries: &mut Vec<Entry<'a>>,
) {
    fields.lost("JWT", "the mesh does not verify tokens of end users", "let the application verify them");
    let called = called(name, &mut fields, usual);
    let sources = fields.take("Sources").map_or_else(Vec::new, |at| at.list());
    fields.finish();
    for at in sources {
        let Some(mut fields) = at.fields() else { continue };
        fields.pass(&["Precedence", "Type", "Description"]);
        fields.pass(&["LegacyID", "LegacyMeta", "LegacyCreateTime", "LegacyUpdateTime"]);
        let caller = caller(&mut fields, "Name", "Namespace", usual);
        let verdict = verdict(&mut fields, usual);
        fields.finish();
        if let (Some(called), Some(caller)) = (called.clone(), caller) {
            entries.push(Entry { called, caller, verdict, at });
        }
    }
}

/// Whether these are the fields of an intention of the time before config entries.
pub(crate) fn is_old(fields: &Fields<'_>) -> bool {
    fields.has("SourceName") && fields.has("DestinationName")
}

/// Reads an intention as the API's older list has it.
pub(crate) fn read_old<'a>(mut fields: Fields<'a>, usual: &Usual<'_>, entries: &mut Vec<Entry<'a>>) {
    fields.pass(&["ID", "Description", "SourceType", "Meta", "Precedence", "CreatedAt", "UpdatedAt"]);
    fields.pass(&["CreateIndex", "ModifyIndex", "Hash", "DefaultAddr", "DefaultPort"]);
    let texts = ["SourceName", "DestinationName"].map(|name| fields.peek(name).unwrap_or_default());
    fields.at = fields.at.clone().named(&format!("intention {} -> {}", texts[0], texts[1]));
    for (partition, name) in [("SourcePartition", "source"), ("DestinationPartition", "destination")] {
        if let Some(at) = fields.take(partition).filter(|at| at.text().as_deref() != Some("default")) {
            at.lost(&format!("the {name} is of another partition"), super::BY_NAMESPACE);
        }
    }
    let caller = caller(&mut fields, "SourceName", "SourceNS", usual);
    let name = fields.take("DestinationName");
    let namespace = namespace(&mut fields, "DestinationNS", usual.home);
    let verdict = verdict(&mut fields, usual);
    let at = fields.at.clone();
    fields.finish();
    let called = name.zip(namespace).and_then(|(name, namespace)| match name.text()?.as_str() {
        "*" => Some(Called::All(namespace)),
        _ => Some(Called::Service(ServiceName::new(namespace, name.parse()?))),
    });
    if let (Some(called), Some(caller)) = (called, caller) {
        entries.push(Entry { called, caller, verdict, at });
    }
}

fn called(name: &At<'_>, fields: &mut Fields<'_>, usual: &Usual<'_>) -> Option<Called> {
    let here = is_here(fields);
    let namespace = namespace(fields, "Namespace", usual.home)?;
    let called = match name.text()?.as_str() {
        "*" => Called::All(namespace),
        _ => Called::Service(ServiceName::new(namespace, name.parse()?)),
    };
    here.then_some(called)
}

fn caller(fields: &mut Fields<'_>, name: &str, field: &str, usual: &Usual<'_>) -> Option<Caller> {
    let here = is_here(fields);
    let name = fields.take(name)?;
    if name.text()? != "*" {
        let service = ServiceName::new(namespace(fields, field, usual.home)?, name.parse()?);
        return here.then_some(Caller::Service(service));
    }
    let place = fields.take(field);
    if let Some(at) = place.filter(|at| !["*", "default"].contains(&at.text().unwrap_or_default().as_str())) {
        at.lost("all callers of one namespace are neither anyone nor one service here", CLOSED);
        return None;
    }
    here.then_some(Caller::Anyone)
}

fn verdict(fields: &mut Fields<'_>, usual: &Usual<'_>) -> Verdict {
    let action = fields.take("Action");
    let permissions = fields.take("Permissions");
    match (action, permissions) {
        (_, Some(at)) => of_permissions(at.list(), usual),
        (Some(at), None) => match at.text().as_deref() {
            Some("allow") => Verdict::open(),
            Some("deny") => Verdict::closed(),
            _ => {
                at.lost("it must be allow or deny", CLOSED);
                Verdict::closed()
            }
        },
        (None, None) => {
            fields.at.lost("it has neither Action nor Permissions", CLOSED);
            Verdict::closed()
        }
    }
}

/// The first permission that fits decides; where none does, what is usual. Ours know no order: refusals win, so that those
/// can be said which stand before what they except.
fn of_permissions(list: Vec<At<'_>>, usual: &Usual<'_>) -> Verdict {
    let open = *usual.verdict == Verdict::open();
    let mut permissions: Vec<_> = list.into_iter().filter_map(permission).collect();
    // What the last ones say is usual anyway.
    while permissions.last().is_some_and(|last| last.allow == open) {
        permissions.pop();
    }
    let mut verdict = usual.verdict.clone();
    let mut allowed = false;
    for permission in permissions {
        if permission.allow {
            allowed = true;
            verdict.allow.push(permission.call);
            continue;
        }
        if allowed {
            permission.at.differs(
                "a permission before it may allow some of the same calls, and a Deny of ours wins wherever it stands",
                "it refuses those, too: narrow it, if they were meant to be allowed",
            );
        }
        verdict.deny.push(permission.call);
    }
    if open {
        verdict.allow.truncate(1);
    }
    verdict
}

fn permission(at: At<'_>) -> Option<Permission<'_>> {
    let mut fields = at.fields()?;
    let action = fields.text("Action");
    let allow = action.as_deref() == Some("allow");
    let token = fields.take("JWT");
    let http = fields.take("HTTP").and_then(|at| at.fields());
    fields.finish();
    let call = http.map_or_else(|| Some(Call::new()), |http| call(http));
    if let Some(at) = &token {
        at.lost("the mesh does not verify tokens of end users", CLOSED);
    }
    // What cannot be said allows nothing, and refuses more than it did.
    match (allow, call, token) {
        (true, Some(call), None) => Some(Permission { allow, call, at }),
        (true, _, _) => None,
        (false, call, _) => Some(Permission { allow, call: call.unwrap_or_default(), at }),
    }
}

/// Which calls a permission is for. `None` if it cannot be said.
fn call(mut fields: Fields<'_>) -> Option<Call> {
    let path = matches::path(&mut fields, true);
    let methods = fields.take("Methods").map_or_else(Vec::new, |at| at.texts());
    let headers = fields.take("Header").map_or_else(Vec::new, |at| at.list());
    let mut conditions = Vec::new();
    let mut whole = headers.len() <= 1;
    if !whole {
        fields.at.lost("a rule of ours asks for one header, not for several at once", CLOSED);
    }
    for at in headers {
        let mut header = at.fields()?;
        let (name, value) = (header.text("Name"), matches::value(&mut header));
        header.finish();
        match (name, value) {
            (Some(name), Some(("Exact", value))) => {
                conditions.push(json!({"header": name, "values": [value]}))
            }
            (_, Some(_)) => {
                at.lost("a rule of ours compares headers with whole values only", CLOSED);
                whole = false;
            }
            (_, None) => whole = false,
        }
    }
    fields.finish();
    if !whole {
        return None;
    }
    let mut to = Map::new();
    if !methods.is_empty() {
        let upper: Vec<_> = methods.iter().map(|method| method.to_ascii_uppercase()).collect();
        to.insert("methods".to_owned(), upper.into());
    }
    if let matches::Path::Is(path) = path? {
        to.insert("paths".to_owned(), json!([path]));
    }
    let mut call = Call::new();
    if !to.is_empty() {
        call.insert("to".to_owned(), json!([to]));
    }
    if !conditions.is_empty() {
        call.insert("when".to_owned(), Value::from(conditions));
    }
    Some(call)
}
