//! Power cuts under whole clusters (`mesh-powercut`): nothing that was acknowledged may be missing, no member may refuse
//! to start, no revision and no term may go back; and the same programs with their syncs left out must lose something, or
//! the cuts prove nothing. Needs root, ext4 and loop devices, and fails where they are missing.

mod heavy {
    use std::{process::Command, time::SystemTime};

    use mesh_tests::binaries;
    use serde_json::Value;

    /// Seconds of cuts with three members and with five, as CI has them.
    const SECONDS_THREE: u32 = 110;
    const SECONDS_FIVE: u32 = 75;
    /// Cuts with `MESH_FULL=1`: a thousand together.
    const CUTS_THREE_FULL: u32 = 600;
    const CUTS_FIVE_FULL: u32 = 400;
    /// The control loses in its first cuts nearly always.
    const CONTROL_CUTS: u32 = 10;
    /// As many cuts are made at least, however slow the machine: fewer are no test.
    const CUTS_MIN: u64 = 4;

    fn cut_power(arguments: &[&str]) -> Value {
        assert!(rustix::process::geteuid().is_root(), "power cuts need root: mounts and EXT4_IOC_SHUTDOWN");
        let output =
            Command::new(binaries::path("mesh-powercut")).args(arguments).output().expect("it starts");
        let (said, printed) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{said}{printed}");
        eprintln!("{said}{printed}");
        serde_json::from_str(printed.lines().last().unwrap_or_default())
            .expect("the last line is the summary")
    }

    /// Drawn where all are wanted, else always the same.
    fn seed() -> String {
        let full = std::env::var_os("MESH_FULL").is_some_and(|value| value == "1");
        #[expect(clippy::disallowed_methods, reason = "a seed that differs from run to run; it is printed")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        if full { now.map_or(1, |now| now.as_secs()).to_string() } else { "3".to_owned() }
    }

    fn nothing_is_lost(members: &str, seconds: u32, cuts_full: u32) {
        let full = std::env::var_os("MESH_FULL").is_some_and(|value| value == "1");
        let (seconds, cuts) = if full { (3_300, cuts_full) } else { (seconds, u32::MAX) };
        let (seconds, cuts) = (seconds.to_string(), cuts.to_string());
        let summary =
            cut_power(&["--members", members, "--cuts", &cuts, "--seconds", &seconds, "--seed", &seed()]);
        assert_eq!((&summary["lost"], &summary["refused"]), (&0.into(), &0.into()), "{summary}");
        assert!(summary["cuts"].as_u64().is_some_and(|cuts| cuts >= CUTS_MIN), "{summary}");
        assert!(summary["acknowledged"].as_u64().is_some_and(|acknowledged| acknowledged > 0), "{summary}");
    }

    #[test]
    fn three_servers_lose_nothing_when_the_power_goes() {
        nothing_is_lost("3", SECONDS_THREE, CUTS_THREE_FULL);
    }

    #[test]
    fn five_servers_lose_nothing_when_the_power_goes() {
        nothing_is_lost("5", SECONDS_FIVE, CUTS_FIVE_FULL);
    }

    #[test]
    fn without_syncs_a_power_cut_is_noticed() {
        let cuts = CONTROL_CUTS.to_string();
        let summary = cut_power(&["--members", "3", "--cuts", &cuts, "--wrapper", "eatmydata"]);
        let noticed = [&summary["lost"], &summary["refused"]].map(|count| count.as_u64().unwrap_or(0));
        assert!(noticed.iter().sum::<u64>() > 0, "the cuts are no test of anything: {summary}");
        assert!(summary["acknowledged"].as_u64().is_some_and(|acknowledged| acknowledged > 0), "{summary}");
    }
}
