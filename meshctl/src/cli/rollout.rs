use clap::Args;
use model::{duration::Timespan, rollout::Waiting};

/// Whether a write waits for the proxies that it concerns.
#[derive(Debug, Args)]
pub(crate) struct RolloutOptions {
    /// Wait until the proxies that it concerns run it; exit code 1 if not enough of them do in time
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// With --wait: how many of a hundred proxies
    #[arg(long, default_value_t = 100, value_name = "PERCENT", requires = "wait",
          value_parser = clap::value_parser!(u64).range(1..=100))]
    quorum: u64,
    /// With --wait: how long, at most 5m
    #[arg(long, default_value = "30s", value_name = "TIME", requires = "wait")]
    timeout: Timespan,
}

impl RolloutOptions {
    /// `None` where the write does not wait.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        self.wait.then_some(Waiting { quorum: self.quorum, timeout: self.timeout })
    }
}
