//! docs/api.md is typed as it stands, and answers as it says.

mod heavy {
    use std::process::Command;

    use mesh_tests::{
        dev::Dev,
        foreign::program,
        scratch::{Said, Scratch},
        tour,
    };

    const MANUAL: &str = include_str!("../../docs/api.md");

    /// The blocks of the manual in a language.
    fn blocks(language: &str) -> Vec<&'static str> {
        let fence = format!("```{language}\n");
        MANUAL.split(fence.as_str()).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect()
    }

    fn run(dev: &Dev, mut command: Command) -> Said {
        command.env("MESH_ADDR", &dev.addr).env("MESH_TOKEN", &dev.token).env("MESH_CACERT", &dev.cacert);
        command.output().expect("it starts").into()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_the_manual_types_is_answered_as_it_says() {
        let scratch = Scratch::new("api-tour");
        let dev = Dev::start(scratch.path()).await.expect("a server");
        let prelude = blocks("sh").concat();
        let mut typed = 0;
        for (command, answer) in blocks("console").into_iter().flat_map(tour::typed) {
            let mut shell = program("bash");
            shell.args(["-euo", "pipefail", "-c", &format!("{prelude}{command}")]);
            let said = run(&dev, shell).fine();
            assert!(tour::answers(&said, &answer), "{command} answered\n{said}, not\n{}", answer.join("\n"));
            typed += 1;
        }
        assert!(typed >= 12, "{typed} commands");
        let [script] = blocks("python")[..] else { panic!("one program") };
        let mut python = program("python3");
        python.args(["-c", script]);
        let [answer] = blocks("text")[..] else { panic!("one answer") };
        assert_eq!(run(&dev, python).fine(), answer);
    }
}
