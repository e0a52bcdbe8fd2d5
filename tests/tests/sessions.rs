//! A dead host's endpoints go after its time to live and not before, whatever happens to the servers meanwhile. The
//! test plays the hosts and keeps a timeline: what was acknowledged to whom, and when a watcher saw its endpoint go.

use std::{collections::BTreeMap, time::Duration};

/// What a timeline says of one host; times are counted from the test's start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Story {
    /// When it sent the keep-alives that were acknowledged.
    acknowledged: Vec<Duration>,
    /// When its endpoint was seen to go.
    gone: Option<Duration>,
}

/// A breach of what is promised of sessions.
#[derive(Debug, PartialEq, Eq)]
enum Breach {
    /// It went before a time to live was over.
    Early(String, Duration),
    /// It was still there at its latest end.
    Outlived(String),
}

/// `model::proxy::SESSION_TTL`.
const TTL: Duration = Duration::from_secs(10);

/// Judges a timeline that ends at `end`: nobody goes before `TTL` after the last keep-alive that was acknowledged, and
/// nobody is there `latest` after it, or after `disturbed`, when the servers themselves were last not well.
fn judge(
    stories: &BTreeMap<String, Story>,
    disturbed: Duration,
    latest: Duration,
    end: Duration,
) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (name, Story { acknowledged, gone }) in stories {
        let last = acknowledged.iter().filter(|at| gone.is_none_or(|gone| **at <= gone)).max();
        let Some(last) = last.copied() else { continue };
        match gone {
            Some(gone) if *gone < last + TTL => breaches.push(Breach::Early(name.clone(), *gone - last)),
            Some(gone) if *gone > last.max(disturbed) + latest => {
                breaches.push(Breach::Outlived(name.clone()))
            }
            None if end > last.max(disturbed) + latest => breaches.push(Breach::Outlived(name.clone())),
            _ => {}
        }
    }
    breaches
}

#[test]
fn the_judge_finds_who_went_early_and_who_outlived_his_time() {
    let seconds = Duration::from_secs;
    let story = |acknowledged: &[u64], gone: Option<u64>| Story {
        acknowledged: acknowledged.iter().copied().map(seconds).collect(),
        gone: gone.map(seconds),
    };
    let judged = |one: Story, disturbed, end| {
        judge(&BTreeMap::from([("a".to_owned(), one)]), seconds(disturbed), seconds(14), seconds(end))
    };
    assert_eq!(judged(story(&[1, 4, 7], Some(18)), 0, 60), []);
    assert_eq!(judged(story(&[1, 4, 50], None), 0, 60), [], "it lives");
    // Planted: a leader that counts from an earlier sign, and one that never looks.
    assert_eq!(judged(story(&[1, 4, 7], Some(14)), 0, 60), [Breach::Early("a".to_owned(), seconds(7))]);
    assert_eq!(judged(story(&[1, 4, 7], Some(30)), 0, 60), [Breach::Outlived("a".to_owned())]);
    assert_eq!(judged(story(&[1, 4, 7], None), 0, 60), [Breach::Outlived("a".to_owned())]);
    assert_eq!(judged(story(&[1, 4, 7], Some(30)), 17, 60), [], "a new leader gives a full time");
}

mod patient {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
        time::{Duration, Instant},
    };

    use mesh_tests::{
        cluster::Cluster,
        fleet::{register_body, scenario},
        scratch::Scratch,
        steady::now,
        stranger::Stranger,
        wait::until,
    };
    use rustix::process::Signal;
    use serde_json::{Value, json};

    use super::{Story, TTL, judge};

    /// The leader looks twice a second, an election takes under a second, the delete has to come through; the rest is
    /// for a busy machine. After a new term hosts that were not heard may be waited for while others come back.
    const LATEST: Duration = Duration::from_secs(60);
    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(120);
    /// Hosts: more than twice as many as die, so that those are single faults.
    const HOSTS: usize = 8;
    const PAUSE: Duration = Duration::from_secs(15);

    type Stories = Arc<Mutex<BTreeMap<String, Story>>>;

    /// Hosts that keep their sessions alive with whichever server answers, and a watcher of their endpoints.
    struct Hosts {
        began: Instant,
        stories: Stories,
        tasks: Vec<(String, tokio::task::JoinHandle<()>)>,
    }

    async fn hosts(cluster: &Cluster) -> Hosts {
        let (began, stories, mut tasks) = (now(), Stories::default(), Vec::new());
        for index in 0..HOSTS {
            let name = format!("host-{index}");
            let host = Stranger::join(cluster, &name, &["default/*"]).await.expect("it is let in");
            let urls: Vec<_> = cluster.members.iter().map(mesh_tests::cluster::Member::url).collect();
            let task = live(host, urls, index, began, stories.clone());
            tasks.push((name, tokio::spawn(task)));
        }
        let hosts = Hosts { began, stories, tasks };
        hosts.all_there(cluster).await;
        hosts
    }

    /// Registers and sends keep-alives until it is ended. One whose session is gone does not come back: it would hide it.
    async fn live(host: Stranger, urls: Vec<String>, index: usize, began: Instant, stories: Stories) {
        let body = register_body(&host.node, "shop", index);
        let registered = until("it registers", PATIENCE, || async {
            match host.call_at(&urls[0], reqwest::Method::PUT, "/v1/proxy/registration", &body).await {
                Ok((200, answer)) => Ok(answer),
                other => Err(format!("{other:?}")),
            }
        });
        let generation = registered.await.expect("it registers")["generation"].clone();
        for beat in index.. {
            let sent = now() - began;
            let said = json!({"generation": generation, "revision": 0});
            for url in urls.iter().cycle().skip(beat % urls.len()).take(urls.len()) {
                let call = host.call_at(url, reqwest::Method::POST, "/v1/proxy/keepalive", &said);
                match tokio::time::timeout(Duration::from_secs(2), call).await {
                    Ok(Ok((200, _))) => {
                        let mut stories = stories.lock().expect("no panic");
                        stories.entry(host.node.clone()).or_default().acknowledged.push(sent);
                        break;
                    }
                    Ok(Ok((410, _))) => return,
                    _ => {}
                }
            }
            // Pace: three times as often as a proxy, so that one lost on a busy machine ends nobody.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    impl Hosts {
        async fn all_there(&self, cluster: &Cluster) {
            until("all endpoints are there", PATIENCE, || async {
                let there = there(cluster).await?;
                if there.len() == HOSTS { Ok(()) } else { Err(format!("{there:?}")) }
            })
            .await
            .expect("all endpoints are there");
        }

        /// The host is dead from here on.
        fn kill(&mut self, name: &str) {
            for (_, task) in self.tasks.iter().filter(|(of, _)| of == name) {
                task.abort();
            }
        }

        /// Waits until these are gone, and judges all.
        async fn judged(&self, cluster: &Cluster, dead: &[&str], disturbed: Instant) {
            until("the dead are gone", PATIENCE + PAUSE, || async {
                let there = there(cluster).await?;
                let at = now() - self.began;
                let mut stories = self.stories.lock().expect("no panic");
                for (name, story) in stories.iter_mut().filter(|(name, _)| !there.contains(name)) {
                    eprintln!("{name} seen gone at {at:?}");
                    story.gone.get_or_insert(at);
                }
                match dead.iter().all(|name| stories[*name].gone.is_some()) {
                    true => Ok(()),
                    false => Err(format!("{there:?}")),
                }
            })
            .await
            .expect("the dead are gone");
            let stories = self.stories.lock().expect("no panic").clone();
            let gone: Vec<_> =
                stories.iter().filter(|(_, story)| story.gone.is_some()).map(|(name, _)| name).collect();
            assert_eq!(gone, dead, "and nobody else");
            let breaches = judge(&stories, disturbed - self.began, LATEST, now() - self.began);
            assert!(breaches.is_empty(), "{breaches:?} in {stories:#?}");
        }
    }

    impl Drop for Hosts {
        fn drop(&mut self) {
            self.tasks.iter().for_each(|(_, task)| task.abort());
        }
    }

    /// The hosts whose endpoints are there, at the first server that answers.
    async fn there(cluster: &Cluster) -> Result<Vec<String>, String> {
        let mut last = "no server runs".to_owned();
        for index in 0..cluster.members.len() {
            let client = cluster.client(index).map_err(|error| error.to_string())?;
            let path = "/v1/namespaces/default/endpoints";
            let asked = client.json::<Value>(reqwest::Method::GET, path, None);
            match tokio::time::timeout(Duration::from_secs(2), asked).await {
                Ok(Ok(list)) => {
                    let nodes = list["items"].as_array().into_iter().flatten();
                    return Ok(nodes
                        .filter_map(|one| Some(one["spec"]["node"].as_str()?.to_owned()))
                        .collect());
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "late".to_owned(),
            }
        }
        Err(last)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn endpoints_go_after_their_time_across_kills_and_pauses_and_never_before() {
        let scratch = Scratch::new("sessions");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers");
        let mut hosts = hosts(&cluster).await;

        // A host dies, and the leader with it half a time later: the next one gives it a full time.
        hosts.kill("host-0");
        // Pace: the leader is to die in the middle of the time to live.
        tokio::time::sleep(TTL / 2).await;
        let leader = cluster.leader().await.expect("a leader");
        cluster.members[leader].kill();
        let disturbed = now();
        cluster.leader().await.expect("another leader");
        hosts.judged(&cluster, &["host-0"], disturbed).await;
        let gone = hosts.stories.lock().expect("no panic")["host-0"].gone.expect("it is gone");
        assert!(gone >= disturbed - hosts.began + TTL, "less than a full time under the new leader");
        cluster.run(leader).await.expect("it is back");

        // The leader stands still for longer than a time to live: nobody ends but who died.
        hosts.kill("host-1");
        let leader = cluster.leader().await.expect("a leader");
        let paused = cluster.members[leader].process.as_ref().expect("it runs");
        paused.signal(Signal::STOP);
        // Pace: the pause itself is what is tested.
        tokio::time::sleep(PAUSE).await;
        paused.signal(Signal::CONT);
        hosts.judged(&cluster, &["host-0", "host-1"], now()).await;

        // A follower stands still with signs of life in it: its hosts ask another server.
        let leader = cluster.leader().await.expect("a leader");
        let follower = (leader + 1) % 3;
        let paused = cluster.members[follower].process.as_ref().expect("it runs");
        paused.signal(Signal::STOP);
        // Pace: the pause itself is what is tested.
        tokio::time::sleep(PAUSE).await;
        paused.signal(Signal::CONT);
        hosts.judged(&cluster, &["host-0", "host-1"], now()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_host_that_comes_and_goes_is_held_back_and_is_told_for_how_long() {
        let scratch = Scratch::new("flapping");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let host = Stranger::join(&cluster, "loop", &["default/*"]).await.expect("it is let in");
        let before = scenario::revision(&cluster).await.expect("a revision");
        let body = register_body("loop", "shop", 1);
        let url = cluster.members[0].url();
        let (mut written, mut held) = (0_u64, None);
        for _ in 0..20 {
            let answer = host
                .http()
                .put(format!("{url}/v1/proxy/registration"))
                .json(&body)
                .send()
                .await
                .expect("an answer");
            match answer.status().as_u16() {
                200 => written += 1,
                429 => {
                    let after = answer.headers()["retry-after"].to_str().expect("a number").to_owned();
                    held.get_or_insert(after.parse::<u64>().expect("seconds"));
                }
                other => panic!("{other}"),
            }
            let left = host.call(reqwest::Method::DELETE, "/v1/proxy/registration", None).await;
            assert_eq!(left.expect("an answer").0, 200, "whoever leaves may do so at once");
        }
        let revisions = scenario::revision(&cluster).await.expect("a revision") - before;
        eprintln!("20 comebacks: {written} written, {revisions} revisions, held for {held:?} s");
        assert!((1..=8).contains(&written) && revisions <= 2 * written, "no storm");
        assert!(held.is_some_and(|held| (1..=300).contains(&held)), "{held:?}");
    }
}
