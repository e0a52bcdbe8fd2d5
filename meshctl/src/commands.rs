//! The verbs: each asks the API and prints the answer.

use std::{io::Read, path::Path};

use anyhow::{Context as _, bail};
use clap::CommandFactory;
use model::{
    client::{Applied, Client, Selection},
    kind::Kind,
    manifest,
    name::Name,
    object::Key,
    read::Freshness,
    rollout::Waiting,
};

use crate::{
    cli::{Cli, Command, Format, Place, Target},
    columns, context,
    output::{self, Rows, hint, line},
};

mod cluster;
mod contexts;
mod explain;
mod import;
mod past;
mod requests;
mod snapshot;
mod status;
mod token;
mod watch;

/// The namespace of objects where none is named.
const DEFAULT_NAMESPACE: &str = "default";

/// Runs what the command line says.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { connection, command } = cli;
    let client = || context::connect(&connection);
    match command {
        Command::Apply { files, dry_run: true, output, .. } => {
            let applied = client()?.apply(read_manifests(&files)?, true).await?;
            print_applied(&applied, " (dry run)", output.output)
        }
        Command::Apply { files, rollout, output, .. } => {
            apply(&client()?, &files, rollout.waiting(), output.output).await
        }
        Command::Get { kind, name: Some(name), place, read, output, .. } => {
            show_one(&client()?, kind, &place.key(kind, name), read.freshness(), output.output).await
        }
        Command::Get { kind, place, all_namespaces, selector, read, output, .. } => {
            let namespace = if all_namespaces || !kind.namespaced() { None } else { Some(place.name()) };
            let selection = Selection { namespace, labels: selector };
            show_all(&client()?, kind, selection, read.freshness(), output.output).await
        }
        Command::Describe { target } => describe(&client()?, target).await,
        Command::Delete { kind: Some(kind), name: Some(name), place, .. } => {
            delete(&client()?, place.key(kind, name)).await
        }
        Command::Delete { files, .. } => delete_all(&client()?, &files).await,
        Command::Watch { kinds, namespace, from, output } => {
            watch::run(&client()?, &kinds, namespace, from, output.output).await
        }
        Command::Status { output } => status::run(&client()?, output.output).await,
        Command::Proxies { output } => status::proxies(&client()?, output.output).await,
        Command::Token { command } => token::run(&client()?, command).await,
        Command::Cluster { command } => cluster::run(&client()?, command).await,
        Command::Ca { command } => cluster::ca(&client()?, command).await,
        Command::Snapshot { command } => snapshot::run(client, command).await,
        Command::History { kind, name, place, from, limit, output } => {
            past::history(&client()?, past::Past { kind, name, place, from, limit }, output.output).await
        }
        Command::Diff { files, from: Some(from), to } if files.is_empty() => {
            past::diff_revisions(&client()?, from, to).await
        }
        Command::Diff { files, .. } => past::diff_files(&client()?, &files).await,
        Command::Rollback { revision, dry_run, yes } => {
            past::rollback(&client()?, revision, dry_run, yes).await
        }
        Command::Explain(explain) => explain::run(&client()?, &explain).await,
        Command::Import { command } => import::run(client, command).await,
        Command::Context { command } => contexts::run(&connection, command),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "meshctl", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { folder: Some(folder) } => Ok(clap_mangen::generate_to(Cli::command(), folder)?),
        Command::Man { folder: None } => {
            Ok(clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?)
        }
    }
}

async fn apply(
    client: &Client,
    files: &[std::path::PathBuf],
    waiting: Option<Waiting>,
    format: Format,
) -> anyhow::Result<()> {
    let manifest = read_manifests(files)?;
    let Some(waiting) = waiting else {
        return print_applied(&client.apply(manifest, false).await?, "", format);
    };
    let applied = client.apply_and_wait(manifest, &waiting).await?;
    print_applied(&applied, "", format)?;
    match applied.rollout() {
        Some(rollout) if rollout.has_reached(waiting.quorum) => {
            hint(&rollout.to_string());
            Ok(())
        }
        Some(rollout) => bail!("it was written, and stands, but {rollout}"),
        None => bail!("it was written, but this server does not say what the proxies run"),
    }
}

fn print_applied(applied: &Applied, note: &str, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => {
            for result in &applied.results {
                let place =
                    result.namespace.as_ref().map_or(String::new(), |namespace| format!("{namespace}/"));
                line(&format!("{} {place}{} {}{note}", result.kind, result.name, result.outcome))?;
            }
            Ok(())
        }
        other => output::print(other, &applied.items, || Rows { header: Vec::new(), rows: Vec::new() }),
    }
}

async fn show_one(
    client: &Client,
    kind: Kind,
    key: &Key,
    freshness: Freshness,
    format: Format,
) -> anyhow::Result<()> {
    let object = client.read(key, freshness).await?;
    output::print(format, &object, || columns::rows(kind, std::slice::from_ref(&object), false))
}

async fn show_all(
    client: &Client,
    kind: Kind,
    selection: Selection,
    freshness: Freshness,
    format: Format,
) -> anyhow::Result<()> {
    let list = client.read_list(kind, &selection, freshness).await?;
    if list.items.is_empty() && format == Format::Table {
        let place =
            selection.namespace.map_or(String::new(), |namespace| format!(" in namespace {namespace}"));
        hint(&format!("no {}{place}", kind.plural()));
        return Ok(());
    }
    let whole =
        serde_json::json!({"items": list.items, "metadata": {"revision": list.revision, "continue": ""}});
    output::print(format, &whole, || columns::rows(kind, &list.items, selection.namespace.is_none()))
}

async fn describe(client: &Client, target: Target) -> anyhow::Result<()> {
    let Target { kind, name, place } = target;
    let object = client.get(&place.key(kind, name)).await?;
    line(output::yaml(&object)?.trim_end())?;
    if kind == Kind::Service {
        let key = object.key();
        let endpoints =
            client.list(Kind::Endpoint, &Selection { namespace: key.namespace, labels: None }).await?;
        let own: Vec<_> = endpoints
            .items
            .into_iter()
            .filter(|endpoint| endpoint.spec["service"] == key.name.as_str())
            .collect();
        line("\nEndpoints:")?;
        output::print(Format::Table, &own, || columns::rows(Kind::Endpoint, &own, false))?;
    }
    Ok(())
}

async fn delete(client: &Client, key: Key) -> anyhow::Result<()> {
    client.delete(&key).await?;
    line(&format!("{key} deleted"))
}

async fn delete_all(client: &Client, files: &[std::path::PathBuf]) -> anyhow::Result<()> {
    // In the manifest's reverse order: what stands below needs what stands above.
    let parsed = manifest::parse(&read_manifests(files)?)?;
    for parsed in parsed.into_iter().rev() {
        match client.delete(&parsed.object.key()).await {
            Err(error) if error.status() == Some(404) => {
                hint(&format!("{} is not there", parsed.object.key()))
            }
            Err(error) => return Err(error.into()),
            Ok(_) => line(&format!("{} deleted", parsed.object.key()))?,
        }
    }
    Ok(())
}

/// All files as one manifest, so that they are applied together or not at all.
fn read_manifests(files: &[std::path::PathBuf]) -> anyhow::Result<String> {
    let mut objects = Vec::new();
    for file in files {
        let text = read(file)?;
        objects.extend(manifest::values(&text).with_context(|| file.display().to_string())?);
    }
    if objects.is_empty() {
        bail!("the manifests hold no objects");
    }
    Ok(serde_json::to_string(&serde_json::json!({ "items": objects }))?)
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

impl Place {
    fn name(&self) -> Name {
        self.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.parse().expect("a label"))
    }

    fn key(&self, kind: Kind, name: Name) -> Key {
        if kind.namespaced() { Key::namespaced(kind, self.name(), name) } else { Key::mesh_wide(kind, name) }
    }
}
