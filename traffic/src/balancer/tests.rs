use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use model::{identity::SpiffeId, name::ServiceName};

use super::*;
use crate::{Moment, endpoint::Health};

/// What is known of endpoints, by name.
#[derive(Default)]
struct World(HashMap<String, Known>);

impl Experience for World {
    fn of(&mut self, endpoint: &EndpointKey) -> Known {
        self.0.get(endpoint.name().as_str()).copied().unwrap_or_default()
    }

    fn ejected(&self, _: &ServiceName) -> usize {
        self.0.values().filter(|known| known.standing == Standing::Ejected).count()
    }
}

/// Endpoints as words: `a`, with `*5` for its weight, `!` if unhealthy, `~` if draining, `+3` for calls under way, `x` if
/// ejected, `^` if it was tried, `@z` for its zone, `=9` for its latency in milliseconds, `%10` for its warmth in percent.
fn parsed(text: &str) -> (Vec<Arc<Endpoint>>, World, Vec<EndpointKey>) {
    let (mut endpoints, mut known, mut tried) = (Vec::new(), World::default(), Vec::new());
    for (index, word) in text.split_whitespace().enumerate() {
        let (name, marks) = word.split_at(1);
        let number = |mark: char| {
            let (_, digits) = marks.split_once(mark)?;
            digits.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
        };
        let health = match (marks.contains('!'), marks.contains('~')) {
            (true, _) => Health::Unhealthy,
            (_, true) => Health::Draining,
            _ => Health::Healthy,
        };
        let mut endpoint = endpoint(name, index, number('*').unwrap_or(1), health);
        endpoint.zone = marks.split_once('@').map(|(_, zone)| zone[..1].parse().expect("a name"));
        let standing = if marks.contains('x') { Standing::Ejected } else { Standing::Fine };
        let in_flight = number('+').unwrap_or(0);
        let micros = number('=').map(|millis| u64::from(millis) * 1_000);
        let warmth = number('%').map_or(WARM, |percent| WARM * percent / 100);
        known.0.insert(name.to_owned(), Known { in_flight, standing, micros, warmth });
        tried.extend(marks.contains('^').then(|| endpoint.key.clone()));
        endpoints.push(Arc::new(endpoint));
    }
    (endpoints, known, tried)
}

/// Settings as they stand in a policy (flow YAML), beside what is usual.
fn settings(text: &str) -> Settings {
    let policy = format!(
        "{{kind: TrafficPolicy, metadata: {{namespace: default, name: p}}, spec: {{loadBalancer: {text}}}}}"
    );
    let parsed = model::manifest::parse(&policy).expect("a manifest").remove(0);
    let model::resource::Resource::TrafficPolicy(spec) = parsed.resource else { panic!("a policy") };
    Settings::from(&spec.load_balancer)
}

fn endpoint(name: &str, index: usize, weight: u32, health: Health) -> Endpoint {
    let service: ServiceName = "default/web".parse().expect("a service");
    let address = SocketAddr::from(([10, 0, 0, index as u8], 15_008));
    let domain = "mesh.internal".parse().expect("a domain");
    Endpoint {
        id: SpiffeId::service(&domain, &service),
        key: EndpointKey::new(service, name.parse().expect("a name"), address),
        node: Some("host".parse().expect("a name")),
        zone: None,
        weight,
        health,
        stale: false,
        apps: Vec::new(),
        tls: None,
    }
}

/// How often each endpoint is picked out of 10,000 times, by these settings, from zone `a`. Each request carries another
/// key, and each turn is the next.
fn counts_by(balancer: &str, text: &str, seed: u64) -> BTreeMap<String, u32> {
    let (endpoints, mut known, tried) = parsed(text);
    let zone = "a".parse().expect("a name");
    let pool = Pool::new(endpoints, settings(balancer), Some(&zone));
    let (mut dice, mut counts) = (Dice::seeded(seed), BTreeMap::new());
    for turn in 0..10_000 {
        let ask = Ask { hash: Some(crate::hash::mix(seed ^ (turn << 20))), kept: None, turn };
        let picked = pick(&pool, &ask, &mut known, &tried, &mut dice);
        *counts.entry(picked.map_or("none".to_owned(), |one| one.key.name().to_string())).or_default() += 1;
    }
    counts
}

fn counts(text: &str, seed: u64) -> BTreeMap<String, u32> {
    counts_by("{}", text, seed)
}

/// Which endpoints are picked at all.
#[track_caller]
fn check(text: &str, want: &str) {
    assert_eq!(counts(text, 1).into_keys().collect::<Vec<_>>().join(" "), want, "{text}");
}

/// Whether picks follow `shares` (in percent), by a chi-square test that a right balancer fails once in a thousand seeds;
/// the seeds are fixed.
#[track_caller]
fn check_shares(text: &str, shares: &[(&str, f64)]) {
    check_shares_by("{}", text, shares);
}

#[track_caller]
fn check_shares_by(balancer: &str, text: &str, shares: &[(&str, f64)]) {
    // The 99.9 % points for 1 to 4 degrees of freedom.
    let bound = [10.83, 13.82, 16.27, 18.47][shares.len() - 2];
    for seed in 1..=5 {
        let counts = counts_by(balancer, text, seed);
        let off = |(name, share): &(&str, f64)| {
            let (got, want) = (f64::from(counts.get(*name).copied().unwrap_or(0)), share * 100.0);
            (got - want).powi(2) / want
        };
        let chi_square: f64 = shares.iter().map(off).sum();
        assert!(chi_square < bound, "{text}, seed {seed}: {counts:?}, {chi_square}");
    }
}

#[test]
fn without_load_weights_decide() {
    check_shares("a b c d", &[("a", 25.0), ("b", 25.0), ("c", 25.0), ("d", 25.0)]);
    check_shares("a*1 b*3", &[("a", 25.0), ("b", 75.0)]);
    check_shares("a*1 b*9 c*90", &[("a", 1.0), ("b", 9.0), ("c", 90.0)]);
}

#[test]
fn of_two_the_one_with_less_under_way_is_taken() {
    check("a+5 b+4", "b");
    check("a*10+9 b*1+1", "a");
    // The busiest of three is only ever the worse of two; the idlest is drawn with chance 2/3.
    check_shares("a+1 b+2", &[("a", 100.0), ("b", 1e-9)]);
    check_shares("a+1 b+2 c+3", &[("a", 66.667), ("b", 33.333)]);
}

#[test]
fn groups_are_taken_in_order() {
    check("a b", "a b");
    check("a bx c! d~", "a");
    check("ax bx c! d~", "a b");
    check("a! b!x c~", "a b");
    check("a~ b~", "none");
    check("a*0 b", "b");
    check("a*0", "none");
    check("", "none");
}

#[test]
fn tried_endpoints_come_last() {
    check("a^ b", "b");
    check("a^ bx c!", "b");
    check("a^ b^ c!", "c");
    check("a^", "a");
    check("a^ bx^ c!^", "a b");
    check("a~ b^", "b");
}

#[test]
fn the_rest_share_evenly_when_most_are_ejected() {
    let many: String = ('a'..='z')
        .map(|name| if "ahz".contains(name) { format!("{name} ") } else { format!("{name}x ") })
        .collect();
    check_shares(&many, &[("a", 33.333), ("h", 33.333), ("z", 33.333)]);
    check_shares("ax bx cx d*1 e*3", &[("d", 25.0), ("e", 75.0)]);
}

#[test]
fn load_evens_out_over_time() {
    let names: Vec<String> = ('a'..='j').map(String::from).collect();
    let (endpoints, mut known, _) = parsed(&names.join(" "));
    let (pool, mut dice) = (Pool::new(endpoints, Settings::default(), None), Dice::seeded(5));
    for _ in 0..10_000 {
        let picked = pick(&pool, &Ask::default(), &mut known, &[], &mut dice).expect("one of ten");
        known.0.get_mut(picked.key.name().as_str()).expect("a known one").in_flight += 1;
    }
    let loads = || known.0.values().map(|known| known.in_flight);
    let (least, most) = (loads().min().expect("ten"), loads().max().expect("ten"));
    assert!(most - least <= 10, "two choices keep {least:?} and {most:?} together");
}

#[test]
fn keys_are_equal_by_what_they_name() {
    let service: ServiceName = "default/web".parse().expect("a service");
    let key = |name: &str, address: &str| {
        EndpointKey::new(service.clone(), name.parse().expect("a name"), address.parse().expect("an address"))
    };
    let known = HashMap::from([(key("a", "10.0.0.1:15008"), 1)]);
    assert_eq!(known.get(&key("a", "10.0.0.1:15008")), Some(&1));
    assert_eq!(known.get(&key("b", "10.0.0.1:15008")), None);
    assert_eq!(known.get(&key("a", "10.0.0.2:15008")), None);
}

#[test]
fn of_two_the_faster_is_taken_where_the_difference_matters() {
    check("a=10 b=30", "a");
    check("a=10 b=19", "a b");
    check_shares("a=10 b=19", &[("a", 50.0), ("b", 50.0)]);
    check("a=10+2 b=31", "a");
    check("a=10+3 b=31", "b");
    check("a=1 b=0", "a b");
    check("a=500 b", "a b");
    check_shares_by("{type: LeastRequest}", "a=10 b=900", &[("a", 50.0), ("b", 50.0)]);
    check_shares("a=10*1 b=10*3", &[("a", 25.0), ("b", 75.0)]);
}

#[test]
fn random_is_by_weight_whatever_the_load() {
    check_shares_by("{type: Random}", "a+9 b*3", &[("a", 25.0), ("b", 75.0)]);
    check_shares_by("{type: Random}", "ax b c", &[("b", 50.0), ("c", 50.0)]);
}

/// Turns are exact.
#[test]
fn endpoints_take_turns_by_weight_and_those_that_cannot_are_passed_over() {
    let exact = |text: &str| counts_by("{type: RoundRobin}", text, 1).into_iter().collect::<Vec<_>>();
    let want = |pairs: &[(&str, u32)]| {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<Vec<_>>()
    };
    assert_eq!(exact("a b c d"), want(&[("a", 2_500), ("b", 2_500), ("c", 2_500), ("d", 2_500)]));
    assert_eq!(exact("a b*3"), want(&[("a", 2_500), ("b", 7_500)]));
    assert_eq!(exact("a bx c^ d"), want(&[("a", 2_500), ("d", 7_500)]));
    assert_eq!(exact("a! b~"), want(&[("a", 10_000)]));
}

#[test]
fn keys_spread_by_weight() {
    let near = |balancer: &str, text: &str, want: &[(&str, u32)], off: u32| {
        let counts = counts_by(balancer, text, 3);
        for (name, want) in want {
            let got = counts.get(*name).copied().unwrap_or(0);
            assert!(got.abs_diff(*want) <= off, "{balancer} {text}: {counts:?}");
        }
    };
    let (ring, maglev) =
        ("{type: RingHash, hashOn: [{type: Source}]}", "{type: Maglev, hashOn: [{type: Source}]}");
    near(ring, "a b c d", &[("a", 2_500), ("b", 2_500), ("c", 2_500), ("d", 2_500)], 600);
    near(ring, "a b*3", &[("a", 2_500), ("b", 7_500)], 700);
    near(maglev, "a b c d", &[("a", 2_500), ("b", 2_500), ("c", 2_500), ("d", 2_500)], 150);
    near(maglev, "a b*3", &[("a", 2_500), ("b", 7_500)], 150);
    near(maglev, "ax b c", &[("a", 0), ("b", 5_000), ("c", 5_000)], 250);
    near(ring, "a! b!", &[("a", 5_000), ("b", 5_000)], 900);
}

/// How many of 2,000 keys go elsewhere than before.
fn moved(balancer: &str, before: &str, after: &str) -> usize {
    let place = |text: &str| -> Vec<String> {
        let (endpoints, mut known, tried) = parsed(text);
        let (pool, mut dice) = (Pool::new(endpoints, settings(balancer), None), Dice::seeded(1));
        let mut name = |key: u64| {
            let ask = Ask { hash: Some(crate::hash::mix(key)), ..Ask::default() };
            pick(&pool, &ask, &mut known, &tried, &mut dice).expect("one").key.name().to_string()
        };
        (0..2_000).map(&mut name).collect()
    };
    place(before).iter().zip(place(after)).filter(|(before, after)| *before != after).count()
}

#[test]
fn few_keys_move_when_an_endpoint_goes_or_is_ejected() {
    for balancer in ["{type: RingHash, hashOn: [{type: Source}]}", "{type: Maglev, hashOn: [{type: Source}]}"]
    {
        let all = "a b c d e f g h i j";
        assert_eq!(moved(balancer, all, all), 0);
        let (gone, ejected) =
            (moved(balancer, all, "a b c d e f g h i"), moved(balancer, all, "a b c d e f g h i jx"));
        // What was the tenth's own, and a few more.
        assert!((120..=300).contains(&gone), "{balancer}: {gone}");
        assert!((120..=280).contains(&ejected), "{balancer}: {ejected}");
    }
}

#[test]
fn a_request_comes_back_to_its_endpoint_while_that_is_well() {
    let settings = settings("{affinity: {cookie: mesh, ttl: 90s}}");
    let came = |text: &str, id: Option<u64>| {
        let (endpoints, mut known, tried) = parsed(text);
        let pool = Pool::new(endpoints, settings.clone(), None);
        let ask = Ask { kept: id, ..Ask::default() };
        let mut dice = Dice::seeded(2);
        let mut picked =
            || pick(&pool, &ask, &mut known, &tried, &mut dice).expect("one").key.name().to_string();
        let mut names: Vec<String> = (0..100).map(|_| picked()).collect();
        names.sort();
        names.dedup();
        names.join(" ")
    };
    let id = endpoint("b", 1, 1, Health::Healthy).key.id();
    assert_eq!(came("a b c", Some(id)), "b");
    assert_eq!(came("a+9 b+99 c", Some(id)), "b");
    for gone in ["a bx c", "a b^ c", "a b! c", "a b~ c", "a c", "a b*0 c"] {
        assert_eq!(came(gone, Some(id)), "a c", "{gone}");
    }
    let ask = Ask { kept: Some(id), ..Ask::default() };
    assert_eq!(ask.to_keep(&settings, id), None, "it has it");
    let cookie = Ask::default().to_keep(&settings, 0xab).expect("it needs one");
    assert_eq!(cookie, "mesh=00000000000000ab; Path=/; HttpOnly; SameSite=Lax; Max-Age=90");
    assert_eq!(ask.to_keep(&Settings::default(), 7), None);
}

/// What a request carries is found in it.
#[test]
fn the_first_key_that_a_request_carries_counts() {
    use crate::{
        path::{Strictness, normalize},
        request::RequestHead,
    };
    let of = |balancer: &str, fields: &[(&str, &str)], source: &str, node: &str| {
        struct Slice<'a>(&'a [(&'a str, &'a str)]);
        impl crate::request::Fields for Slice<'_> {
            fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
                self.0.each(name, each);
            }
        }
        let path = normalize("/", Strictness::Plain).expect("a path");
        let fields = Slice(fields);
        let head = RequestHead { method: "GET", path: &path, authority: "", fields: &fields };
        let node = node.parse().expect("a name");
        settings(balancer).ask(&head, &source.parse().expect("a service"), Some(&node))
    };
    let both = "{type: Maglev, hashOn: [{type: Header, name: X-User}, {type: Cookie, name: sid}]}";
    let user = of(both, &[("x-user", "u1"), ("cookie", "sid=9")], "a/b", "n");
    assert_eq!(user, of(both, &[("x-user", "u1")], "c/d", "m"));
    let cookie = of(both, &[("cookie", "a=1; sid=9")], "a/b", "n");
    assert_eq!(cookie, of(both, &[("cookie", "sid=9")], "a/b", "n"));
    assert!(user.hash.is_some() && cookie.hash.is_some() && user != cookie);
    assert_eq!(of(both, &[], "a/b", "n").hash, None);
    let source = "{type: RingHash, hashOn: [{type: Source}]}";
    let hash = |service, node| of(source, &[], service, node).hash;
    assert_eq!(hash("a/b", "n"), hash("a/b", "n"));
    assert!(hash("a/b", "n") != hash("a/b", "m") && hash("a/b", "n") != hash("b/a", "n"));
    let sticky = of("{affinity: {cookie: mesh}}", &[("cookie", "mesh=00000000000000ab")], "a/b", "n");
    assert_eq!((sticky.kept, sticky.hash), (Some(0xab), None));
    for odd in ["mesh=ab", "mesh=+0000000000000ab", "mesh=zz000000000000ab", "mash=00000000000000ab"] {
        assert_eq!(of("{affinity: {cookie: mesh}}", &[("cookie", odd)], "a/b", "n").kept, None, "{odd}");
    }
}

#[test]
fn what_is_new_gets_its_share_by_and_by() {
    let slow = "{type: Random, slowStart: 30s}";
    check_shares_by(slow, "a b%25", &[("a", 80.0), ("b", 20.0)]);
    check_shares_by("{type: Random}", "a b", &[("a", 50.0), ("b", 50.0)]);
    let settings = settings("{slowStart: 30s}");
    let at = |seconds| settings.warmth(Moment::default(), Moment::after_start(Duration::from_secs(seconds)));
    assert_eq!((at(0), at(15), at(30), at(300)), (WARM / 10, WARM / 2, WARM, WARM));
    assert_eq!(Settings::default().warmth(Moment::default(), Moment::default()), WARM);
}

#[test]
fn all_get_calls_where_too_few_are_well() {
    let panic = "{type: Random, panicThreshold: 50}";
    check_shares_by(panic, "a bx c! d!", &[("a", 25.0), ("b", 25.0), ("c", 25.0), ("d", 25.0)]);
    check_shares_by(panic, "a b c! d!", &[("a", 50.0), ("b", 50.0)]);
    check_shares_by(panic, "a b cx d~", &[("a", 50.0), ("b", 50.0)]);
    check_shares_by(panic, "a^ bx c! d!", &[("b", 33.333), ("c", 33.333), ("d", 33.333)]);
}

#[test]
fn calls_stay_in_their_zone_as_far_as_it_carries_them() {
    let zones = "{type: Random, zones: {}}";
    check_shares_by(zones, "a@a b@a c@b d@b", &[("a", 50.0), ("b", 50.0)]);
    // A half of the own zone is well; of the 70 % that are wanted, 50/70 stay.
    check_shares_by(zones, "a@a bx@a c@b d@b", &[("a", 71.429), ("c", 14.286), ("d", 14.286)]);
    check_shares_by(zones, "a@a b@a! c@b", &[("a", 71.429), ("c", 28.571)]);
    check_shares_by(
        "{type: Random, zones: {spillOverBelow: 50}}",
        "a@a b!@a c@b d@b",
        &[("a", 100.0), ("c", 1e-9)],
    );
    check_shares_by(zones, "a@b b@c", &[("a", 50.0), ("b", 50.0)]);
    check_shares_by(zones, "ax@a b@b c", &[("b", 50.0), ("c", 50.0)]);
    check_shares_by(zones, "a@a^ b@b", &[("a", 1e-9), ("b", 100.0)]);
}
