//! Many simulated proxies on three real servers: nobody loses a session, a cold restart of all servers is no event for
//! the registry, and all of it is bounded.

mod heavy {
    use std::time::Duration;

    use mesh_tests::{cluster::Cluster, fleet::scenario, scratch::Scratch};

    /// Proxies: as many as a debug build can let in and carry within the time of a test.
    const PROXIES: usize = 150;
    /// With `MESH_FULL=1`.
    const PROXIES_FULL: usize = 5_000;
    /// Two times to live, and a little.
    const HOLD: Duration = Duration::from_secs(21);
    /// Each start of a server writes itself down, and the leader may note one thing more of each.
    const REVISIONS_PER_START: u64 = 2;
    /// Resident memory of a server for each proxy of the mesh over what it has anyway, in MB: two TLS connections with
    /// their buffers, the objects, the history.
    const MEMORY_MB: (f64, f64) = (200.0, 0.25);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_fleet_keeps_its_sessions_and_is_in_sync_after_a_cold_restart_without_a_write() {
        let full = std::env::var_os("MESH_FULL").is_some();
        let proxies = if full { PROXIES_FULL } else { PROXIES };
        let scratch = Scratch::new("fleet");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers");
        let report = scenario::run(&mut cluster, proxies, HOLD).await.expect("all settles");
        eprintln!("{}", serde_json::to_string_pretty(&report).expect("it is written"));

        let held = &report.held;
        assert_eq!(
            (held.counts.registrations, held.counts.lost, held.revisions),
            (0, 0, 0),
            "while it was held"
        );
        let restart = &report.restart;
        assert!(restart.in_sync_seconds < scenario::IN_SYNC_LIMIT.as_secs_f64());
        assert_eq!((restart.counts.registrations, restart.counts.lost), (0, 0), "nobody registers anew");
        let written = restart.revisions.1 - restart.revisions.0;
        assert!(written <= REVISIONS_PER_START * 3, "{written} revisions of a restart");
        let most = MEMORY_MB.0 + MEMORY_MB.1 * proxies as f64;
        for memory in restart.memory_peak_mb.iter().chain(&held.memory_mb) {
            assert!(*memory < most, "{memory} MB, at most {most}");
        }
    }
}
