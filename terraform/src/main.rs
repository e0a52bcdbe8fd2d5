//! `terraform-provider-mesh`: Terraform starts it and asks; it asks the REST API of a control plane and nothing else. What
//! resources there are, and their attributes, follows from the model.

use std::{io::Write, path::Path, process::ExitCode};

mod control;
mod data;
mod diagnostic;
mod lifecycle;
mod object;
mod pages;
mod place;
mod plugin;
mod provider;
mod rehearsal;
mod schema;
mod settings;
mod value;
mod waiting;
mod wire;

const USAGE: &str = "terraform-provider-mesh is started by Terraform, which finds it in a mirror; see docs/terraform.\n\
                     `terraform-provider-mesh docs FOLDER` writes the pages of its resources.";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => plugin::serve().await,
        ["docs", folder] => pages::write(Path::new(folder)).map_err(anyhow::Error::from),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where Terraform reads what a provider has to say beside its answers.
            _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}
