use model::resource::{GrpcCode, RetryCondition};

use super::*;

const CALL: Call<'_> = Call { method: "GET", retries: 0, replayable: true, asked: None, left: None };

fn decided(
    settings: &Settings,
    call: Call<'_>,
    failure: Failure,
    budget: &mut Budget,
    seed: u64,
) -> Decision {
    let (now, mut dice) = (Moment::default(), Dice::seeded(seed));
    decide(settings, call, failure, (budget, Allowance::DEFAULT), now, &mut dice)
}

/// `settings` is `attempts codes…`, `call` is `METHOD retries` and perhaps `gone`.
#[track_caller]
fn check(settings: Settings, call: &str, failure: Failure, want: Result<(), Reason>) {
    let words: Vec<&str> = call.split(' ').collect();
    let retries = words[1].parse().expect("a number");
    let call = Call { method: words[0], retries, replayable: words.get(2) != Some(&"gone"), ..CALL };
    match (decided(&settings, call, failure, &mut Budget::default(), 1), want) {
        (Decision::Again(_), Ok(())) => {}
        (Decision::GiveUp(got), Err(want)) => assert_eq!(got, want, "{words:?} {failure:?}"),
        (got, want) => panic!("{words:?} {failure:?}: {got:?}, not {want:?}"),
    }
}

fn causes(conditions: &[RetryCondition], codes: &[u16], grpc: &[GrpcCode]) -> Settings {
    Settings { causes: Causes::new(conditions, codes.iter().copied(), grpc), ..Settings::DEFAULT }
}

#[test]
fn what_nobody_saw_is_tried_again_whatever_its_method() {
    for call in ["GET 0", "POST 0", "PATCH 0", "PURGE 0"] {
        check(Settings::default(), call, Failure::Connect, Ok(()));
        check(Settings::default(), call, Failure::Refused, Ok(()));
    }
}

#[test]
fn what_may_have_been_seen_is_tried_again_if_idempotent() {
    for failure in
        [Failure::Reset, Failure::Timeout, Failure::Status(502), Failure::Status(503), Failure::Status(504)]
    {
        for call in ["GET 0", "HEAD 0", "PUT 0", "DELETE 0", "OPTIONS 0"] {
            check(Settings::default(), call, failure, Ok(()));
        }
        for call in ["POST 0", "PATCH 0", "PURGE 0", "get 0", "CONNECT 0"] {
            check(Settings::default(), call, failure, Err(Reason::NotIdempotent));
        }
    }
    check(Settings::default(), "GET 0", Failure::Status(500), Err(Reason::Answered));
    let only_500 = causes(&[], &[500], &[]);
    check(only_500, "GET 0", Failure::Status(500), Ok(()));
    check(only_500, "GET 0", Failure::Status(503), Err(Reason::Answered));
    check(only_500, "GET 0", Failure::Reset, Ok(()));
}

#[test]
fn conditions_say_alone_what_is_tried_again() {
    use RetryCondition::{ConnectFailure, GatewayError, Refused, Reset, Retriable4xx, ServerError};
    let all = [
        (ConnectFailure, vec![Failure::Connect]),
        (Refused, vec![Failure::Refused]),
        (Reset, vec![Failure::Reset, Failure::Timeout]),
        (GatewayError, vec![502, 503, 504].into_iter().map(Failure::Status).collect()),
        (ServerError, (500..=599).map(Failure::Status).collect()),
        (Retriable4xx, vec![Failure::Status(409)]),
    ];
    let mut failures: Vec<_> = (400..=599).map(Failure::Status).collect();
    failures.extend([
        Failure::Connect,
        Failure::Refused,
        Failure::Reset,
        Failure::Timeout,
        Failure::Grpc(14),
    ]);
    for (condition, wanted) in all {
        let settings = causes(&[condition], &[], &[]);
        for &failure in &failures {
            let want = if wanted.contains(&failure) { Ok(()) } else { Err(Reason::Answered) };
            check(settings, "GET 0", failure, want);
        }
    }
    let both = causes(&[Retriable4xx], &[500], &[]);
    check(both, "GET 0", Failure::Status(409), Ok(()));
    check(both, "GET 0", Failure::Status(500), Ok(()));
    check(both, "GET 0", Failure::Connect, Err(Reason::Answered));
}

#[test]
fn a_status_of_grpc_that_is_listed_is_tried_again_although_calls_are_posts() {
    let settings = causes(&[], &[], &[GrpcCode::Unavailable, GrpcCode::Unauthenticated]);
    check(settings, "POST 0", Failure::Grpc(14), Ok(()));
    check(settings, "POST 0", Failure::Grpc(16), Ok(()));
    for status in [0, 5, 13, 32, 1_000] {
        check(settings, "POST 0", Failure::Grpc(status), Err(Reason::Answered));
    }
    check(Settings::default(), "POST 0", Failure::Grpc(14), Err(Reason::Answered));
}

#[test]
fn attempts_and_bodies_end_it() {
    check(Settings::default(), "GET 1", Failure::Connect, Err(Reason::Attempts));
    check(Settings { attempts: 3, ..Settings::default() }, "GET 2", Failure::Connect, Ok(()));
    let none = Settings { attempts: 0, ..Settings::default() };
    check(none, "GET 0", Failure::Connect, Err(Reason::Attempts));
    check(Settings::default(), "POST 0 gone", Failure::Connect, Err(Reason::BodyGone));
}

#[test]
fn waits_double_with_jitter_and_have_an_end() {
    let settings = Settings { attempts: 40, ..Settings::default() };
    let (mut budget, mut seed) = (Budget::default(), 0);
    let mut wait = |retries, failure| {
        seed += 1;
        match decided(&settings, Call { retries, ..CALL }, failure, &mut budget, seed) {
            Decision::Again(wait) => wait,
            Decision::GiveUp(reason) => panic!("{reason}"),
        }
    };
    assert_eq!(wait(0, Failure::Connect), Duration::ZERO);
    for (retries, most) in [(0, 25), (1, 50), (2, 100), (9, 10_000), (30, 10_000)] {
        let most = Duration::from_millis(most);
        let wait = wait(retries, Failure::Reset);
        assert!(wait >= most / 2 && wait <= most, "{retries}: {wait:?}");
    }
}

#[test]
fn a_wait_that_is_asked_for_is_kept_or_there_is_no_retry() {
    let ask = |asked, left| {
        let call = Call { asked: Some(Duration::from_secs(asked)), left, ..CALL };
        decided(&Settings::default(), call, Failure::Status(503), &mut Budget::default(), 1)
    };
    assert_eq!(ask(2, None), Decision::Again(Duration::from_secs(2)));
    assert_eq!(ask(10, None), Decision::Again(BACKOFF_MAX));
    assert_eq!(ask(11, None), Decision::GiveUp(Reason::Time));
    assert_eq!(ask(2, Some(Duration::from_secs(3))), Decision::Again(Duration::from_secs(2)));
    assert_eq!(ask(2, Some(Duration::from_secs(2))), Decision::GiveUp(Reason::Time));
    let Decision::Again(wait) = ask(0, None) else { panic!("it is tried again") };
    assert!(wait >= Duration::from_micros(12_500), "not before our own: {wait:?}");
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now: Millis = "1994-11-06T08:49:30Z".parse().expect("a time");
    for (value, want) in [
        ("7", Some(7)),
        (" 120 ", Some(120)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
        ("Sun, 06 Nov 1994 08:49:20 GMT", Some(0)),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
    ] {
        assert_eq!(wait(value, now), want.map(Duration::from_secs), "{value:?}");
    }
    assert_eq!(wait("99999999999999999999999", now), Some(Duration::from_secs(u64::MAX)));
    let answer = Answer { status: 503, grpc_status: None, retry_after: Some("2") };
    let failure = Settings::default().failure(answer, || now);
    assert_eq!(failure, Some((Failure::Status(503), Some(Duration::from_secs(2)))));
    assert_eq!(Settings::default().failure(Answer { status: 429, ..answer }, || now), None);
}

#[test]
fn a_spent_budget_ends_it() {
    let mut budget = Budget::default();
    while budget.withdraw(Allowance::DEFAULT, Moment::default()) {}
    let got = decided(&Settings::default(), CALL, Failure::Connect, &mut budget, 4);
    assert_eq!(got, Decision::GiveUp(Reason::Budget));
}
