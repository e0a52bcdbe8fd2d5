//! `meshctl import`: reads what other meshes are told, and prints or applies what it comes to here.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use model::client::Client;

use super::{print_applied, read};
use crate::{
    cli::{Format, Import, ImportOptions, ManifestFormat},
    import::{self, Degree, Imported, Source, Verdict},
    output::{self, hint, line},
};

/// Runs it; `client` is asked for only where something is applied.
pub(super) async fn run(
    client: impl FnOnce() -> anyhow::Result<Client>,
    command: Import,
) -> anyhow::Result<()> {
    let (options, imported) = match command {
        Import::Consul { options, default } => {
            let setting = options.setting(default.verdict())?;
            let imported = import::consul(&sources(&options.files)?, setting);
            (options, imported)
        }
        Import::Kuma { options } => {
            let setting = options.setting(Verdict::closed())?;
            let imported = import::kuma(&sources(&options.files)?, setting);
            (options, imported)
        }
    };
    let imported = imported.map_err(|error| anyhow!(error))?;
    if options.output == ManifestFormat::Yaml {
        tell(&imported);
    }
    if options.apply {
        apply(&client()?, &options, &imported).await
    } else {
        print(options.output, &imported)
    }
}

fn sources(files: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let source = |file: &PathBuf| Ok(Source { file: file.display().to_string(), text: read(file)? });
    files.iter().map(source).collect()
}

fn lost(imported: &Imported) -> usize {
    imported.remarks.iter().filter(|remark| remark.degree == Degree::Lost).count()
}

fn tell(imported: &Imported) {
    for remark in &imported.remarks {
        hint(&remark.to_string());
    }
    let (all, lost) = (imported.remarks.len(), lost(imported));
    hint(&format!("{} objects; {lost} lost, {} differ", imported.items.len(), all - lost));
}

fn print(format: ManifestFormat, imported: &Imported) -> anyhow::Result<()> {
    if format == ManifestFormat::Json {
        return line(&serde_json::to_string_pretty(imported)?);
    }
    let documents = imported.items.iter().map(output::yaml).collect::<anyhow::Result<Vec<_>>>()?;
    let texts: Vec<_> = documents.iter().map(|document| document.trim_end()).collect();
    if texts.is_empty() { Ok(()) } else { line(&texts.join("\n---\n")) }
}

async fn apply(client: &Client, options: &ImportOptions, imported: &Imported) -> anyhow::Result<()> {
    let lost = lost(imported);
    if lost > 0 && !options.partial {
        bail!(
            "{lost} lines would be lost, and nothing is applied: say them by hand and take them out, or add --partial"
        );
    }
    if imported.items.is_empty() {
        bail!("nothing came over");
    }
    let manifest = serde_json::to_string(&serde_json::json!({"items": imported.items}))?;
    let applied = client.apply(manifest, options.dry_run).await?;
    print_applied(&applied, if options.dry_run { " (dry run)" } else { "" }, Format::Table)
}
