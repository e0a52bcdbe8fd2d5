//! Kills an endpoint, then the leader, then starts them again; and so on.

use std::time::{Duration, Instant};

use crate::{app::clock, shop::Shop};

/// The turn's steps, each so long after the turn's start.
const STEPS: [(Duration, Step); 4] = [
    (Duration::from_secs(4), Step::KillEndpoint),
    (Duration::from_secs(8), Step::RestartEndpoint),
    (Duration::from_secs(10), Step::KillLeader),
    (Duration::from_secs(15), Step::RestartLeader),
];
/// The steps of a run that is too short for these take these shares of it.
const SHARES: [f64; 4] = [0.2, 0.4, 0.5, 0.75];
/// How long a turn takes.
const TURN: Duration = Duration::from_secs(20);
/// The services whose endpoints are killed, in turn. Orders is not: each of its versions has one endpoint only.
const VICTIMS: [&str; 3] = ["inventory", "payments", "web"];

#[derive(Debug, Clone, Copy)]
enum Step {
    KillEndpoint,
    RestartEndpoint,
    KillLeader,
    RestartLeader,
}

/// What is to be killed when.
pub(crate) struct Faults {
    /// How often the leader was killed.
    pub(crate) leader_kills: u64,
    turn_started: Instant,
    turn: usize,
    next: usize,
    at: [Duration; 4],
    instance: Option<usize>,
    leader: Option<usize>,
}

impl Faults {
    /// For a run of this length; without end if `None`.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        let mut at = STEPS.map(|(at, _)| at);
        if let Some(limit) = limit.filter(|limit| *limit < TURN) {
            at = SHARES.map(|share| limit.mul_f64(share));
        }
        Self { leader_kills: 0, turn_started: clock(), turn: 0, next: 0, at, instance: None, leader: None }
    }

    /// Does what is due.
    pub(crate) async fn step(&mut self, shop: &mut Shop) -> anyhow::Result<()> {
        if self.next == STEPS.len() && clock().duration_since(self.turn_started) >= TURN {
            (self.turn_started, self.turn, self.next) = (clock(), self.turn + 1, 0);
        }
        while self.next < STEPS.len() && clock().duration_since(self.turn_started) >= self.at[self.next] {
            self.act(STEPS[self.next].1, shop).await?;
            self.next += 1;
        }
        Ok(())
    }

    /// Starts again what is still down.
    pub(crate) async fn finish(&mut self, shop: &mut Shop) -> anyhow::Result<()> {
        self.act(Step::RestartEndpoint, shop).await?;
        self.act(Step::RestartLeader, shop).await
    }

    async fn act(&mut self, step: Step, shop: &mut Shop) -> anyhow::Result<()> {
        match step {
            Step::KillEndpoint => {
                let victim = VICTIMS[self.turn % VICTIMS.len()];
                self.instance = shop.instances.iter().position(|instance| instance.service == victim);
                self.instance.into_iter().for_each(|index| shop.kill_instance(index));
            }
            Step::RestartEndpoint => {
                self.instance.take().map_or(Ok(()), |index| shop.restart_instance(index))?
            }
            Step::KillLeader => {
                let leader = shop.cluster.leader().await?;
                shop.cluster.members[leader].kill();
                (self.leader, self.leader_kills) = (Some(leader), self.leader_kills + 1);
            }
            Step::RestartLeader => {
                if let Some(leader) = self.leader.take() {
                    shop.cluster.members[leader].spawn()?;
                }
            }
        }
        Ok(())
    }
}
