//! Pure. Where a request or a stream goes: the rules of routes in Gateway API's precedence, and the back end of a rule by weight.
//! Which endpoint of it is the balancer's choice.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use model::name::{Name, ServiceName};

use crate::{
    Dice,
    conduct::Conduct,
    request::{Caller, RequestHead},
    retry,
    snapshot::Backend,
};

mod condition;
mod filter;
mod matcher;
mod paths;
mod precedence;
mod rule;
mod value;

pub use filter::{Edits, Fault, FieldsMut, Filters, Mirror, OnAnswer, Reply};
pub use rule::{Route, check};

pub(crate) use matcher::{Matcher, Matchers, Path as PathMatcher};
pub(crate) use paths::PathIndex;
pub(crate) use precedence::Age;
pub(crate) use rule::{Speaks, Unbound};

/// The name of a rule in metrics, logs and explain: `<namespace>/<route>/<rule>`, or `default`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(Arc<str>);

/// How long things may take; nothing is limited where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// All tries together, to the answer's end.
    pub request: Option<Duration>,
    /// One try.
    pub backend_request: Option<Duration>,
    /// All tries together, from the request's head on: the caller says so, not the rule.
    pub call: Option<Duration>,
}

/// Where one request goes.
#[derive(Debug, Clone, Copy)]
pub struct Routed<'a> {
    /// By which rule.
    pub rule: &'a RuleName,
    /// To what, unless its filters answer.
    pub backend: Result<&'a Arc<Backend>, &'a Unroutable>,
    /// What is done to it and to its answer: by the rule's filters, and after them by those of the back end.
    pub filters: &'a Filters,
    /// Who may get copies of it, by the rule and by the back end.
    pub copied: [Copied<'a>; 2],
    /// How long it may take.
    pub timeouts: Timeouts,
    /// When it is tried again.
    pub retry: &'a retry::Settings,
}

/// Who may get copies of a request, and what is done to them.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'a> {
    /// Each draws for itself.
    pub mirrors: &'a [Mirror],
    /// What is done to their copies: a back end's own filters are not for the rule's mirrors.
    pub filters: &'a Filters,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// There are rules for this port, and none is for this request. Gateway API: 404.
    #[error("no rule of the service's routes matches the request")]
    NoRule,
    /// The rule has no back ends, or none with a weight. Gateway API: 500.
    #[error("the rule has no back end")]
    NoBackend,
    /// The back end that was drawn is not there. Gateway API: 500 for its share.
    #[error("back end {0} is not there: {1}")]
    Invalid(BackendName, Missing),
}

/// A back end as a route names it; printed as `shop/orders:80` or `shop/orders:80 subset v2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName {
    /// The service.
    pub service: ServiceName,
    /// Its port.
    pub port: u16,
    /// A subset of its endpoints.
    pub subset: Option<Name>,
}

/// What of a back end is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The service.
    #[error("no such service")]
    Service,
    /// The service's port.
    #[error("the service has no such port")]
    Port,
    /// The service's subset.
    #[error("the service has no such subset")]
    Subset,
}

/// The rules for one port of a service, in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct RouteTable {
    entries: Vec<Entry>,
    /// The places of the entries by the paths that they ask for.
    paths: PathIndex,
    rules: Vec<Rule>,
}

/// A rule whose back ends were looked up.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: RuleName,
    pub(crate) split: Split,
    pub(crate) filters: Arc<Filters>,
    pub(crate) mirrors: Vec<Mirror>,
    /// Zero is no limit, whatever the service's conduct says.
    pub(crate) timeouts: Timeouts,
    /// `None` where the rule says nothing.
    pub(crate) retry: Option<retry::Settings>,
}

/// One match of a rule.
#[derive(Debug)]
struct Entry {
    matcher: Arc<Matcher>,
    rule: usize,
}

/// Back ends by weight.
#[derive(Debug)]
pub(crate) struct Split {
    /// Each with the sum of the weights up to and with its own.
    shares: Vec<(u64, Choice)>,
}

/// A back end of a rule, and what is done for it alone.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) backend: Result<Arc<Backend>, Unroutable>,
    /// The rule's filters and after them its own; `None` where it has none.
    pub(crate) filters: Option<Arc<Filters>>,
    pub(crate) mirrors: Vec<Mirror>,
}

// === impl RuleName ===

impl RuleName {
    /// Of a request for which no route stands.
    pub fn default_rule() -> Self {
        static DEFAULT: LazyLock<RuleName> = LazyLock::new(|| RuleName("default".into()));
        DEFAULT.clone()
    }

    /// Of the rule `rule` of a route.
    pub(crate) fn of(namespace: &Name, route: &Name, rule: impl fmt::Display) -> Self {
        Self(format!("{namespace}/{route}/{rule}").into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)?;
        self.subset.as_ref().map_or(Ok(()), |subset| write!(f, " subset {subset}"))
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// The table of what `routes` have to say for one port. `find` looks back ends up.
    pub(crate) fn new<'r>(
        routes: impl IntoIterator<Item = &'r Route>,
        find: impl Fn(&BackendName) -> Result<Arc<Backend>, Missing>,
    ) -> Self {
        let (mut ranked, mut rules) = (Vec::new(), Vec::new());
        for route in routes {
            for rule in &route.rules {
                ranked.extend(rule.matchers.iter().map(|matcher| {
                    (matcher.rank(), &route.age, Entry { matcher: Arc::clone(matcher), rule: rules.len() })
                }));
                rules.push(rule.bound(&find));
            }
        }
        // Stable: what is equal stays in the order of the route's rules and their matches.
        ranked.sort_by(|(rank, age, _), (other_rank, other_age, _)| {
            rank.cmp(other_rank).then_with(|| age.cmp(other_age))
        });
        let entries: Vec<_> = ranked.into_iter().map(|(_, _, entry)| entry).collect();
        let mut paths = PathIndex::default();
        for (place, entry) in entries.iter().enumerate() {
            paths.enter(place, entry.matcher.path());
        }
        Self { entries, paths, rules }
    }

    /// The first rule for a request.
    pub(crate) fn find(&self, head: &RequestHead<'_>, caller: Caller<'_>) -> Option<&Rule> {
        let is_for = |place: usize| self.entries[place].matcher.matches(head, caller);
        let place = self.paths.first(head.path.path(), is_for)?;
        Some(&self.rules[self.entries[place].rule])
    }

    /// The matches in the order in which they are tried, each with its rule.
    pub(crate) fn tried(&self) -> impl Iterator<Item = (&Matcher, &Rule)> {
        self.entries.iter().map(|entry| (&*entry.matcher, &self.rules[entry.rule]))
    }
}

impl Rule {
    pub(crate) fn routed(&self, dice: &mut Dice) -> Routed<'_> {
        self.to(self.split.draw(dice.roll()))
    }

    /// Where it leads if this is the back end that was drawn; `None` where there is none to draw.
    pub(crate) fn to<'a>(&'a self, choice: Option<&'a Choice>) -> Routed<'a> {
        let Self { name, split: _, filters: of_rule, mirrors, timeouts, retry } = self;
        let backend = choice.map_or(Err(&Unroutable::NoBackend), |choice| choice.backend.as_ref());
        let filters = choice.and_then(|choice| choice.filters.as_ref()).unwrap_or(of_rule);
        let own = choice.map_or(&[][..], |choice| &choice.mirrors);
        let copied = [Copied { mirrors, filters: of_rule }, Copied { mirrors: own, filters }];
        let conduct: Option<&Conduct> = backend.ok().map(|backend| &*backend.conduct);
        let general = conduct.map_or_else(Timeouts::default, |conduct| conduct.timeouts);
        let usual = conduct.map_or(&retry::Settings::DEFAULT, |conduct| &conduct.retry);
        let (timeouts, retry) = (timeouts.before(general), retry.as_ref().unwrap_or(usual));
        Routed { rule: name, backend, filters, copied, timeouts, retry }
    }
}

impl Timeouts {
    /// What is said here, and `general` where nothing is. Zero is no limit.
    fn before(self, general: Self) -> Self {
        let limit =
            |own: Option<Duration>, general: Option<Duration>| own.or(general).filter(|span| !span.is_zero());
        Self {
            request: limit(self.request, general.request),
            backend_request: limit(self.backend_request, general.backend_request),
            call: self.call,
        }
    }
}

// === impl Split ===

impl Split {
    pub(crate) fn new(weighted: impl IntoIterator<Item = (u64, Choice)>) -> Self {
        let mut sum = 0;
        let weighted = weighted.into_iter().filter(|(weight, _)| *weight > 0);
        let shares = weighted.map(|(weight, choice)| {
            sum += weight;
            (sum, choice)
        });
        Self { shares: shares.collect() }
    }

    /// Each back end with its weight.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (u64, &Choice)> {
        let mut before = 0;
        self.shares.iter().map(move |(up_to, choice)| {
            let weight = up_to - before;
            before = *up_to;
            (weight, choice)
        })
    }

    /// The share that `point`, out of all 64-bit numbers, falls into: exact to the sum of the weights / 2^64.
    fn draw(&self, point: u64) -> Option<&Choice> {
        let (sum, _) = self.shares.last()?;
        let ticket = crate::dice::scale(point, *sum);
        let at = self.shares.partition_point(|(up_to, _)| *up_to <= ticket);
        Some(&self.shares[at].1)
    }
}

impl From<Result<Arc<Backend>, Unroutable>> for Choice {
    /// One for which nothing is done alone.
    fn from(backend: Result<Arc<Backend>, Unroutable>) -> Self {
        Self { backend, filters: None, mirrors: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
