//! Policies let in whom the intentions let in; where they cannot say it they are told, and let in fewer.

use serde_json::json;

use super::{
    super::{Imported, Source, Value, Verdict, consul},
    setting, sound,
};

/// What an intention says of a caller; nothing for the first.
const SAYINGS: [Option<&str>; 5] = [
    None,
    Some(r#""Action": "allow""#),
    Some(r#""Action": "deny""#),
    Some(
        r#""Permissions": [{"Action": "deny", "HTTP": {"PathPrefix": "/admin"}}, {"Action": "allow", "HTTP": {"PathPrefix": "/"}}]"#,
    ),
    Some(r#""Permissions": [{"Action": "allow", "HTTP": {"Methods": ["GET"]}}]"#),
];
const CALLERS: [&str; 3] = ["*", "x", "y"];
const CALLS: [(&str, &str); 3] = [("GET", "/"), ("POST", "/"), ("GET", "/admin")];

/// Whether a saying lets a call in, by Consul's documentation.
fn says(saying: usize, (method, path): (&str, &str), usual: bool) -> bool {
    match saying {
        1 => true,
        2 => false,
        3 => !path.starts_with("/admin"),
        4 => method == "GET" || usual,
        _ => usual,
    }
}

/// The most specific intention decides: callee before caller.
fn lets_in(own: &[usize], all: &[usize], caller: usize, call: (&str, &str), usual: bool) -> bool {
    let order = [own[caller], own[0], all[caller], all[0]];
    let decides = order.into_iter().find(|saying| *saying != 0);
    decides.map_or(usual, |saying| says(saying, call, usual))
}

/// Whether the policies let a call in, by docs/authorization.md.
fn policies_let_in(items: &[Value], callee: &str, caller: &str, call: (&str, &str)) -> bool {
    let selects = |policy: &&Value| {
        policy["spec"]["targetRefs"]
            .as_array()
            .is_none_or(|targets| targets.iter().any(|target| target["name"] == callee))
    };
    let of = |action: &'static str| {
        items.iter().filter(selects).filter(move |policy| policy["spec"]["action"] == action)
    };
    let rules = |action| of(action).flat_map(|policy| policy["spec"]["rules"].as_array().expect("rules"));
    let fits = |rule: &Value| {
        let caller = json!(format!("default/{caller}"));
        let from = rule["from"].as_array().is_none_or(|from| {
            from.iter().any(|from| from["services"].as_array().expect("services").contains(&caller))
        });
        let to = rule["to"].as_array().is_none_or(|to| to.iter().any(|to| fits_to(to, call)));
        from && to
    };
    !rules("Deny").any(fits) && (of("Allow").next().is_none() || rules("Allow").any(fits))
}

fn fits_to(to: &Value, (method, path): (&str, &str)) -> bool {
    let methods = to["methods"].as_array().is_none_or(|methods| methods.contains(&json!(method)));
    let paths = to["paths"].as_array().is_none_or(|paths| {
        paths
            .iter()
            .any(|one| path.starts_with(one["value"].as_str().expect("a path").trim_end_matches(".*")))
    });
    methods && paths
}

fn sources(sayings: &[usize]) -> String {
    let one =
        |(caller, saying): (&str, usize)| Some(format!(r#"{{"Name": "{caller}", {}}}"#, SAYINGS[saying]?));
    CALLERS.into_iter().zip(sayings.iter().copied()).filter_map(one).collect::<Vec<_>>().join(", ")
}

fn imported(own: &[usize], all: &[usize], usual: bool) -> Imported {
    let entry = |name: &str, sayings: &[usize]| {
        format!(r#"{{"Kind": "service-intentions", "Name": "{name}", "Sources": [{}]}}"#, sources(sayings))
    };
    let text = format!("[{}, {}]", entry("a", own), entry("*", all));
    let usual = if usual { Verdict::open() } else { Verdict::closed() };
    consul(&[Source { file: "all.json".to_owned(), text }], setting(usual)).expect("it is read")
}

/// All ways to say one of the first `kinds` things of three callers.
fn ways(kinds: usize) -> impl Iterator<Item = [usize; 3]> {
    (0..kinds.pow(3)).map(move |way| [way % kinds, way / kinds % kinds, way / kinds / kinds])
}

#[test]
fn policies_let_in_whom_intentions_do_and_never_more() {
    let (mut exact, mut told) = (0, 0);
    for usual in [false, true] {
        for (own, all) in ways(5).flat_map(|own| ways(3).map(move |all| (own, all))) {
            // Where nothing is said of anyone no policy is written.
            if own == [0; 3] && all == [0; 3] {
                continue;
            }
            let imported = imported(&own, &all, usual);
            // Each takes as long as all the rest of a case.
            if (exact + told) % 50 == 0 {
                sound(&imported);
            }
            for callee in ["a", "b"] {
                let own = if callee == "a" { own } else { [0; 3] };
                for (caller, name) in [(0, "z"), (1, "x"), (2, "y")] {
                    for call in CALLS {
                        let want = lets_in(&own, &all, caller, call, usual);
                        let got = policies_let_in(&imported.items, callee, name, call);
                        let what = format!(
                            "{own:?} {all:?} {usual}: {name} -> {callee} {call:?}\n{}",
                            json!(imported.items)
                        );
                        assert!(want || !got, "let in, and was not: {what}");
                        assert!(want == got || !imported.remarks.is_empty(), "closed without a word: {what}");
                    }
                }
            }
            *(if imported.remarks.is_empty() { &mut exact } else { &mut told }) += 1;
        }
    }
    assert!(exact > 3_000 && told > 500, "{exact} exact, {told} told");
}
