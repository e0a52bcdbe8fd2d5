//! Counters by source, destination and outcome. Each runtime thread counts into its own; they are added up when somebody
//! asks, so that counting takes no lock that another core holds. The number of series is bounded.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::Arc,
};

use model::name::ServiceName;
use parking_lot::Mutex;
use traffic::{admission::Bounded, policy::RuleId, route::RuleName};

use super::{Direction, DnsCounts, Mirrored, MuxCounts, Outcome, Spoken};

mod series;

use series::Series;

/// Series of one runtime thread; what would make more is counted as `unknown`, so that no caller can fill the memory by
/// making up names. A host calls some tens of services by some tens of routes.
pub const SERIES_MAX: usize = 4_096;

/// Series of one runtime thread for the rules of policies; what would make more is counted as `other`. A host's services
/// are guarded by some tens of rules.
pub const RULE_SERIES_MAX: usize = 1_024;

/// Upper bounds of the duration's buckets, in seconds.
const BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// One thread's counters.
#[derive(Debug, Default)]
pub struct Counts {
    tables: Mutex<Tables>,
    mux: Arc<MuxCounts>,
    dns: Arc<DnsCounts>,
}

#[derive(Debug, Default, Clone)]
struct Tables {
    calls: Series<Labels, Sums>,
    durations: Series<Edge, Durations>,
    decisions: HashMap<Decision, u64>,
    mirrored: BTreeMap<Mirrored, u64>,
    refused: BTreeMap<(Refused, &'static str), u64>,
    limited: BTreeMap<(Option<ServiceName>, Bounded), u64>,
    too_often: BTreeMap<(Option<ServiceName>, Option<Arc<str>>), u64>,
}

/// What is refused for a reason that is a word, each a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    Strayed,
    NotBound,
    BadHello,
}

/// What a rule said of a call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Decision {
    destination: Option<ServiceName>,
    /// `None` is any that has no series of its own.
    rule: Option<RuleId>,
    what: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Edge {
    direction: Direction,
    source: Option<ServiceName>,
    destination: Option<ServiceName>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Labels {
    edge: Edge,
    route: RuleName,
    code: u16,
    grpc_status: Option<u16>,
    spoken: Spoken,
    mtls: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    calls: u64,
    request_bytes: u64,
    response_bytes: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// Single numbers that stand beside the counters.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `name`, help, labels in braces or empty, value.
    pub gauges: Vec<(&'static str, &'static str, String, f64)>,
}

impl Counts {
    /// Those of connections of many streams.
    pub fn mux(&self) -> Arc<MuxCounts> {
        self.mux.clone()
    }

    /// Those of look-ups.
    pub fn dns(&self) -> Arc<DnsCounts> {
        self.dns.clone()
    }

    /// Counts one call.
    pub fn finished(&self, outcome: &Outcome) {
        let mut tables = self.tables.lock();
        tables.judged(outcome);
        tables.limited(outcome);
        if outcome.spoken != Spoken::Tcp {
            let other = || unknown(outcome.direction);
            let held = tables.durations.of(|edge| edge.is_of(outcome), || Edge::of(outcome), other);
            held.observe(outcome.took.as_secs_f64());
        }
        let other = || folded(Labels::of(outcome));
        let sums = tables.calls.of(|labels| labels.is_of(outcome), || Labels::of(outcome), other);
        sums.calls += 1;
        sums.request_bytes += outcome.request_bytes;
        sums.response_bytes += outcome.response_bytes;
    }

    /// Counts one copy of a request.
    pub fn mirrored(&self, end: Mirrored) {
        *self.tables.lock().mirrored.entry(end).or_default() += 1;
    }

    /// Counts one connection to the listener for captured calls that is none.
    pub fn strayed(&self, reason: &'static str) {
        *self.tables.lock().refused.entry((Refused::Strayed, reason)).or_default() += 1;
    }

    /// The sums over all threads as Prometheus text (version 0.0.4), with `facts` behind them.
    pub fn text<'a>(threads: impl Iterator<Item = &'a Arc<Self>>, facts: &Facts) -> String {
        let mut calls: BTreeMap<Labels, Sums> = BTreeMap::new();
        let mut durations: BTreeMap<Edge, Durations> = BTreeMap::new();
        let mut decisions: BTreeMap<Decision, u64> = BTreeMap::new();
        let mut mirrored: BTreeMap<Mirrored, u64> = BTreeMap::new();
        let mut refused: BTreeMap<_, u64> = BTreeMap::new();
        let mut limited: BTreeMap<_, u64> = BTreeMap::new();
        let mut too_often: BTreeMap<_, u64> = BTreeMap::new();
        let (mut mux, mut dns) = (MuxCounts::default(), DnsCounts::default());
        for thread in threads {
            mux.add(&thread.mux);
            dns.add(&thread.dns);
            let tables = thread.tables.lock().clone();
            for (labels, more) in tables.calls.held {
                let sums = calls.entry(labels).or_default();
                sums.calls += more.calls;
                sums.request_bytes += more.request_bytes;
                sums.response_bytes += more.response_bytes;
            }
            for (edge, more) in tables.durations.held {
                durations.entry(edge).or_default().add(&more);
            }
            for (decision, more) in tables.decisions {
                *decisions.entry(decision).or_default() += more;
            }
            tables.mirrored.into_iter().for_each(|(end, more)| *mirrored.entry(end).or_default() += more);
            tables.refused.into_iter().for_each(|(of, more)| *refused.entry(of).or_default() += more);
            tables.limited.into_iter().for_each(|(of, more)| *limited.entry(of).or_default() += more);
            tables.too_often.into_iter().for_each(|(of, more)| *too_often.entry(of).or_default() += more);
        }
        let mut text = String::new();
        write_decisions(&mut text, &decisions);
        write_calls(&mut text, &calls);
        write_durations(&mut text, &durations);
        write_mirrored(&mut text, &mirrored);
        write_refused(&mut text, &refused);
        write_limited(&mut text, &limited);
        write_too_often(&mut text, &too_often);
        write_facts(&mut text, &mux.facts());
        write_facts(&mut text, &dns.facts());
        write_facts(&mut text, facts);
        text
    }
}

impl Tables {
    fn judged(&mut self, outcome: &Outcome) {
        let denied = outcome.judged.denied.iter().map(|rule| (rule, "denied"));
        let remarks = outcome.judged.remarks.iter().map(|remark| (&remark.rule, remark.kind.as_str()));
        for (rule, what) in denied.chain(remarks) {
            let (destination, rule) = (outcome.destination.clone(), Some(rule.clone()));
            let decision = Decision { destination, rule, what };
            let full = self.decisions.len() >= RULE_SERIES_MAX && !self.decisions.contains_key(&decision);
            let other = || Decision { destination: None, rule: None, what };
            *self.decisions.entry(if full { other() } else { decision }).or_default() += 1;
        }
    }

    fn limited(&mut self, outcome: &Outcome) {
        let refused = outcome.not_bound.map(|why| (Refused::NotBound, why));
        for of in refused.into_iter().chain(outcome.bad_hello.map(|why| (Refused::BadHello, why))) {
            *self.refused.entry(of).or_default() += 1;
        }
        if let Some(name) = &outcome.too_often {
            let of = (outcome.destination.clone(), Some(name.clone()));
            let full = self.too_often.len() >= RULE_SERIES_MAX && !self.too_often.contains_key(&of);
            *self.too_often.entry(if full { (None, None) } else { of }).or_default() += 1;
        }
        let Some(what) = outcome.limited else { return };
        let of = (outcome.destination.clone(), what);
        let full = self.limited.len() >= SERIES_MAX && !self.limited.contains_key(&of);
        *self.limited.entry(if full { (None, what) } else { of }).or_default() += 1;
    }
}

impl Edge {
    fn of(outcome: &Outcome) -> Self {
        let (source, destination) = (outcome.source.clone(), outcome.destination.clone());
        Self { direction: outcome.direction, source, destination }
    }

    fn is_of(&self, outcome: &Outcome) -> bool {
        (self.direction, &self.source, &self.destination)
            == (outcome.direction, &outcome.source, &outcome.destination)
    }
}

impl Labels {
    fn of(outcome: &Outcome) -> Self {
        Self {
            edge: Edge::of(outcome),
            route: outcome.route.clone(),
            code: outcome.code,
            grpc_status: outcome.grpc_status,
            spoken: outcome.spoken,
            mtls: outcome.mtls,
        }
    }

    fn is_of(&self, outcome: &Outcome) -> bool {
        let rest = (self.code, self.grpc_status, self.spoken, self.mtls);
        rest == (outcome.code, outcome.grpc_status, outcome.spoken, outcome.mtls)
            && self.route == outcome.route
            && self.edge.is_of(outcome)
    }
}

impl Durations {
    fn observe(&mut self, seconds: f64) {
        if let Some(index) = BUCKETS.iter().position(|&bound| seconds <= bound) {
            self.buckets[index] += 1;
        }
        self.count += 1;
        self.seconds += seconds;
    }

    fn add(&mut self, more: &Self) {
        self.buckets.iter_mut().zip(more.buckets).for_each(|(own, more)| *own += more);
        self.count += more.count;
        self.seconds += more.seconds;
    }
}

fn unknown(direction: Direction) -> Edge {
    Edge { direction, source: None, destination: None }
}

fn folded(labels: Labels) -> Labels {
    Labels {
        edge: unknown(labels.edge.direction),
        route: RuleName::default_rule(),
        grpc_status: None,
        ..labels
    }
}

fn write_decisions(text: &mut String, decisions: &BTreeMap<Decision, u64>) {
    let name = "mesh_policy_decisions_total";
    head(text, name, "Calls that a rule of a policy refused, noted, or would refuse or let in.", "counter");
    for (Decision { destination, rule, what }, count) in decisions {
        let destination = destination.as_ref().map_or("unknown".to_owned(), ToString::to_string);
        let rule = rule.as_ref().map_or("other", RuleId::as_str);
        put(
            text,
            format_args!(
                "{name}{{destination=\"{destination}\",rule=\"{rule}\",decision=\"{what}\"}} {count}"
            ),
        );
    }
}

type Of = fn(&Sums) -> u64;

fn write_calls(text: &mut String, calls: &BTreeMap<Labels, Sums>) {
    let http: [(&str, &str, Of); 3] = [
        ("mesh_requests_total", "Requests that ended.", |sums| sums.calls),
        ("mesh_request_bytes_total", "Bytes of their bodies.", |sums| sums.request_bytes),
        ("mesh_response_bytes_total", "Bytes of the answers' bodies.", |sums| sums.response_bytes),
    ];
    let tcp: [(&str, &str, Of); 2] = [
        ("mesh_tcp_connections_total", "TCP connections that ended.", |sums| sums.calls),
        ("mesh_tcp_bytes_total", "Bytes that they carried, both ways.", |sums| {
            sums.request_bytes + sums.response_bytes
        }),
    ];
    let of = |spoken: fn(Spoken) -> bool| {
        let mut merged: BTreeMap<Labels, Sums> = BTreeMap::new();
        for (labels, more) in calls.iter().filter(|(labels, _)| spoken(labels.spoken)) {
            let sums = merged.entry(Labels { grpc_status: None, ..labels.clone() }).or_default();
            sums.calls += more.calls;
            sums.request_bytes += more.request_bytes;
            sums.response_bytes += more.response_bytes;
        }
        merged
    };
    let (http_calls, tcp_calls) = (of(|spoken| spoken != Spoken::Tcp), of(|spoken| spoken == Spoken::Tcp));
    http.into_iter().for_each(|family| write_family(text, family, &http_calls));
    tcp.into_iter().for_each(|family| write_family(text, family, &tcp_calls));
    let grpc = calls.iter().filter(|(labels, _)| labels.spoken == Spoken::Grpc);
    let grpc: BTreeMap<_, _> = grpc.map(|(labels, sums)| (labels.clone(), *sums)).collect();
    write_family(text, ("mesh_grpc_requests_total", "gRPC calls that ended.", |sums| sums.calls), &grpc);
}

fn write_family(text: &mut String, (name, help, of): (&str, &str, Of), calls: &BTreeMap<Labels, Sums>) {
    head(text, name, help, "counter");
    for (labels, sums) in calls {
        let grpc = labels.grpc_status.map(|status| format!(",grpc_status=\"{status}\"")).unwrap_or_default();
        put(text, format_args!("{name}{{{},{}{grpc}}} {}", edge(&labels.edge), outcome(labels), of(sums)));
    }
}

fn write_durations(text: &mut String, durations: &BTreeMap<Edge, Durations>) {
    let name = "mesh_request_duration_seconds";
    head(text, name, "From a request's head to the end of its answer.", "histogram");
    for (labels, held) in durations {
        let (labels, mut sum) = (edge(labels), 0);
        for (bound, count) in BUCKETS.iter().zip(held.buckets) {
            sum += count;
            put(text, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {sum}"));
        }
        put(text, format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {}", held.count));
        put(text, format_args!("{name}_sum{{{labels}}} {}", held.seconds));
        put(text, format_args!("{name}_count{{{labels}}} {}", held.count));
    }
}

fn write_mirrored(text: &mut String, mirrored: &BTreeMap<Mirrored, u64>) {
    let name = "mesh_mirrored_requests_total";
    head(text, name, "Copies of requests, by what became of them.", "counter");
    for (end, count) in mirrored {
        put(text, format_args!("{name}{{outcome=\"{}\"}} {count}", end.as_str()));
    }
}

fn write_refused(text: &mut String, refused: &BTreeMap<(Refused, &'static str), u64>) {
    for kind in [Refused::Strayed, Refused::NotBound, Refused::BadHello] {
        let (name, help) = kind.metric();
        head(text, name, help, "counter");
        for ((_, reason), count) in refused.iter().filter(|((of, _), _)| *of == kind) {
            put(text, format_args!("{name}{{reason=\"{reason}\"}} {count}"));
        }
    }
}

impl Refused {
    /// The metric's name, and what it says.
    fn metric(self) -> (&'static str, &'static str) {
        match self {
            Self::Strayed => (
                "mesh_captured_refused_total",
                "Connections to the listener for captured calls that are closed, by reason.",
            ),
            Self::NotBound => (
                "mesh_callers_refused_total",
                "Calls of processes of this host that speak for no service, by the reason.",
            ),
            Self::BadHello => (
                "mesh_tls_refused_total",
                "Streams to ports for TLS whose ClientHello leads to no service, by reason.",
            ),
        }
    }
}

fn write_limited(text: &mut String, limited: &BTreeMap<(Option<ServiceName>, Bounded), u64>) {
    let name = "mesh_limited_total";
    head(
        text,
        name,
        "Calls that a limit of the destination's traffic policy ended, by what it limits.",
        "counter",
    );
    for ((destination, what), count) in limited {
        let destination = destination.as_ref().map_or("unknown".to_owned(), ToString::to_string);
        let what = what.as_str();
        put(text, format_args!("{name}{{destination=\"{destination}\",limit=\"{what}\"}} {count}"));
    }
}

fn write_too_often(text: &mut String, too_often: &BTreeMap<(Option<ServiceName>, Option<Arc<str>>), u64>) {
    let name = "mesh_rate_limited_total";
    head(text, name, "Requests that a rate limit refused, at the host that was called.", "counter");
    for ((destination, limit), count) in too_often {
        let destination = destination.as_ref().map_or("unknown".to_owned(), ToString::to_string);
        let limit = limit.as_deref().unwrap_or("other");
        put(text, format_args!("{name}{{destination=\"{destination}\",limit=\"{limit}\"}} {count}"));
    }
}

fn write_facts(text: &mut String, facts: &Facts) {
    let mut last = "";
    for (name, help, labels, value) in &facts.gauges {
        if *name != last {
            head(text, name, help, if name.ends_with("_total") { "counter" } else { "gauge" });
            last = name;
        }
        put(text, format_args!("{name}{labels} {value}"));
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    put(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes everything");
}

fn edge(edge: &Edge) -> String {
    let name =
        |service: &Option<ServiceName>| service.as_ref().map_or("unknown".to_owned(), ToString::to_string);
    let direction = edge.direction.as_str();
    format!(
        "direction=\"{direction}\",source=\"{}\",destination=\"{}\"",
        name(&edge.source),
        name(&edge.destination)
    )
}

fn outcome(labels: &Labels) -> String {
    let Labels { route, code, mtls, .. } = labels;
    format!("route=\"{route}\",code=\"{code}\",protocol=\"{}\",mtls=\"{mtls}\"", labels.spoken.as_str())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use traffic::policy::{Remark, RemarkKind};

    fn call(destination: &str, code: u16, spoken: Spoken) -> Outcome {
        Outcome {
            source: Some("default/web".parse().expect("a name")),
            destination: destination.parse().ok(),
            code,
            grpc_status: (spoken == Spoken::Grpc).then_some(14),
            mtls: true,
            took: Duration::from_millis(3),
            request_bytes: 5,
            response_bytes: 7,
            ..Outcome::of(Direction::Outbound, spoken)
        }
    }

    #[test]
    fn threads_are_added_up_under_the_promised_names() {
        let threads = [Arc::new(Counts::default()), Arc::new(Counts::default())];
        threads[0].finished(&call("default/orders", 200, Spoken::Http));
        threads[1].finished(&call("default/orders", 200, Spoken::Http));
        threads[1].finished(&call("nobody", 404, Spoken::Grpc));
        threads[1].finished(&call("default/db", 0, Spoken::Tcp));
        let facts = Facts { gauges: vec![("mesh_config_revision", "Of what runs.", String::new(), 9.0)] };
        let text = Counts::text(threads.iter(), &facts);
        let edge = "direction=\"outbound\",source=\"default/web\",destination=\"default/orders\"";
        for line in [
            &*format!(
                "mesh_requests_total{{{edge},route=\"default\",code=\"200\",protocol=\"http\",mtls=\"true\"}} 2"
            ),
            &format!(
                "mesh_response_bytes_total{{{edge},route=\"default\",code=\"200\",protocol=\"http\",mtls=\"true\"}} 14"
            ),
            &format!("mesh_request_duration_seconds_bucket{{{edge},le=\"0.0025\"}} 0"),
            &format!("mesh_request_duration_seconds_bucket{{{edge},le=\"0.005\"}} 2"),
            &format!("mesh_request_duration_seconds_count{{{edge}}} 2"),
            "mesh_grpc_requests_total{direction=\"outbound\",source=\"default/web\",destination=\"unknown\",route=\"default\",code=\"404\",protocol=\"grpc\",mtls=\"true\",grpc_status=\"14\"} 1",
            "mesh_tcp_connections_total{direction=\"outbound\",source=\"default/web\",destination=\"default/db\",route=\"default\",code=\"0\",protocol=\"tcp\",mtls=\"true\"} 1",
            "mesh_tcp_bytes_total{direction=\"outbound\",source=\"default/web\",destination=\"default/db\",route=\"default\",code=\"0\",protocol=\"tcp\",mtls=\"true\"} 12",
            "mesh_config_revision 9",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn made_up_names_do_not_make_series_without_end() {
        let counts = Arc::new(Counts::default());
        for n in 0..SERIES_MAX + 10 {
            counts.finished(&call(&format!("default/s{n}"), 200, Spoken::Http));
        }
        let tables = counts.tables.lock();
        assert_eq!((tables.calls.held.len(), tables.durations.held.len()), (SERIES_MAX + 1, SERIES_MAX + 1));
    }

    #[test]
    fn what_rules_say_is_counted_and_bounded() {
        let counts = [Arc::new(Counts::default()), Arc::new(Counts::default())];
        let mut one = call("default/orders", 403, Spoken::Http);
        one.judged.denied = Some(RuleId::OnlyAllowed);
        one.judged.remarks =
            vec![Remark { kind: RemarkKind::WouldAllow, rule: RuleId::Policy("default/p/0".into()) }];
        counts[0].finished(&one);
        counts[1].finished(&one);
        for n in 0..RULE_SERIES_MAX + 10 {
            one.judged.denied = Some(RuleId::Policy(format!("default/p/{n}").into()));
            counts[1].finished(&one);
        }
        let text = Counts::text(counts.iter(), &Facts::default());
        for line in [
            "mesh_policy_decisions_total{destination=\"default/orders\",rule=\"only-allowed\",decision=\"denied\"} 2",
            "mesh_policy_decisions_total{destination=\"unknown\",rule=\"other\",decision=\"denied\"} 12",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\nis not in\n{text}");
        }
        assert!(text.contains("rule=\"default/p/0\",decision=\"would-allow\""), "{text}");
        assert_eq!(text.matches("mesh_policy_decisions_total{").count(), RULE_SERIES_MAX + 1);
    }
}
