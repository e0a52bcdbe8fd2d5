use model::{manifest, resource::Resource};

use super::*;
use crate::path::{Strictness, normalize};

const fn rate(requests: u64, seconds: u64, burst: u64) -> Rate {
    Rate { requests, per: Duration::from_secs(seconds), burst }
}

/// Runs `script` over one bucket: `+<millis>` passes time, `ok` takes a token of which so many are left (`ok:3`), `no`
/// finds none and is told when to come again (`no:500`, in milliseconds).
#[track_caller]
fn check(rate: Rate, script: &str) {
    let (mut buckets, mut now) = (Buckets::default(), Moment::default());
    for word in script.split_whitespace() {
        if let Some(millis) = word.strip_prefix('+') {
            now = now + Duration::from_millis(millis.parse().expect("a number"));
            continue;
        }
        let (want, number) = word.split_once(':').expect("a number");
        let number: u64 = number.parse().expect("a number");
        let stand = buckets.look(rate, 1, now);
        assert_eq!(stand.allowed, want == "ok", "{word} in {script}: {stand:?}");
        match stand.allowed {
            true => assert_eq!(stand.left, number, "{word} in {script}: {stand:?}"),
            false => assert_eq!(stand.reset.as_millis(), u128::from(number), "{word} in {script}"),
        }
        if stand.allowed {
            buckets.take(rate, 1, now);
        }
    }
}

#[test]
fn tokens_are_taken_and_come_back_one_by_one() {
    check(rate(2, 1, 2), "ok:1 ok:0 no:500 +499 no:1 +1 ok:0 no:500 +1000 ok:1 ok:0 no:500 +9000 ok:1");
    check(rate(1, 60, 3), "ok:2 ok:1 ok:0 no:60000 +60000 ok:0 no:60000");
    check(rate(10, 1, 1), "ok:0 no:100 +100 ok:0");
}

#[test]
fn over_any_time_there_are_no_more_than_the_rate_and_its_burst() {
    let (rate, mut buckets) = (rate(50, 1, 10), Buckets::default());
    let mut dice = crate::Dice::seeded(7);
    let (mut now, mut taken) = (Moment::default(), 0_u32);
    for _ in 0..20_000 {
        now = now + dice.up_to(Duration::from_millis(10));
        if buckets.look(rate, 1, now).allowed {
            buckets.take(rate, 1, now);
            taken += 1;
        }
    }
    let most = 10.0 + now.since_start().as_secs_f64() * 50.0;
    assert!(f64::from(taken) <= most && f64::from(taken) > most - 15.0, "{taken} of {most}");
}

#[test]
fn who_makes_up_keys_shares_a_bucket_in_the_end_and_full_ones_are_forgotten() {
    let (rate, mut buckets, now) = (rate(1, 1, 1), Buckets::default(), Moment::default());
    for key in 0..BUCKETS_MAX as u64 {
        assert!(buckets.look(rate, key, now).allowed);
        buckets.take(rate, key, now);
    }
    let beyond = BUCKETS_MAX as u64 + 7;
    assert!(buckets.look(rate, beyond, now).allowed, "one more");
    buckets.take(rate, beyond, now);
    assert!(!buckets.look(rate, beyond + 1, now).allowed, "and it is shared");
    assert!(!buckets.look(rate, 3, now).allowed, "those that are kept are kept");
    let later = now + Duration::from_secs(2);
    buckets.take(rate, beyond, later);
    assert_eq!(buckets.buckets.len(), 1, "all others were full again");
    buckets.sweep(later + Duration::from_secs(2));
    assert!(buckets.buckets.is_empty());
}

/// The limits (flow YAML) that a request of `source` meets, by name, each with the key of its bucket.
fn about(limits: &str, source: &str, target: &str, fields: &[(&str, &str)]) -> Vec<(String, u64)> {
    struct Slice<'a>(&'a [(&'a str, &'a str)]);
    impl crate::request::Fields for Slice<'_> {
        fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
            self.0.each(name, each);
        }
    }
    let text = format!(
        "{{kind: TrafficPolicy, metadata: {{namespace: shop, name: p}}, spec: {{rateLimits: {limits}}}}}"
    );
    let parsed = manifest::parse(&text).expect("a manifest").remove(0);
    let Resource::TrafficPolicy(spec) = parsed.resource else { panic!("a policy") };
    let limits = Limits::compile(&"shop/p".parse().expect("a name"), &spec).expect("it compiles");
    let path = normalize(target, Strictness::Plain).expect("a path");
    let fields = Slice(fields);
    let head = RequestHead { method: "GET", path: &path, authority: "", fields: &fields };
    let source = source.parse().expect("a service");
    limits.about(&head, Some(&source)).map(|(limit, key)| (limit.name.to_string(), key)).collect()
}

#[test]
fn requests_of_a_kind_are_told_apart_as_the_limit_says() {
    let limits = "[{name: writers, matches: [{path: {value: /api}, sources: ['shop/*']}, {headers: [{name: x-bulk, value: '1'}]}], by: [{type: Source}], requests: 5},
      {requests: 100}, {by: [{type: Header, name: X-Tenant}], requests: 9, per: 1m}]";
    let names = |source, target, fields: &[(&str, &str)]| {
        let names: Vec<_> = about(limits, source, target, fields).into_iter().map(|(name, _)| name).collect();
        names.join(" ")
    };
    assert_eq!(names("shop/web", "/api/x", &[]), "shop/p/writers shop/p/1 shop/p/2");
    assert_eq!(names("jobs/web", "/api/x", &[]), "shop/p/1 shop/p/2");
    assert_eq!(names("jobs/web", "/", &[("x-bulk", "1")]), "shop/p/writers shop/p/1 shop/p/2");
    let keys = |source, fields: &[(&str, &str)]| -> Vec<u64> {
        about(limits, source, "/api", fields).into_iter().map(|(_, key)| key).collect()
    };
    let (web, api) = (keys("shop/web", &[("x-tenant", "a")]), keys("shop/api", &[("x-tenant", "a")]));
    assert!(web[0] != api[0] && web[1] == api[1] && web[2] == api[2]);
    let other = keys("shop/web", &[("x-tenant", "b")]);
    assert!(web[0] == other[0] && web[2] != other[2] && other[2] != keys("shop/web", &[])[2]);
}

#[test]
fn what_callers_are_told_is_what_the_draft_says() {
    let text = "{kind: TrafficPolicy, metadata: {namespace: shop, name: p}, spec: {rateLimits: [{name: all, requests: 100, per: 1m}, {requests: 1, per: 500ms}]}}";
    let Resource::TrafficPolicy(spec) = manifest::parse(text).expect("a manifest").remove(0).resource else {
        panic!("a policy")
    };
    let limits = Limits::compile(&"shop/p".parse().expect("a name"), &spec).expect("it compiles");
    let fields: Vec<_> = limits.0.iter().map(|limit| limit.policy_field()).collect();
    assert_eq!(fields, ["\"all\";q=100;w=60", "\"1\";q=1;w=1"]);
    let stand = Stand { allowed: false, left: 0, reset: Duration::from_millis(1_001) };
    assert_eq!(limits.0[0].field(stand), "\"all\";r=0;t=2");
    assert_eq!(stand.reset_secs(), 2);
}

#[test]
fn what_cannot_be_matched_is_named() {
    let text = "{kind: TrafficPolicy, metadata: {namespace: shop, name: p}, spec: {rateLimits: [{requests: 1}, {requests: 1, matches: [{}, {path: {type: RegularExpression, value: '('}}, {sourceLabels: {version: v2}}]}]}}";
    let Resource::TrafficPolicy(spec) = manifest::parse(text).expect("a manifest").remove(0).resource else {
        panic!("a policy")
    };
    let errors = super::check(&spec);
    let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    let want = ["spec.rateLimits[1].matches[2].sourceLabels", "spec.rateLimits[1].matches[1].path.value"];
    assert_eq!(paths, want, "{errors:?}");
}
