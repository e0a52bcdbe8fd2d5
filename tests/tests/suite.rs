//! Whole meshes of real programs.
//!
//! One program, as each of its own would be linked with all that is tested: minutes on two cores.

mod abuse;
mod api_tour;
mod callers;
mod capture;
mod cluster;
mod conduct;
mod control_plane_down;
mod damage;
mod demo;
mod discovery;
mod discovery_consul;
mod discovery_growth;
mod discovery_peers;
mod doctor;
mod explain;
mod fleet;
mod foreign;
mod full_disk;
mod guide;
mod hosts;
mod identity;
mod joining;
mod linearizable;
mod load;
mod machine_capture;
mod machine_life;
mod machines;
mod members;
mod membership;
mod meshctl;
mod migrating;
mod names;
mod openapi;
mod packages;
mod plaintext;
mod policies;
mod powercut;
mod provider;
mod readme;
mod renewal;
mod restore;
mod rollback;
mod rollout;
mod sessions;
mod terraform;
mod tracing;
mod versions;
mod watch;

#[test]
fn every_file_here_is_part_of_it() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let part = include_str!("suite.rs");
    for file in std::fs::read_dir(folder).expect("the folder of this file") {
        let name = file.expect("an entry").file_name().into_string().expect("text");
        let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "suite") else { continue };
        assert!(part.lines().any(|line| line == format!("mod {module};")), "{name} is never run");
    }
}
