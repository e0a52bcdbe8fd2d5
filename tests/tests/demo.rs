//! The demo, as CI sees it: three servers, real proxies, faults all the while, and no call lost.

mod heavy {
    use std::{collections::BTreeSet, process::Command};

    use mesh_tests::{binaries, scratch::Said};
    use serde_json::Value;

    /// Who calls whom in the shop.
    const EDGES: [(&str, &str); 4] =
        [("clients", "web"), ("web", "orders"), ("orders", "payments"), ("orders", "inventory")];

    #[test]
    fn the_shop_loses_no_call_while_weights_change_and_an_endpoint_and_the_leader_are_killed() {
        let mut demo = Command::new(binaries::path("mesh-demo"));
        let said: Said =
            demo.args(["--for", "25s", "--json", "--rate", "60"]).output().expect("the demo starts").into();
        let last = said.out.lines().last().unwrap_or_default();
        assert_eq!(said.code, Some(0), "{last}\n{}", said.err);
        let report: Value = serde_json::from_str(last).expect("the last line is one JSON object");
        let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"));
        assert_eq!((number("failed"), &report["mtls"]), (0, &Value::Bool(true)), "{report}");
        assert!(number("leaderKills") >= 1, "{report}");
        assert!(number("weightChanges") > 10, "{report}");
        assert_eq!(number("weightChangesSeen"), number("weightChanges"), "{report}");
        // A killed process takes along what it was doing: a few calls, if any.
        assert!(number("inFlightKilled") <= 20, "{report}");
        // 60 calls a second come in, for 22 of the 25 seconds at least; each makes four.
        assert!(number("requests") >= 22 * 60 * 4, "{report}");
        check_edges(&report);
    }

    fn check_edges(report: &Value) {
        let edges = report["edges"].as_array().expect("a list");
        let text = |edge: &Value, name: &str| edge[name].as_str().expect("a name").to_owned();
        let found: BTreeSet<_> =
            edges.iter().map(|edge| (text(edge, "source"), text(edge, "destination"))).collect();
        let want: BTreeSet<_> =
            EDGES.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        assert_eq!((found, edges.len()), (want, EDGES.len()), "{report}");
        let mut sum = 0;
        for edge in edges {
            let requests = edge["requests"].as_u64().expect("a number");
            sum += requests;
            assert_eq!(edge["failed"], 0, "{edge}");
            let (p50, p99) =
                (edge["p50Ms"].as_f64().expect("a number"), edge["p99Ms"].as_f64().expect("a number"));
            assert!(requests >= 22 * 60 && 0.0 < p50 && p50 <= p99, "{edge}");
        }
        assert_eq!(report["requests"], sum, "{report}");
    }
}
