//! The one form of a request's path: any text has one or is refused, a form is its own, and none can be read as another
//! path. The first byte says how strict it is to be.
#![no_main]

use traffic::path::{NormalPath, Strictness, normalize};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let Ok(target) = std::str::from_utf8(rest) else { return };
    let strictness = if mode % 2 == 0 { Strictness::Plain } else { Strictness::Strict };
    let Ok(once) = normalize(target, strictness) else { return };
    has_one_reading(&once);
    if strictness == Strictness::Strict {
        is_unambiguous(once.path());
    }
    let twice = normalize(once.path_and_query(), strictness).expect("a form has one");
    assert_eq!(once.path_and_query(), twice.path_and_query());
    assert_eq!((once.path(), once.query()), (twice.path(), twice.query()));
});

fn has_one_reading(form: &NormalPath<'_>) {
    let path = form.path();
    assert!(form.path_and_query().starts_with(path));
    assert!(path.starts_with('/') || path == "*", "{path:?}");
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#'), "{path:?}");
    assert!(!path.contains("%00"), "{path:?}");
    // However the rest is parted and decoded once, no segment is one of dots.
    let parts = path.replace("%2F", "/").replace("%5C", "/").replace("%3B", ";");
    assert!(!parts.split(['/', ';']).any(|part| part == "." || part == ".."), "{path:?}");
    for escape in path.match_indices('%').map(|(at, _)| &path[at + 1..at + 3]) {
        let byte = u8::from_str_radix(escape, 16).expect("two digits");
        assert_eq!(escape, escape.to_ascii_uppercase());
        assert!(!byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte), "{path:?}");
    }
}

fn is_unambiguous(path: &str) {
    for odd in ["//", "%2F", "%5C", ";", "%0", "%1", "%7F", "%C0", "%C1"] {
        assert!(!path.contains(odd), "{path:?}");
    }
}
