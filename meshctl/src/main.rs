//! `meshctl`: the operator's command. It speaks the REST API and nothing else; what it prints on stdout is the
//! result, all else goes to stderr.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod columns;
mod commands;
mod context;
mod diff;
mod import;
mod output;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}
