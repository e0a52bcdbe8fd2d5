//! Faults by a seeded plan, done to a cluster whose members are hosts of a [`Field`]. The plan is made beforehand and
//! saved; who leads, and so who is hit, is found out when it is time, and told.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;

use crate::{
    cluster::Cluster,
    dice::Dice,
    netns::{Dropped, Field},
    steady::now,
    work::Servers,
};

pub mod disk;

use disk::Disk;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Fault {
    /// kill -9, and started again.
    Kill,
    /// It stands still (SIGSTOP), and goes on without knowing.
    Pause,
    /// It hears no other member and is heard by none; clients reach it.
    Isolate,
    /// It hears the others, and is not heard.
    Mute,
    /// It is heard, and hears nobody.
    Deaf,
    /// Many packets between all members are lost.
    Loss,
    /// It is behind a narrow link: packets wait in line.
    Narrow,
    /// Its wall clock jumps, and back.
    Clock,
    /// It is removed for ever, and another comes in its place.
    Replace,
    /// Its disk is full, until there is room again.
    Fill,
}

/// One fault of a plan.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Episode {
    /// Nothing is wrong for so long before.
    pub quiet_ms: u64,
    /// What happens.
    pub fault: Fault,
    /// To the leader, or to another.
    pub leader: bool,
    /// Which other.
    pub pick: u64,
    /// For so long.
    pub lasts_ms: u64,
}

/// What a nemesis needs of the world.
#[derive(Debug)]
pub struct Nemesis<'a> {
    /// The network.
    pub field: &'a Field,
    /// The members.
    pub cluster: &'a mut Cluster,
    /// Who is told of starts and replacements.
    pub servers: Servers,
    /// The members' disks, where they can be filled.
    pub disks: &'a [Disk],
    /// What was done, line by line.
    pub told: Vec<String>,
    /// The number of the next member that comes.
    pub next: u8,
    folder: PathBuf,
}

/// A plan of so much time with faults of these kinds, each of them at least once if there is time.
pub fn plan(seed: u64, kinds: &[Fault], total: Duration) -> Vec<Episode> {
    let mut dice = Dice::new(seed);
    let (mut left, mut episodes) = (i64::try_from(total.as_millis()).unwrap_or(i64::MAX), Vec::new());
    let mut kinds_left = Vec::new();
    while left > 0 {
        if kinds_left.is_empty() {
            kinds_left = kinds.to_vec();
        }
        let fault =
            kinds_left.swap_remove(usize::try_from(dice.below(kinds_left.len() as u64)).expect("an index"));
        let (quiet_ms, lasts_ms) = (200 + dice.below(1_000), 300 + dice.below(2_200));
        let leader = dice.chance(60);
        episodes.push(Episode { quiet_ms, fault, leader, pick: dice.roll(), lasts_ms });
        left -= i64::try_from(quiet_ms + lasts_ms).unwrap_or(0);
    }
    episodes
}

/// What lets a member's wall clock be set, as a wrapper of its command: the file `clock-{n}` in `folder` has the jump.
///
/// # Errors
/// If the folder cannot be written, or libfaketime is not installed.
pub fn clocks(folder: &Path, members: u8) -> anyhow::Result<Vec<String>> {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    anyhow::ensure!(Path::new(LIBRARY).exists(), "{LIBRARY} is missing: install faketime");
    for n in 1..=members {
        std::fs::write(folder.join(format!("clock-{n}")), "+0\n")?;
    }
    let file = format!("FAKETIME_TIMESTAMP_FILE={}/clock-{{n}}", folder.display());
    let preload = format!("LD_PRELOAD={LIBRARY}");
    // The monotonic clock stays: it is what leases and sessions go by, and no operator can set it.
    let words = ["env", &preload, &file, "FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    Ok(words.map(str::to_owned).to_vec())
}

impl<'a> Nemesis<'a> {
    /// One that has done nothing yet.
    pub fn new(
        field: &'a Field,
        cluster: &'a mut Cluster,
        servers: Servers,
        folder: &Path,
        disks: &'a [Disk],
    ) -> Self {
        let next = u8::try_from(cluster.members.len() + 1).expect("few members");
        Self { field, cluster, servers, disks, told: Vec::new(), next, folder: folder.to_path_buf() }
    }

    /// Carries a plan out; every member runs, and hears every other, when this returns.
    ///
    /// # Errors
    /// If a member does not come back.
    pub async fn carry_out(&mut self, plan: &[Episode]) -> anyhow::Result<()> {
        let start = now();
        for episode in plan {
            // Pace: nothing is wrong for a while.
            tokio::time::sleep(Duration::from_millis(episode.quiet_ms)).await;
            let target = self.target(episode).await?;
            let name = self.cluster.members[target].name.clone();
            let at = now().duration_since(start);
            self.told.push(format!(
                "{at:?}: {:?} {name}, which leads: {}, {} ms",
                episode.fault, episode.leader, episode.lasts_ms
            ));
            let done = self.do_to(target, *episode).await;
            done.with_context(|| format!("after {:?} of {name}:\n{}", episode.fault, self.told.join("\n")))?;
        }
        Ok(())
    }

    async fn target(&self, episode: &Episode) -> anyhow::Result<usize> {
        let leader = self.cluster.leader().await?;
        let count = self.cluster.members.len();
        let other = 1 + usize::try_from(episode.pick % (count as u64 - 1)).expect("an index");
        Ok(if episode.leader { leader } else { (leader + other) % count })
    }

    async fn do_to(&mut self, target: usize, episode: Episode) -> anyhow::Result<()> {
        let lasts = Duration::from_millis(episode.lasts_ms);
        let host = self.host(target);
        match episode.fault {
            Fault::Kill => self.kill(target, lasts).await,
            Fault::Pause => {
                self.signal(target, Signal::STOP);
                hold(lasts).await;
                self.signal(target, Signal::CONT);
                Ok(())
            }
            Fault::Isolate | Fault::Mute | Fault::Deaf | Fault::Loss => {
                self.field.drop_packets(&self.dropped(host, episode))?;
                hold(lasts).await;
                self.field.drop_packets(&[])
            }
            Fault::Narrow => {
                self.field.narrow(host, Some(200))?;
                hold(lasts).await;
                self.field.narrow(host, None)
            }
            Fault::Clock => self.jump(host, episode.pick, lasts).await,
            Fault::Replace => self.replace(target).await,
            Fault::Fill => self.fill(target, lasts).await,
        }
    }

    /// The number of a member's host.
    fn host(&self, index: usize) -> u8 {
        self.cluster.members[index].address.octets()[3]
    }

    fn dropped(&self, host: u8, episode: Episode) -> Vec<Dropped> {
        let others = || {
            (0..self.cluster.members.len()).map(|index| self.host(index)).filter(move |other| *other != host)
        };
        let out = || others().map(|to| Dropped { from: host, to, percent: 100 });
        let back = || others().map(|from| Dropped { from, to: host, percent: 100 });
        match episode.fault {
            Fault::Mute => out().collect(),
            Fault::Deaf => back().collect(),
            Fault::Loss => {
                let percent = u8::try_from(10 + episode.pick % 30).expect("less than a hundred");
                let all = || others().chain([host]);
                let pairs =
                    all().flat_map(|from| all().filter(move |to| *to != from).map(move |to| (from, to)));
                pairs.map(|(from, to)| Dropped { from, to, percent }).collect()
            }
            _ => out().chain(back()).collect(),
        }
    }

    fn signal(&self, target: usize, signal: Signal) {
        if let Some(process) = &self.cluster.members[target].process {
            process.signal(signal);
        }
    }

    async fn kill(&mut self, target: usize, lasts: Duration) -> anyhow::Result<()> {
        self.cluster.members[target].kill();
        hold(lasts).await;
        self.servers.started(self.host(target));
        self.cluster.run(target).await
    }

    async fn jump(&self, host: u8, pick: u64, lasts: Duration) -> anyhow::Result<()> {
        let seconds = i64::try_from(pick % 480).expect("small") - 240;
        let file = self.folder.join(format!("clock-{host}"));
        std::fs::write(&file, format!("{seconds:+}\n"))?;
        hold(lasts.max(Duration::from_secs(2))).await;
        std::fs::write(&file, "+0\n")?;
        Ok(())
    }

    /// As an operator does it: remove what is broken, then let a new one in.
    async fn replace(&mut self, target: usize) -> anyhow::Result<()> {
        let (count, gone) = (self.cluster.members.len(), self.cluster.members[target].url());
        let asked = (target + 1) % count;
        let id = self.id_of(asked, &gone).await?;
        let said = self.cluster.said_at(asked, &["cluster", "remove", &id.to_string()]).await;
        anyhow::ensure!(said.code == Some(0), "remove: {}{}", said.out, said.err);
        self.servers.gone(self.host(target));
        self.cluster.members.remove(target);
        let next = self.next;
        self.next += 1;
        self.cluster.join(next).await?;
        self.servers.come(next, self.cluster.members[count - 1].url());
        self.cluster.wait_for_voters(count).await
    }

    async fn id_of(&self, asked: usize, url: &str) -> anyhow::Result<u64> {
        let client = self.cluster.client(asked)?;
        let status: Value = client.json(reqwest::Method::GET, "/v1/cluster", None).await?;
        let members = status["members"].as_array().context("members")?;
        let found = members.iter().find(|member| url.ends_with(member["api"].as_str().unwrap_or("?")));
        found.and_then(|member| member["id"].as_u64()).with_context(|| format!("{url} in {status}"))
    }

    async fn fill(&mut self, target: usize, lasts: Duration) -> anyhow::Result<()> {
        let name = &self.cluster.members[target].name;
        let disk = self.disks.iter().find(|disk| disk.is_of(name));
        let Some(disk) = disk else { return Ok(()) };
        disk.fill()?;
        hold(lasts).await;
        disk.free()?;
        let running =
            self.cluster.members[target].process.as_mut().is_some_and(|process| process.is_running());
        if !running {
            self.servers.started(self.host(target));
            self.cluster.run(target).await?;
        }
        Ok(())
    }
}

/// Lets a fault last.
async fn hold(lasts: Duration) {
    // Pace: what happens meanwhile is what the clients record.
    tokio::time::sleep(lasts).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_repeats_and_has_every_kind() {
        let kinds = [Fault::Kill, Fault::Pause, Fault::Isolate];
        let of = |seed| serde_json::to_string(&plan(seed, &kinds, Duration::from_secs(20))).expect("JSON");
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
        assert!(["Kill", "Pause", "Isolate"].iter().all(|kind| of(5).contains(kind)), "{}", of(5));
    }
}
