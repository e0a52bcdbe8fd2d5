//! What was measured, beside whom.

use serde::Serialize;

/// One figure, ours beside a peer's.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Comparison {
    /// What was measured.
    pub(crate) name: String,
    /// Our figure: the median of the rounds.
    pub(crate) ours: f64,
    /// Beside whom; `None` for a figure that has no peer.
    pub(crate) peer: Option<String>,
    /// The peer's figure: the median of the rounds.
    pub(crate) peer_value: Option<f64>,
    /// Of both figures.
    pub(crate) unit: &'static str,
    /// The median of the rounds' ratios, ours ÷ peer; ours ÷ the goal where there is no peer, and ours itself where that is 0
    /// or not set.
    pub(crate) ratio: f64,
    /// What the ratio should be; empty where nothing is set.
    pub(crate) goal: String,
    /// Whether it is; true where nothing is set.
    pub(crate) met: bool,
}

/// What a figure should be: of its ratio, or of itself where there is no peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// The figures of all rounds of one measurement.
#[derive(Debug, Default, Clone)]
pub(crate) struct Rounds(pub(crate) Vec<f64>);

impl Rounds {
    /// The middle one; 0 where there is none.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

/// Compares round by round, so that a machine whose speed drifts compares like with like.
pub(crate) fn compare(
    name: &str,
    unit: &'static str,
    ours: &Rounds,
    peer: &str,
    theirs: &Rounds,
) -> Comparison {
    let ratios = Rounds(
        ours.0
            .iter()
            .zip(&theirs.0)
            .map(|(ours, theirs)| if *theirs > 0.0 { ours / theirs } else { 0.0 })
            .collect(),
    );
    Comparison {
        name: name.to_owned(),
        ours: rounded(ours.median()),
        peer: Some(peer.to_owned()),
        peer_value: Some(rounded(theirs.median())),
        unit,
        ratio: rounded(ratios.median()),
        goal: String::new(),
        met: true,
    }
}

/// A figure without a peer.
pub(crate) fn alone(name: &str, unit: &'static str, ours: &Rounds) -> Comparison {
    let ours = rounded(ours.median());
    Comparison {
        name: name.to_owned(),
        ours,
        peer: None,
        peer_value: None,
        unit,
        ratio: ours,
        goal: String::new(),
        met: true,
    }
}

impl Comparison {
    /// Judged by the least that counts, where that is not the goal itself; both are printed.
    pub(crate) fn with_least(self, goal: Goal, least: Option<Goal>) -> Self {
        let aimed = self.with_goal(goal);
        let Some(least) = least else { return aimed };
        let goal = aimed.goal.clone();
        let judged = aimed.with_goal(least);
        Self { goal: format!("{goal}, at least {}", judged.goal), ..judged }
    }

    /// Judged by a goal.
    pub(crate) fn with_goal(self, goal: Goal) -> Self {
        let alone = self.peer.is_none();
        let figure = if alone { self.ours } else { self.ratio };
        let (sign, bound, met) = match goal {
            Goal::AtLeast(bound) => ('≥', bound, figure >= bound),
            Goal::AtMost(bound) => ('≤', bound, figure <= bound),
        };
        let unit = if alone { self.unit } else { "" };
        let ratio = if alone && bound != 0.0 { rounded(self.ours / bound) } else { self.ratio };
        Self { goal: format!("{sign} {bound} {unit}").trim_end().to_owned(), met, ratio, ..self }
    }
}

/// Prints a table for people, or the line for programs.
pub(crate) fn print(results: &[Comparison], json: bool) {
    println!(
        "{:<48} {:>12} {:>12} {:<14} {:>8}  {:<8} {:<24} MET",
        "MEASURED", "OURS", "PEER'S", "PEER", "RATIO", "UNIT", "GOAL"
    );
    for one in results {
        let (peer, value) = (
            one.peer.as_deref().unwrap_or("-"),
            one.peer_value.map_or("-".to_owned(), |value| format!("{value:.2}")),
        );
        let met = match (one.goal.is_empty(), one.met) {
            (true, _) => "-",
            (false, true) => "met",
            (false, false) => "MISSED",
        };
        println!(
            "{:<48} {:>12.2} {value:>12} {peer:<14} {:>8.3}  {:<8} {:<24} {met}",
            one.name, one.ours, one.ratio, one.unit, one.goal
        );
    }
    if json {
        println!("{}", serde_json::to_string(results).expect("figures and texts"));
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let (ours, theirs) = (Rounds(vec![1.0, 4.0, 9.0]), Rounds(vec![2.0, 4.0, 3.0]));
        let one = compare("x", "µs", &ours, "etcd", &theirs);
        assert_eq!((one.ours, one.peer_value, one.ratio), (4.0, Some(3.0), 1.0));
        let line = serde_json::to_value([one, alone("y", "MB", &ours)]).expect("serialises");
        assert_eq!(line[1]["peer"], serde_json::Value::Null);
        assert!(line[0]["ratio"].is_number() && line[0]["goal"].is_string() && line[0]["met"] == true);
        assert!(line[0]["peerValue"].is_number());
    }

    #[test]
    fn goals_are_of_ratios_or_of_what_stands_alone() {
        let (two, four) = (Rounds(vec![2.0]), Rounds(vec![4.0]));
        let ratio = || compare("x", "ms", &two, "etcd", &four);
        assert!(ratio().with_goal(Goal::AtMost(0.5)).met);
        assert!(!ratio().with_goal(Goal::AtLeast(0.8)).met);
        let least = ratio().with_least(Goal::AtMost(0.25), Some(Goal::AtMost(0.6)));
        assert_eq!((least.met, least.goal.as_str(), least.ratio), (true, "≤ 0.25, at least ≤ 0.6", 0.5));
        let alone = alone("y", "MB", &two).with_goal(Goal::AtMost(1.0));
        assert_eq!((alone.met, alone.goal.as_str(), alone.ratio), (false, "≤ 1 MB", 2.0));
        assert_eq!(ratio().with_goal(Goal::AtMost(0.5)).goal, "≤ 0.5");
        let none = super::alone("y", "", &Rounds(vec![0.0])).with_goal(Goal::AtMost(0.0));
        assert_eq!((none.met, none.goal.as_str(), none.ratio), (true, "≤ 0", 0.0));
        let fast = super::alone("y", "ms", &two).with_goal(Goal::AtMost(8.0));
        assert_eq!((fast.met, fast.ratio), (true, 0.25));
    }
}
