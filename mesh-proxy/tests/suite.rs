//! Every protocol through two proxies, and what becomes of it when something fails.
//!
//! One program, as each of its own would be linked with all that is tested: minutes on two cores.

mod world;

mod answers;
mod callers;
mod chaos;
mod conduct;
mod failures;
mod http1;
mod http2_streams;
mod keep;
mod lookups;
mod mux;
mod pass_through;
mod policies;
mod routing;
mod smuggling;
mod spines;

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
