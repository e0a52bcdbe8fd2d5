//! `meshctl watch`: changes as they come.

use model::{
    client::{Client, Selection},
    kind::Kind,
    name::Name,
    watch::Event,
};

use crate::{
    cli::Format,
    output::{self, line},
};

pub(super) async fn run(
    client: &Client,
    kinds: &[Kind],
    namespace: Option<Name>,
    from: Option<u64>,
    format: Format,
) -> anyhow::Result<()> {
    let selection = Selection { namespace, labels: None };
    let mut events = client.watch(kinds, &selection, from).await?;
    while let Some(event) = events.next().await? {
        print(&event, format)?;
        if let Event::Error { oldest, .. } = event {
            anyhow::bail!(
                "the stream ended: too slow, or revision compacted; the oldest that can be resumed from is {oldest}"
            );
        }
    }
    anyhow::bail!("the control plane ended the stream")
}

fn print(event: &Event, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => line(&serde_json::to_string(event)?),
        Format::Yaml => line(&format!("---\n{}", output::yaml(event)?.trim_end())),
        Format::Table => match event {
            Event::Put { revision, object, .. } => line(&format!("{revision}\tput\t{}", object.key())),
            Event::Delete { revision, object, .. } => line(&format!("{revision}\tdelete\t{}", object.key())),
            Event::Bookmark { revision } => line(&format!("{revision}\tbookmark")),
            Event::Error { .. } => Ok(()),
        },
    }
}
