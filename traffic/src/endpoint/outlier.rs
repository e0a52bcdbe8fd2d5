//! Pure. An endpoint that is reached and answers badly: it gets no calls for a while, longer each time, then one call to
//! find out. What counts is what it answers, and how fast; whether it is reached at all is [`super::Ejection`]'s matter.

use std::{fmt, time::Duration};

use model::resource::OutlierDetection;

use super::Standing;
use crate::Moment;

/// How long one call that finds out keeps others away: longer ones are taken to have found nothing.
const PROBE: Duration = Duration::from_secs(10);

/// When an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row: any 5xx, or no answer. 0 is off.
    pub errors: u32,
    /// Failures in a row of which 502, 503, 504 and no answer count alone. 0 is off.
    pub gateway_errors: u32,
    /// The least share of calls that succeed, in percent.
    pub success_percent: Option<u32>,
    /// The longest mean time until an answer's head.
    pub latency: Option<Duration>,
    /// The time over which share and mean are taken.
    pub interval: Duration,
    /// As many calls there must be in it for them to say something.
    pub requests: u32,
    /// For how long; times how often it was by now.
    pub base: Duration,
    /// The longest time.
    pub longest: Duration,
    /// The share of a service's endpoints that may be ejected at once, in percent.
    pub most_percent: u32,
}

/// What came of a call that reached an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// What is no failure.
    Fine,
    /// A 5xx other than the next.
    Error,
    /// 502, 503, 504, or no answer.
    GatewayError,
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// So many failures in a row.
    Errors(u32),
    /// So many in a row of which the gateway's count alone.
    GatewayErrors(u32),
    /// Of its calls so many percent succeeded.
    SuccessRate(u32),
    /// Its answers took so long.
    Latency(Duration),
    /// The call that was to find out failed.
    Probe,
}

/// What is known of how an endpoint answers.
#[derive(Debug, Clone, Default)]
pub struct Outlier {
    errors: u32,
    gateway_errors: u32,
    window: Window,
    /// How often it was ejected; one less for each base time that it was not.
    times: u32,
    state: State,
}

/// Calls since the interval began.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    began: Moment,
    calls: u32,
    fine: u32,
    took: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Fine,
    /// Back since then, after having been ejected.
    Back(Moment),
    Ejected {
        until: Moment,
        cause: Cause,
    },
    /// A call is under way that finds out.
    Probing {
        until: Moment,
        cause: Cause,
    },
}

impl From<&OutlierDetection> for Settings {
    fn from(spec: &OutlierDetection) -> Self {
        Self {
            errors: spec.consecutive_errors.value() as u32,
            gateway_errors: spec.consecutive_gateway_errors.value() as u32,
            success_percent: spec.success_rate.map(|percent| percent.value() as u32),
            latency: spec.latency.map(|span| span.duration()).filter(|span| !span.is_zero()),
            interval: spec.interval.duration(),
            requests: spec.min_requests.value() as u32,
            base: spec.base_ejection_time.duration(),
            longest: spec.max_ejection_time.duration().max(spec.base_ejection_time.duration()),
            most_percent: spec.max_ejection_percent.value() as u32,
        }
    }
}

impl Settings {
    /// Whether one more of so many endpoints may be ejected when so many are. At least one always stays.
    pub fn may_eject(&self, ejected: usize, endpoints: usize) -> bool {
        let more = ejected + 1;
        more < endpoints && more * 100 <= endpoints * self.most_percent as usize
    }

    /// Whether calls have to be counted over time.
    pub fn counts(&self) -> bool {
        self.success_percent.is_some() || self.latency.is_some()
    }
}

impl Heard {
    /// By an answer's status, and gRPC's where it stands in its head.
    pub fn of(status: u16, grpc_status: Option<u16>) -> Self {
        match (status, grpc_status) {
            // Deadline exceeded, unavailable; unknown, internal, data loss.
            (_, Some(4 | 14)) | (502..=504, _) => Self::GatewayError,
            (_, Some(2 | 13 | 15)) | (500..=599, _) => Self::Error,
            _ => Self::Fine,
        }
    }
}

impl Outlier {
    /// How it stands.
    pub fn standing(&self, now: Moment) -> Standing {
        match self.state {
            State::Fine | State::Back(_) => Standing::Fine,
            State::Ejected { until, .. } | State::Probing { until, .. } if now < until => Standing::Ejected,
            State::Ejected { .. } | State::Probing { .. } => Standing::Probing,
        }
    }

    /// Why it is ejected, if it is, how often it was, and until when it gets no call.
    pub fn ejected(&self, now: Moment) -> Option<(Cause, u32, Moment)> {
        match self.state {
            State::Ejected { until, cause } | State::Probing { until, cause } => {
                Some((cause, self.times, until.max(now)))
            }
            State::Fine | State::Back(_) => None,
        }
    }

    /// Whether it is ejected, or finding out.
    pub fn is_out(&self) -> bool {
        matches!(self.state, State::Ejected { .. } | State::Probing { .. })
    }

    /// Whether there is nothing to remember: no failure, no ejection.
    pub fn is_spotless(&self) -> bool {
        matches!(self.state, State::Fine) && self.errors == 0 && self.gateway_errors == 0
    }

    /// A call is on its way to it.
    pub fn called(&mut self, now: Moment) {
        if let State::Ejected { until, cause } | State::Probing { until, cause } = self.state
            && now >= until
        {
            self.state = State::Probing { until: now + PROBE, cause };
        }
    }

    /// What came of a call, and how long it took until then. Says for which cause it is to be ejected, if it is; whether it
    /// may be, and [`Outlier::eject`], are the caller's to see to.
    pub fn heard(&mut self, settings: &Settings, now: Moment, heard: Heard, took: Duration) -> Option<Cause> {
        self.errors = if heard == Heard::Fine { 0 } else { self.errors.saturating_add(1) };
        let gateway = heard == Heard::GatewayError;
        self.gateway_errors = if gateway { self.gateway_errors.saturating_add(1) } else { 0 };
        match self.state {
            // What was under way when it was ejected says nothing new.
            State::Ejected { .. } => return None,
            State::Probing { .. } if heard == Heard::Fine => {
                (self.state, self.window) = (State::Back(now), Window { began: now, ..Window::default() });
                return None;
            }
            State::Probing { .. } => return Some(Cause::Probe),
            State::Back(since) if now.since(since) >= settings.base => self.forgive(settings, now, since),
            State::Back(_) | State::Fine => {}
        }
        self.in_a_row(settings)
            .or_else(|| if settings.counts() { self.window.count(settings, now, heard, took) } else { None })
    }

    /// It gets no calls for a while.
    pub fn eject(&mut self, settings: &Settings, now: Moment, cause: Cause) {
        self.times = self.times.saturating_add(1);
        let span = settings.base.saturating_mul(self.times).min(settings.longest);
        (self.errors, self.gateway_errors, self.window) = (0, 0, Window::default());
        self.state = State::Ejected { until: now + span, cause };
    }

    /// It is not ejected although there is a cause: a probe that fails then is the end of its ejection.
    pub fn spare(&mut self, now: Moment) {
        (self.errors, self.gateway_errors) = (0, 0);
        if matches!(self.state, State::Probing { .. }) {
            self.state = State::Back(now);
        }
    }

    /// For each base time that it was not ejected it was ejected once less.
    fn forgive(&mut self, settings: &Settings, now: Moment, since: Moment) {
        let base = settings.base.max(Duration::from_millis(1));
        let spans = u32::try_from(now.since(since).as_millis() / base.as_millis()).unwrap_or(u32::MAX);
        self.times = self.times.saturating_sub(spans);
        self.state = if self.times == 0 { State::Fine } else { State::Back(now) };
    }

    fn in_a_row(&self, settings: &Settings) -> Option<Cause> {
        let reached = |limit: u32, count: u32| limit > 0 && count >= limit;
        if reached(settings.gateway_errors, self.gateway_errors) {
            return Some(Cause::GatewayErrors(self.gateway_errors));
        }
        reached(settings.errors, self.errors).then_some(Cause::Errors(self.errors))
    }
}

impl Window {
    /// Counts a call. When an interval is over it is weighed, and the next one begins.
    fn count(&mut self, settings: &Settings, now: Moment, heard: Heard, took: Duration) -> Option<Cause> {
        let cause = if now.since(self.began) < settings.interval { None } else { self.weighed(settings) };
        if now.since(self.began) >= settings.interval {
            *self = Self { began: now, ..Self::default() };
        }
        self.calls = self.calls.saturating_add(1);
        self.fine += u32::from(heard == Heard::Fine);
        self.took = self.took.saturating_add(took);
        cause
    }

    fn weighed(&self, settings: &Settings) -> Option<Cause> {
        if self.calls == 0 || self.calls < settings.requests {
            return None;
        }
        let percent = (u64::from(self.fine) * 100 / u64::from(self.calls)) as u32;
        if settings.success_percent.is_some_and(|least| percent < least) {
            return Some(Cause::SuccessRate(percent));
        }
        let mean = self.took / self.calls;
        settings.latency.filter(|most| mean > *most).map(|_| Cause::Latency(mean))
    }
}

impl Cause {
    /// As in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Errors(_) => "errors",
            Self::GatewayErrors(_) => "gateway-errors",
            Self::SuccessRate(_) => "success-rate",
            Self::Latency(_) => "latency",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors(count) => write!(f, "{count} failures in a row"),
            Self::GatewayErrors(count) => write!(f, "{count} times in a row 502, 503, 504 or no answer"),
            Self::SuccessRate(percent) => write!(f, "{percent} % of its calls succeeded"),
            Self::Latency(mean) => write!(f, "its answers took {mean:.1?} on average"),
            Self::Probe => f.write_str("the call that was to find out failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        errors: 3,
        gateway_errors: 0,
        success_percent: None,
        latency: None,
        interval: Duration::from_secs(10),
        requests: 4,
        base: Duration::from_secs(30),
        longest: Duration::from_secs(100),
        most_percent: 50,
    };

    /// Runs `script`: `+<seconds>` passes time; `ok`, `500`, `503` are heard, `slow` is one that took 3 s; a cause in
    /// parentheses must have come of what was heard before it, and ejects; `called`; `fine`, `ejected`, `probing` must be so.
    #[track_caller]
    fn check(settings: Settings, script: &str) {
        let (mut outlier, mut now, mut cause) = (Outlier::default(), Moment::default(), None);
        for word in script.split_whitespace() {
            let mut heard = |outlier: &mut Outlier, heard, took| {
                assert_eq!(cause, None, "before {word} in {script}");
                cause = outlier.heard(&settings, now, heard, Duration::from_secs(took));
            };
            match word {
                "ok" => heard(&mut outlier, Heard::of(200, None), 0),
                "slow" => heard(&mut outlier, Heard::of(200, None), 3),
                "500" => heard(&mut outlier, Heard::of(500, None), 0),
                "503" => heard(&mut outlier, Heard::of(503, None), 0),
                "called" => outlier.called(now),
                "fine" => assert_eq!(outlier.standing(now), Standing::Fine, "{script}"),
                "ejected" => assert_eq!(outlier.standing(now), Standing::Ejected, "{script}"),
                "probing" => assert_eq!(outlier.standing(now), Standing::Probing, "{script}"),
                word if word.starts_with('+') => {
                    now = now + Duration::from_secs(word[1..].parse().expect("a number"));
                }
                want => {
                    let got = cause.take().unwrap_or_else(|| panic!("no {want} in {script}"));
                    assert_eq!(format!("({})", got.as_str()), want, "{script}");
                    outlier.eject(&settings, now, got);
                }
            }
        }
        assert_eq!(cause, None, "{script}");
    }

    #[test]
    fn failures_in_a_row_eject_and_one_good_call_brings_it_back() {
        check(
            SETTINGS,
            "500 503 ok 500 500 fine 500 (errors) ejected +29 ejected +1 probing called ejected ok fine",
        );
        check(Settings { errors: 0, ..SETTINGS }, "500 500 500 500 500 fine");
    }

    #[test]
    fn of_gateway_errors_others_are_no_part() {
        let settings = Settings { errors: 0, gateway_errors: 2, ..SETTINGS };
        check(settings, "503 500 503 ok 503 fine 503 (gateway-errors) ejected");
    }

    #[test]
    fn it_takes_longer_each_time_up_to_an_end_and_is_forgiven() {
        let back = "called ok fine 500 500 500 (errors)";
        check(
            SETTINGS,
            &format!(
                "500 500 500 (errors) +30 probing {back} +59 ejected +1 probing {back} +89 ejected +1 probing {back} +99 ejected +1 probing"
            ),
        );
        // Fine for two base times: of two ejections none is left.
        check(
            SETTINGS,
            "500 500 500 (errors) +30 called ok 500 500 500 (errors) +60 called ok +60 ok 500 500 500 (errors) +29 ejected +1 probing",
        );
    }

    #[test]
    fn a_probe_that_fails_ejects_again_and_one_that_never_ends_lets_the_next_through() {
        check(SETTINGS, "500 500 500 (errors) +30 called 503 (probe) +59 ejected +1 probing");
        check(SETTINGS, "500 500 500 (errors) +30 called +9 ejected +1 probing called ok fine");
        check(SETTINGS, "500 500 500 (errors) 500 500 500 ok ejected");
    }

    #[test]
    fn a_low_share_of_successes_ejects_where_there_are_calls_enough() {
        let settings = Settings { errors: 0, success_percent: Some(75), ..SETTINGS };
        check(settings, "ok 500 ok ok +10 ok fine 500 500 500 +10 ok (success-rate) ejected");
        check(settings, "500 500 500 +10 ok fine");
    }

    #[test]
    fn slow_answers_eject() {
        let settings = Settings { latency: Some(Duration::from_secs(2)), ..SETTINGS };
        check(settings, "slow slow slow ok +10 ok (latency) ejected");
        check(settings, "slow slow ok ok +10 ok fine");
    }

    #[test]
    fn only_so_many_are_ejected_and_one_always_stays() {
        let may = |percent, ejected, endpoints| {
            Settings { most_percent: percent, ..SETTINGS }.may_eject(ejected, endpoints)
        };
        assert_eq!((may(50, 0, 2), may(50, 1, 2), may(50, 0, 1)), (true, false, false));
        assert_eq!((may(100, 1, 3), may(100, 2, 3), may(0, 0, 10)), (true, false, false));
        assert_eq!((may(10, 0, 10), may(10, 1, 10), may(10, 0, 9)), (true, false, false));
    }

    #[test]
    fn who_is_spared_begins_anew() {
        let (mut outlier, now) = (Outlier::default(), Moment::default());
        for _ in 0..2 {
            for _ in 0..2 {
                assert_eq!(outlier.heard(&SETTINGS, now, Heard::Error, Duration::ZERO), None);
            }
            let cause = outlier.heard(&SETTINGS, now, Heard::Error, Duration::ZERO);
            assert_eq!(cause, Some(Cause::Errors(3)));
            outlier.spare(now);
        }
        assert!(outlier.is_spotless());
        assert_eq!(Heard::of(200, Some(14)), Heard::GatewayError);
        assert_eq!((Heard::of(200, Some(13)), Heard::of(200, Some(5))), (Heard::Error, Heard::Fine));
        assert_eq!((Heard::of(404, None), Heard::of(599, None)), (Heard::Fine, Heard::Error));
    }
}
