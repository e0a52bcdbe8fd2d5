use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use model::{identity::SpiffeId, name::ServiceName};

use super::*;
use crate::endpoint::Health;

/// What is known of endpoints, by name: calls under way, and whether it is ejected.
#[derive(Default)]
struct Known(HashMap<String, (u32, bool)>);

impl Experience for Known {
    fn in_flight(&self, endpoint: &EndpointKey) -> u32 {
        self.0.get(endpoint.name().as_str()).map_or(0, |(count, _)| *count)
    }

    fn standing(&self, endpoint: &EndpointKey) -> Standing {
        let ejected = self.0.get(endpoint.name().as_str()).is_some_and(|(_, ejected)| *ejected);
        if ejected { Standing::Ejected } else { Standing::Fine }
    }
}

/// Endpoints as words: `a`, with `*5` for its weight, `!` if unhealthy, `~` if draining, `+3` for calls under way, `x` if
/// ejected, `^` if it was tried.
fn world(text: &str) -> (Pool, Known, Vec<EndpointKey>) {
    let (mut endpoints, mut known, mut tried) = (Vec::new(), Known::default(), Vec::new());
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
        let endpoint = endpoint(name, index, number('*').unwrap_or(1), health);
        known.0.insert(name.to_owned(), (number('+').unwrap_or(0), marks.contains('x')));
        tried.extend(marks.contains('^').then(|| endpoint.key.clone()));
        endpoints.push(Arc::new(endpoint));
    }
    (Pool::new(endpoints), known, tried)
}

fn endpoint(name: &str, index: usize, weight: u32, health: Health) -> Endpoint {
    let service: ServiceName = "default/web".parse().expect("a service");
    let address = SocketAddr::from(([10, 0, 0, index as u8], 15_008));
    let domain = "mesh.internal".parse().expect("a domain");
    Endpoint {
        id: SpiffeId::service(&domain, &service),
        key: EndpointKey::new(service, name.parse().expect("a name"), address),
        node: "host".parse().expect("a name"),
        zone: None,
        weight,
        health,
        stale: false,
        apps: Vec::new(),
    }
}

/// How often each endpoint is picked out of 10,000 times.
fn counts(text: &str, seed: u64) -> BTreeMap<String, u32> {
    let (pool, known, tried) = world(text);
    let (mut dice, mut counts) = (Dice::seeded(seed), BTreeMap::new());
    for _ in 0..10_000 {
        let picked = pick(&pool, &known, &tried, &mut dice);
        *counts.entry(picked.map_or("none".to_owned(), |one| one.key.name().to_string())).or_default() += 1;
    }
    counts
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
    // The 99.9 % points for 1 to 4 degrees of freedom.
    let bound = [10.83, 13.82, 16.27, 18.47][shares.len() - 2];
    for seed in 1..=5 {
        let counts = counts(text, seed);
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
    let (pool, mut known, _) = world(&names.join(" "));
    let mut dice = Dice::seeded(5);
    for _ in 0..10_000 {
        let picked = pick(&pool, &known, &[], &mut dice).expect("one of ten").key.name().to_string();
        known.0.get_mut(&picked).expect("a known one").0 += 1;
    }
    let (least, most) = (known.0.values().min().expect("ten"), known.0.values().max().expect("ten"));
    assert!(most.0 - least.0 <= 10, "two choices keep {least:?} and {most:?} together");
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
