use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// 64 places: 64, 32, 16 and 8 for the classes; 8 MiB: 8, 4, 2 and 1.
const SMALL: Limits = Limits { places: 64, held_mib: 8, per_second: 1_000 };
const MIB: u64 = 1 << 20;

fn ask(class: Class) -> Asked {
    Asked { class, who: None, bytes: 0 }
}

fn fill(load: &mut Load, asked: Asked) -> (Vec<Place>, Refused) {
    let mut held = Vec::new();
    loop {
        match load.enter(SECOND, asked) {
            Ok(place) => held.push(place),
            Err(refused) => return (held, refused),
        }
    }
}

/// Draws of a seed, with nothing else in them (SplitMix64).
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("it is below a usize")
    }
}

/// Requests come and go as the seed draws them. What is promised: each class is refused only where it and the more
/// important ones fill half of its share themselves, so that no number of lists keeps a keep-alive out.
fn played(mut load: Load, seed: u64) -> Result<(), String> {
    let (mut draws, mut under_way) = (Draws(seed), Vec::<Place>::new());
    // Some crowds are all of one class, others mixed.
    let mut crowd = Class::Bulk;
    for step in 0..2_000_u32 {
        if draws.below(100) == 0 {
            crowd = Class::ALL[draws.below(4)];
        }
        let class = if draws.below(3) == 0 { Class::ALL[draws.below(4)] } else { crowd };
        match load.enter(SECOND * step, ask(class)) {
            Ok(place) => under_way.push(place),
            Err(refused) => {
                let important = under_way.iter().filter(|place| place.class <= class).count();
                let below = under_way.iter().filter(|place| place.class > class).count();
                let own = class.share(&SMALL).places.div_ceil(2) as usize;
                if important < own {
                    let told =
                        format!("seed {seed}, step {step}: {class:?} is refused ({:?})", refused.reason);
                    return Err(format!("{told} while {below} that are less important are served"));
                }
            }
        }
        while !under_way.is_empty() && draws.below(5) < 2 {
            let over = under_way.swap_remove(draws.below(under_way.len()));
            load.leave(over);
        }
    }
    under_way.into_iter().for_each(|place| load.leave(place));
    match (load.places(), load.bytes()) {
        (0, 0) => Ok(()),
        left => Err(format!("seed {seed}: {left:?} are left of nothing")),
    }
}

#[test]
fn the_less_important_are_refused_first() {
    for seed in 0..500 {
        assert_eq!(played(Load::new(&SMALL), seed), Ok(()));
    }
}

/// Planted: a server that treats all alike.
#[test]
fn a_load_that_treats_all_alike_is_found() {
    let alike = [Class::Bulk.share(&SMALL); 4];
    let found = (0..500).find_map(|seed| played(Load::with_shares(&SMALL, alike), seed).err());
    let found = found.expect("a keep-alive is refused while lists are served");
    assert!(found.contains("is refused (Places) while"), "{found}");
    let vital = |told: &String| told.contains("Vital is refused");
    let told: Vec<_> =
        (0..500).filter_map(|seed| played(Load::with_shares(&SMALL, alike), seed).err()).collect();
    assert!(told.iter().any(vital), "{told:?}");
}

#[test]
fn each_class_leaves_half_to_the_next() {
    let mut load = Load::new(&SMALL);
    let mut taken = 0;
    for (class, up_to) in [(Class::Bulk, 8), (Class::Change, 16), (Class::Proxy, 32), (Class::Vital, 64)] {
        let (held, refused) = fill(&mut load, ask(class));
        taken += held.len();
        assert_eq!(
            (taken, refused.reason, refused.limit),
            (up_to, Reason::Places, up_to as u64),
            "{class:?}"
        );
        assert!(!refused.reason.own());
        held.into_iter().for_each(std::mem::forget);
    }
}

#[test]
fn one_identity_gets_half_and_another_the_rest() {
    let mut load = Load::new(&SMALL);
    let flood = Asked { who: Some(1), ..ask(Class::Change) };
    let (held, refused) = fill(&mut load, flood);
    assert_eq!((held.len(), refused.reason, refused.limit), (8, Reason::OwnPlaces, 8));
    assert!(refused.reason.own());
    let other = load.enter(SECOND, Asked { who: Some(2), ..flood }).expect("there is room for another");
    load.leave(other);
    held.into_iter().for_each(|place| load.leave(place));
    let again = load.enter(SECOND, flood).expect("his are over");
    load.leave(again);
}

#[test]
fn bytes_are_held_by_class_and_by_identity() {
    let mut load = Load::new(&SMALL);
    let list = Asked { who: Some(1), ..ask(Class::Bulk) };
    let mut place = load.enter(SECOND, list).expect("a place");
    load.hold(&mut place, MIB / 2).expect("half of what lists may hold");
    let refused = load.hold(&mut place, 1).expect_err("no more of his own");
    assert_eq!((refused.reason, refused.limit), (Reason::OwnBytes, MIB / 2));
    let mut others = load.enter(SECOND, Asked { who: Some(2), ..list }).expect("a place");
    load.hold(&mut others, MIB / 2).expect("another's");
    let third = Asked { who: Some(3), bytes: 1, ..list };
    assert_eq!(load.enter(SECOND, third).expect_err("none are left").reason, Reason::Bytes);
    let change = load.enter(SECOND, Asked { class: Class::Change, ..third }).expect("a write may");
    let small = load.enter(SECOND, Asked { bytes: 0, ..third }).expect("who holds nothing may ask");
    [place, others, change, small].into_iter().for_each(|place| load.leave(place));
    assert_eq!((load.places(), load.bytes()), (0, 0));
}

#[test]
fn a_rate_is_each_identity_s_own_and_members_have_none() {
    let mut load = Load::new(&Limits { per_second: 10, ..SMALL });
    let mut asked_of = |who, count| {
        let asked = Asked { who, ..ask(Class::Change) };
        (0..count).find_map(|_| load.enter(SECOND, asked).map(|place| load.leave(place)).err())
    };
    assert_eq!(asked_of(Some(1), 20), None);
    let refused = asked_of(Some(1), 1).expect("two seconds' worth is gone");
    assert_eq!((refused.reason, refused.limit, refused.after), (Reason::Rate, 10, SECOND / 10));
    assert_eq!(asked_of(Some(2), 20), None, "another's is another");
    assert_eq!(asked_of(None, 1_000), None);
}

#[test]
fn streams_take_no_place_and_are_counted() {
    let mut load = Load::new(&SMALL);
    let asked = Asked { who: Some(1), ..ask(Class::Proxy) };
    let mut open = || {
        let place = load.enter(SECOND, asked).expect("a place");
        let following = load.follow(&place);
        load.leave(place);
        following
    };
    let mut streams: Vec<_> = (0..STREAMS_PER_NODE_MAX).map(|_| open().expect("room")).collect();
    assert_eq!(open().expect_err("no more").reason, Reason::OwnStreams);
    load.unfollow(streams.pop().expect("one"));
    assert_eq!(load.places(), 0);
    let place = load.enter(SECOND, asked).expect("a place");
    assert!(load.follow(&place).is_ok(), "one has ended");
}
