//! Pure. What requests are told apart by in Consul's entries, in the words of ours.

use serde_json::{Map, Value, json};

use super::{
    super::{
        fields::{At, Fields},
        regex::escaped,
    },
    chain::modifier,
};

/// A path, by whichever of the three fields is there.
pub(crate) enum Path {
    /// None is.
    Any,
    /// In our words.
    Is(Value),
}

/// The path that `PathExact`, `PathPrefix` or `PathRegex` says. With `strict` a prefix becomes an expression that fits
/// exactly what Consul's does.
pub(crate) fn path(fields: &mut Fields<'_>, strict: bool) -> Option<Path> {
    let exact = fields.take("PathExact");
    let prefix = fields.take("PathPrefix");
    let regex = fields.take("PathRegex");
    let caseless = fields.take("CaseInsensitive").is_some();
    let is = |kind: &str, value: String| Some(Path::Is(json!({"type": kind, "value": value})));
    match (exact, prefix, regex) {
        (None, None, None) => Some(Path::Any),
        (Some(at), None, None) if caseless => {
            is("RegularExpression", format!("(?i){}", escaped(&at.text()?)))
        }
        (Some(at), None, None) => is("Exact", at.text()?),
        (None, Some(at), None) => {
            let text = at.text()?;
            if caseless || (strict && text != "/") {
                let flag = if caseless { "(?i)" } else { "" };
                return is("RegularExpression", format!("{flag}{}.*", escaped(&text)));
            }
            if text != "/" {
                at.differs(
                    &by_segment(&text),
                    "add a match for what else was meant, or make it an expression",
                );
            }
            is("PathPrefix", text)
        }
        (None, None, Some(at)) if caseless => is("RegularExpression", format!("(?i){}", at.text()?)),
        (None, None, Some(at)) => is("RegularExpression", at.text()?),
        _ => {
            fields.at.lost("it has several paths", "correct it, and import again");
            None
        }
    }
}

/// Consul compares the beginning of a text, and a prefix of ours whole segments.
fn by_segment(prefix: &str) -> String {
    let whole = prefix.trim_end_matches('/');
    let change = if whole == prefix { "does not fit any more" } else { "fits, too" };
    let other = if whole == prefix { format!("{prefix}x") } else { whole.to_owned() };
    format!("Consul compares the beginning of the path, the mesh whole segments: {other} {change}")
}

/// How a value is compared: our type and value. `None` if it cannot be said, which is told.
pub(crate) fn value(fields: &mut Fields<'_>) -> Option<(&'static str, String)> {
    let is = |kind: &'static str, text: String| Some((kind, text));
    let expression = "RegularExpression";
    let inverted = fields.take("Invert");
    let caseless = fields.take("IgnoreCase").is_some();
    let flag = if caseless { "(?i)" } else { "" };
    let [exact, prefix, suffix, contains, regex] =
        ["Exact", "Prefix", "Suffix", "Contains", "Regex"].map(|name| fields.take(name));
    let present = fields.take("Present");
    if let Some(at) = inverted {
        at.lost("no match of ours asks for what is not there", "write a match for what shall fit, before it");
        return None;
    }
    if let Some(at) = exact {
        let text = at.text()?;
        return if caseless {
            is(expression, format!("{flag}{}", escaped(&text)))
        } else {
            is("Exact", text)
        };
    }
    let wild = [(prefix, "", ".*"), (suffix, ".*", ""), (contains, ".*", ".*")];
    for (at, before, after) in wild {
        if let Some(at) = at {
            return is(expression, format!("{flag}{before}{}{after}", escaped(&at.text()?)));
        }
    }
    match (regex, present) {
        (Some(at), _) => is(expression, format!("{flag}{}", at.text()?)),
        (None, Some(_)) => is(expression, ".*".to_owned()),
        (None, None) => {
            fields.at.lost("it does not say what the value must be", "correct it, and import again");
            None
        }
    }
}

/// The matches of a list of headers or query parameters; `None` if one cannot be said.
fn pairs(list: Option<At<'_>>) -> Option<Vec<Value>> {
    let mut pairs = Some(Vec::new());
    for at in list.map_or_else(Vec::new, |at| at.list()) {
        let mut fields = at.fields()?;
        let name = fields.text("Name");
        let pair = name.zip(value(&mut fields));
        fields.finish();
        match (pair, &mut pairs) {
            (Some((name, (kind, value))), Some(pairs)) => {
                pairs.push(json!({"type": kind, "name": name, "value": value}));
            }
            (None, _) => pairs = None,
            (Some(_), None) => {}
        }
    }
    pairs
}

/// The matches of a route, one for each method; `None` if it cannot be said, which is told.
pub(crate) fn of_route(mut fields: Fields<'_>) -> Option<Vec<Value>> {
    let path = path(&mut fields, false);
    let headers = pairs(fields.take("Header"));
    let params = pairs(fields.take("QueryParam"));
    let methods = fields.take("Methods").map_or_else(Vec::new, |at| at.texts());
    fields.finish();
    let (path, headers, params) = (path?, headers?, params?);
    let mut one = Map::new();
    if let Path::Is(path) = path {
        one.insert("path".to_owned(), path);
    }
    for (name, pairs) in [("headers", headers), ("queryParams", params)] {
        if !pairs.is_empty() {
            one.insert(name.to_owned(), pairs.into());
        }
    }
    let with = |method: String| {
        let mut one = one.clone();
        one.insert("method".to_owned(), method.to_ascii_uppercase().into());
        Value::Object(one)
    };
    if methods.is_empty() {
        return Some(vec![Value::Object(one)]);
    }
    Some(methods.into_iter().map(with).collect())
}

/// The filters that `RequestHeaders` and `ResponseHeaders` say.
pub(crate) fn header_filters(fields: &mut Fields<'_>) -> Vec<Value> {
    let mut filters = Vec::new();
    for (field, kind) in
        [("RequestHeaders", "RequestHeaderModifier"), ("ResponseHeaders", "ResponseHeaderModifier")]
    {
        let Some(mut changes) = fields.take(field).and_then(|at| at.fields()) else { continue };
        let [set, add] = ["Set", "Add"].map(|name| values(changes.take(name)));
        let remove = changes.take("Remove").map_or_else(Vec::new, |at| at.texts());
        changes.finish();
        filters.extend(modifier(kind, set, add, remove));
    }
    filters
}

fn values(map: Option<At<'_>>) -> Vec<Value> {
    let Some(mut fields) = map.and_then(|at| at.fields()) else { return Vec::new() };
    let mut pairs = Vec::new();
    for (name, at) in fields.rest() {
        let Some(value) = at.text() else { continue };
        if value.contains('%') {
            at.differs(
                "Envoy's %variables% are not filled in",
                "the text goes out as it stands: write a value",
            );
        }
        pairs.push(json!({"name": name, "value": value}));
    }
    pairs
}
