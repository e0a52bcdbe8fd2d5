//! One cluster through many power cuts, all members at once, and the look after each.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::{join_all, try_join_all};
use mesh_tests::{cluster::Cluster, process, steady::now, wait::until};
use model::{
    client::{ClientError, Selection},
    kind::Kind,
};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    Cli,
    chance::Chance,
    disk::Disk,
    ledger::{Ledger, Seen},
    writers::{self, COUNT, Shared},
};

/// So many writes are acknowledged before a cut, however slow the machine.
const WRITES_MIN: u64 = 10;
/// How long writers go on after them, at most, in milliseconds.
const WRITE_MILLIS_MAX: u64 = 600;
/// In every so many cuts the processes are killed first and started again, and the power goes right after that: what a
/// killed process had written and never synced is vouched for by then.
const KILL_FIRST_EVERY: u32 = 5;
/// How long all may take to be there again.
const BACK_WITHIN: Duration = Duration::from_secs(40);
/// As many breaches are printed.
const SHOWN_MAX: usize = 5;

/// What the trial saw; printed as JSON.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) seed: u64,
    pub(crate) members: u8,
    pub(crate) cuts: u32,
    pub(crate) acknowledged: u64,
    /// Promises that were broken.
    pub(crate) lost: usize,
    /// Members that did not come back.
    pub(crate) refused: usize,
    /// Between the first and the last disk of a cut, at most.
    pub(crate) spread_micros_max: u128,
    pub(crate) term: u64,
    pub(crate) seconds_per_cut: f64,
}

/// How often is said how far it is, in cuts.
const TOLD_EVERY: u32 = 50;

/// Who led when, so that no term has two leaders.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reign {
    epoch: String,
    term: u64,
    leader: u64,
}

pub(crate) struct Trial {
    cluster: Cluster,
    disks: Vec<Disk>,
    ledger: Shared,
    chance: Chance,
    reign: Option<Reign>,
    summary: Summary,
}

impl Trial {
    pub(crate) async fn start(folder: &Path, cli: &Cli) -> anyhow::Result<Self> {
        let (mesh, images) = (folder.join("mesh"), folder.join("images"));
        std::fs::create_dir_all(&images)?;
        let mut disks = Vec::new();
        for number in 1..=cli.members {
            let name = format!("cp{number}");
            disks.push(Disk::new(&images, &name, &mesh.join(&name).join("data")).await?);
        }
        let cluster = Cluster::start_under(&mesh, cli.members, cli.wrapper.clone(), |_| {}).await?;
        let summary = Summary { seed: cli.seed, members: cli.members, ..Summary::default() };
        let (ledger, chance) = (Arc::new(Mutex::new(Ledger::default())), Chance::new(cli.seed));
        let mut trial = Self { cluster, disks, ledger, chance, reign: None, summary };
        trial.look().await?;
        Ok(trial)
    }

    /// Cuts until there were as many as asked for, the time is over, or, where it is a control, something was lost.
    pub(crate) async fn run(mut self, cli: &Cli) -> anyhow::Result<Summary> {
        let started = now();
        while self.summary.cuts < cli.cuts && now().duration_since(started) < Duration::from_secs(cli.seconds)
        {
            let cut = self.cut().await;
            cut.with_context(|| format!("cut {} of {}", self.summary.cuts, cli.cuts))?;
            if self.summary.cuts.is_multiple_of(TOLD_EVERY) {
                eprintln!("{} of {} cuts", self.summary.cuts, cli.cuts);
            }
            self.summary.seconds_per_cut =
                now().duration_since(started).as_secs_f64() / f64::from(self.summary.cuts);
            if self.summary.lost + self.summary.refused > 0 {
                break;
            }
        }
        self.summary.acknowledged = self.acknowledged();
        self.summary.term = self.reign.map_or(0, |reign| reign.term);
        Ok(self.summary)
    }

    async fn cut(&mut self) -> anyhow::Result<()> {
        self.summary.cuts += 1;
        let writers = writers::start(&self.cluster, &self.ledger, &mut self.chance)?;
        let enough = self.acknowledged() + WRITES_MIN;
        until("writers write", BACK_WITHIN, || async {
            let acknowledged = self.acknowledged();
            if acknowledged >= enough { Ok(()) } else { Err(format!("{acknowledged} of {enough}")) }
        })
        .await?;
        let millis = self.chance.below(WRITE_MILLIS_MAX);
        tokio::time::sleep(Duration::from_millis(millis)).await; // Pace: how much is written before the cut.
        let disturbed = self.disturb()?;
        if self.summary.cuts.is_multiple_of(KILL_FIRST_EVERY) {
            self.ledger.lock().expect("nobody panics with it").close();
            self.kill();
            drop((writers, disturbed));
            if !self.come_back().await? {
                return Ok(());
            }
            self.cut_disks()?;
        } else {
            self.ledger.lock().expect("nobody panics with it").close();
            self.cut_disks()?;
            drop((writers, disturbed));
        }
        self.kill();
        try_join_all(self.disks.iter_mut().map(Disk::power_on)).await?;
        self.come_back().await?;
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.ledger.lock().expect("nobody panics with it").acknowledged
    }

    /// In some cuts leadership moves, or a snapshot is made and the log purged, just then.
    fn disturb(&mut self) -> anyhow::Result<tokio::task::JoinSet<()>> {
        let mut disturbed = tokio::task::JoinSet::new();
        let member = self.chance.below(self.cluster.members.len() as u64) as usize;
        let client = self.cluster.client(member)?;
        match self.chance.below(4) {
            0 => drop(disturbed.spawn(async move {
                let _ = client
                    .json::<Value>(Method::POST, "/v1/cluster/transfer", Some(&json!({"to": null})))
                    .await;
            })),
            1 => drop(disturbed.spawn(async move {
                let _ = client.download("/v1/snapshot").await;
            })),
            _ => {}
        }
        Ok(disturbed)
    }

    fn cut_disks(&mut self) -> anyhow::Result<()> {
        let started = now();
        std::thread::scope(|scope| {
            let cuts: Vec<_> = self.disks.iter().map(|disk| scope.spawn(|| disk.cut())).collect();
            cuts.into_iter().try_for_each(|cut| cut.join().expect("a cut does not panic"))
        })?;
        self.summary.spread_micros_max =
            self.summary.spread_micros_max.max(now().duration_since(started).as_micros());
        Ok(())
    }

    fn kill(&mut self) {
        self.cluster.members.iter_mut().for_each(mesh_tests::cluster::Member::kill);
    }

    /// Starts all and looks; `false` if that cannot go on.
    async fn come_back(&mut self) -> anyhow::Result<bool> {
        self.kill();
        for member in &mut self.cluster.members {
            member.spawn()?;
        }
        let cluster = &self.cluster;
        let back = join_all((0..cluster.members.len()).map(|index| cluster.ready(index, BACK_WITHIN))).await;
        let refused: Vec<_> = back.into_iter().filter_map(Result::err).collect();
        self.summary.refused += refused.len();
        refused.iter().for_each(|error| eprintln!("cut {}: not back: {error:#}", self.summary.cuts));
        if !refused.is_empty() {
            return Ok(false);
        }
        self.look().await
    }

    /// Compares what each member lists with what was promised.
    async fn look(&mut self) -> anyhow::Result<bool> {
        let (first, revision) = self.list(0).await?;
        let mut breaches = self.ledger.lock().expect("nobody panics with it").look(&first, revision);
        for index in 1..self.cluster.members.len() {
            let (other, _) = self.list(index).await?;
            let names: BTreeSet<_> = first.keys().chain(other.keys()).collect();
            let differ = names.into_iter().find(|name| first.get(*name) != other.get(*name));
            breaches.extend(differ.map(|name| {
                format!("members 0 and {index}: {name} is {:?} and {:?}", first.get(name), other.get(name))
            }));
        }
        breaches.extend(self.reign().await?);
        self.summary.lost += breaches.len();
        for breach in breaches.iter().take(SHOWN_MAX) {
            eprintln!("cut {}: {breach}", self.summary.cuts);
        }
        Ok(breaches.is_empty())
    }

    async fn list(&self, index: usize) -> anyhow::Result<(BTreeMap<String, Seen>, u64)> {
        let client = self.cluster.client(index)?;
        let list = until("a list", BACK_WITHIN, || async {
            client.list(Kind::Service, &Selection::default()).await.map_err(unavailable)
        });
        let list = list.await?;
        let seen = |object: &model::object::Object| {
            let count =
                serde_json::to_value(&object.metadata).ok()?["annotations"][COUNT].as_str()?.parse().ok()?;
            Some((object.metadata.name.to_string(), Seen { count, revision: object.metadata.revision }))
        };
        Ok((list.items.iter().filter_map(seen).collect(), list.revision))
    }

    /// The epoch stays, terms never go back, and none has two leaders: a vote that was lost could make one.
    async fn reign(&mut self) -> anyhow::Result<Option<String>> {
        let client = self.cluster.client(0)?;
        let now = until("a leader", BACK_WITHIN, || async {
            let cluster: Value =
                client.json(Method::GET, "/v1/cluster", None).await.map_err(|error| error.to_string())?;
            reign(&cluster).ok_or_else(|| cluster.to_string())
        });
        let now = now.await?;
        let before = self.reign.replace(now.clone());
        Ok(before
            .filter(|before| !before.may_be_followed_by(&now))
            .map(|before| format!("{before:?} and then {now:?}")))
    }
}

impl Reign {
    fn may_be_followed_by(&self, next: &Self) -> bool {
        self.epoch == next.epoch
            && (next.term > self.term || (next.term == self.term && next.leader == self.leader))
    }
}

fn reign(cluster: &Value) -> Option<Reign> {
    let epoch = cluster["epoch"].as_str()?.to_owned();
    Some(Reign { epoch, term: cluster["term"].as_u64()?, leader: cluster["leader"].as_u64()? })
}

fn unavailable(error: ClientError) -> String {
    error.to_string()
}

/// Runs the whole trial in a folder that is gone afterwards.
pub(crate) async fn run(cli: &Cli) -> anyhow::Result<Summary> {
    let folder = tempfile::Builder::new().prefix("mesh-powercut-").tempdir()?;
    let trial = Trial::start(folder.path(), cli).await.context("the cluster does not start")?;
    let disks: Vec<_> = trial.disks.iter().map(|disk| disk.mount().to_owned()).collect();
    let summary = trial.run(cli).await;
    let mut unmounted = Ok(());
    for disk in disks {
        // What is still mounted could not be removed with the folder.
        unmounted =
            unmounted.and(process::run(Command::new("umount").arg("--lazy").arg(disk)).await.map(drop));
    }
    // What ended the trial says more than what it left behind.
    let summary = summary?;
    unmounted.map(|()| summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_has_one_leader_and_an_epoch_stays() {
        let reign = |epoch: &str, term, leader| Reign { epoch: epoch.to_owned(), term, leader };
        let before = reign("e", 4, 1);
        assert!(before.may_be_followed_by(&reign("e", 4, 1)) && before.may_be_followed_by(&reign("e", 5, 2)));
        for breach in [reign("e", 3, 1), reign("e", 4, 2), reign("f", 5, 1)] {
            assert!(!before.may_be_followed_by(&breach), "{breach:?}");
        }
    }
}
