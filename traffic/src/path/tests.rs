use proptest::prelude::*;

use super::*;

/// `want` is the form that is forwarded, or `!` and the refusal.
#[track_caller]
fn check_as(strictness: Strictness, target: &str, want: &str) {
    let got = match normalize(target, strictness) {
        Ok(path) => path.path_and_query().to_owned(),
        Err(refused) => format!("!{refused:?}"),
    };
    assert_eq!(got, want, "{target:?}, {strictness:?}");
}

#[track_caller]
fn check(target: &str, want: &str) {
    check_as(Strictness::Plain, target, want);
    check_as(Strictness::Strict, target, want);
}

#[track_caller]
fn differs(target: &str, plain: &str, strict: &str) {
    check_as(Strictness::Plain, target, plain);
    check_as(Strictness::Strict, target, strict);
}

#[test]
fn usual_paths_stay_and_are_not_copied() {
    for path in ["/", "/api/users", "/a.b/c~d/", "/a:b@c", "/.well-known/x", "/a?b=//../%zz;c\\", "*"] {
        check(path, path);
    }
    assert!(normalize("/api/users?a=1", Strictness::Strict).expect("a path").is_as_sent());
}

#[test]
fn escapes_have_one_form() {
    check("/%7euser/%41%2d%5F", "/~user/A-_");
    check("/a%3fb%2c", "/a%3Fb%2C");
    check("/é", "/%C3%A9");
    check("/%c3%a9%E9", "/%C3%A9%E9");
    check("/%252e%252e/a", "/%252e%252e/a");
}

#[test]
fn dot_segments_are_removed() {
    check("/a/./b/../c", "/a/c");
    check("/a/b/..", "/a/");
    check("/a/.", "/a/");
    check("/../../a", "/a");
    check("/a/%2e%2E/b", "/b");
    check("/%2e", "/");
    check("/...", "/...");
    check("", "/");
    check("?a=1", "/?a=1");
}

#[test]
fn what_applications_differ_on_is_kept_or_refused() {
    differs("//a//b//", "//a//b//", "/a/b/");
    differs("/a//../b", "/a/b", "/b");
    differs("/queues/%2f/x", "/queues/%2F/x", "!Ambiguous");
    differs("/a%5cb", "/a%5Cb", "!Ambiguous");
    differs("/a;v=1/b", "/a;v=1/b", "!Ambiguous");
    check("/a%3bv", "/a%3Bv");
}

#[test]
fn hidden_dot_segments_are_refused() {
    for target in
        ["/..;/admin", "/.;x/a", "/a/..;v=1", "/..%2fadmin", "/a%5c..%5cb", "/%2e%2e;/a", "/a;/..%2F"]
    {
        differs(target, "!HiddenDots", "!Ambiguous");
    }
    for target in ["/..%3b/admin", "/.%3Bx/a", "/a/%2e.%3b"] {
        check(target, "!HiddenDots");
    }
    check("/...%3b/a%3B..b", "/...%3B/a%3B..b");
}

#[test]
fn what_no_uri_has_is_refused() {
    check("a", "!Relative");
    check("/a\\b", "!Character(92)");
    check("/a b", "!Character(32)");
    check("/a\nb", "!Character(10)");
    check("/a#b", "!Character(35)");
    check("/a?b c", "!Character(32)");
    check("/%00", "!Nul");
    check("/a%", "!Escape");
    check("/a%4", "!Escape");
    check("/a%4g", "!Escape");
    for overlong in ["/%c0%af", "/%C1%81", "/%e0%80%af", "/%f0%80%80%af"] {
        check(overlong, "!Overlong");
    }
    differs("/%C0x", "/%C0x", "!Odd(192)");
}

/// Ways to write `/admin` that got past the policies of other proxies.
const WAYS_TO_ADMIN: &str = r"
    /admin //admin ///admin /./admin /x/../admin /x/./../admin /%61dmin /%61%64%6d%69%6e /%2e/admin
    /x/%2e%2e/admin /x/.%2e/admin /x/%2E./admin /../admin /../../admin /x/y/../../admin /x//../admin
    /admin/ /admin// /admin/. /admin/x/.. /admin? /admin?x=/../ /x/../admin?a#b /admin;x /;x/admin
    /x;/../admin /x/..;/admin /x/..;a=b/admin /x/..%3b/admin /x/..%3Ba=b/admin /.;/admin /%2e;/admin
    /x%2f..%2fadmin /x/..%2fadmin /%2fadmin /admin%2fx /x%2F%2e%2e%2Fadmin /x%5c..%5cadmin
    /x/..%5cadmin /%5cadmin /x\..\admin \admin /admin%00 /admin%00/x /%00/../admin /admin%0a
    /admin%0d%0a /%09/admin /adm%7fin /admin%c0%af /x/%c0%ae%c0%ae/admin /x%c0%afadmin /%c1%9cadmin
    /x/%e0%80%ae%e0%80%ae/admin /x/%f0%80%80%ae/admin /x%f8%80%80%80%afadmin
    /x/%fc%80%80%80%80%ae/admin /%c0%2e/admin /%c0./admin /admin# /admin#/x admin ./admin /admin%
    /admin%2 /admin%zz /x/..%2f..%2f/admin /x/%2e%2e%3b/admin /%u002e/admin
";

#[test]
fn no_way_of_writing_a_path_gets_past_a_policy() {
    for target in WAYS_TO_ADMIN.split_whitespace() {
        let normal = normalize(target, Strictness::Strict);
        let held = normal.as_ref().map_or(true, |path| path.path().starts_with("/admin"));
        assert!(held, "{target:?} is {normal:?}");
    }
    // These are other paths to everybody who decodes once.
    for target in ["/%2561dmin", "/x/%252e%252e/admin", "/Admin", "/x/admin", "/.../admin", "/x/..a/admin"] {
        let path = normalize(target, Strictness::Strict).expect("a path");
        assert!(!path.path().starts_with("/admin"), "{target:?}");
    }
}

#[test]
fn odd_escapes_are_refused_where_a_policy_decides_by_path() {
    differs("/a%0Ab", "/a%0Ab", "!Odd(10)");
    differs("/a%09b%7f", "/a%09b%7F", "!Odd(9)");
    differs("/%f5%80", "/%F5%80", "!Odd(245)");
    for overlong in ["/%f8%80%80%80%af", "/%fc%80%80%80%80%af"] {
        check(overlong, "!Overlong");
    }
    check("/a%20b%22", "/a%20b%22");
}

#[test]
fn the_query_is_split_at_the_first_mark() {
    let path = normalize("/a/../b?c=%2e?d", Strictness::Plain).expect("a path");
    assert_eq!((path.path(), path.query()), ("/b", Some("c=%2e?d")));
    assert_eq!(normalize("/a", Strictness::Plain).expect("a path").query(), None);
}

fn targets() -> impl Strategy<Value = String> {
    let parts = [
        "/", "/", ".", "..", "%2e", "%2F", "%5c", ";", "a", "%41", "%25", "?", "é", "%C3%A9", "//", "*",
        "b.c", "%3B",
    ];
    prop::collection::vec(prop::sample::select(parts.to_vec()), 0..12)
        .prop_map(|parts| format!("/{}", parts.concat()))
}

proptest! {
    #[test]
    fn normalising_twice_changes_nothing(target in targets(), strict: bool) {
        let strictness = if strict { Strictness::Strict } else { Strictness::Plain };
        if let Ok(once) = normalize(&target, strictness) {
            let twice = normalize(once.path_and_query(), strictness).expect("a normal path is taken");
            prop_assert_eq!(once.path_and_query(), twice.path_and_query());
            prop_assert!(once.path().starts_with('/'));
            let dots = |segment: &str| matches!(segment, "." | "..");
            prop_assert!(!once.path().split(['/', ';']).any(dots), "{:?}", once);
        }
    }

    #[test]
    fn no_text_makes_it_panic(target in any::<String>(), strict: bool) {
        let strictness = if strict { Strictness::Strict } else { Strictness::Plain };
        if let Ok(path) = normalize(&target, strictness) {
            prop_assert!(path.path_and_query().is_ascii() || path.query().is_some_and(|query| !query.is_ascii()));
        }
    }
}
