//! `meshctl snapshot`: the whole state as a file, its proof, and the way back.

use std::{
    fs,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{Context, SHA256};
use model::{
    client::Client,
    saved::{CHECKSUM_BYTES, Damaged, FIXED_BYTES, HEAD_BYTES_MAX, Head, OLD_MAGIC, SAVED_BYTES_MAX},
};
use serde_json::Value;

use crate::{
    cli::Snapshot,
    output::{self, Rows, confirm, hint, line, text},
};

/// What is read at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Runs what asks the control plane, or none.
pub(super) async fn run(
    client: impl FnOnce() -> anyhow::Result<Client>,
    command: Snapshot,
) -> anyhow::Result<()> {
    match command {
        Snapshot::Save { file } => save(&client()?, &file).await,
        Snapshot::Verify { file, output } => {
            let found = verify(&file)?;
            output::print(output.output, &found.head, || found.rows())
        }
        Snapshot::Restore { file, yes, dry_run } => restore(&client()?, &file, yes, dry_run).await,
    }
}

/// What a file was found to be.
struct Found {
    bytes: u64,
    /// `None`: version 0.1.0 saved it, whose files say nothing of themselves.
    head: Option<Head>,
}

async fn save(client: &Client, file: &Path) -> anyhow::Result<()> {
    let mut response = client.download("/v1/snapshot").await?;
    let temporary = temporary(file)?;
    let mut partial = create(file, &temporary)?;
    while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
        partial.write_all(&chunk).with_context(|| format!("cannot write {}", temporary.display()))?;
    }
    partial.sync_all()?;
    drop(partial);
    let found = match verify(&temporary) {
        Ok(found) => found,
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            return Err(error.context("what came is not whole; nothing was saved"));
        }
    };
    fs::rename(&temporary, file).with_context(|| format!("cannot write {}", file.display()))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()?;
    hint(&format!("{}; it holds secrets: keep it as you keep keys", found.summary()));
    line(&format!("snapshot saved to {}", file.display()))
}

async fn restore(client: &Client, file: &Path, yes: bool, dry_run: bool) -> anyhow::Result<()> {
    let found = verify(file)?;
    hint(&found.summary());
    if !dry_run && !yes {
        confirm(
            "Operators' objects become those of the snapshot; what was configured since is lost. All clients start anew.",
        )?;
    }
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let path = if dry_run { "/v1/snapshot?dryRun=true" } else { "/v1/snapshot" };
    let answer: Value = client.upload(path, bytes).await?;
    if dry_run {
        return line("the control plane would take it (dry run)");
    }
    let (revision, epoch) = (text(&answer, "/revision"), text(&answer, "/epoch"));
    line(&format!("snapshot restored: revision {revision}, epoch {epoch}"))
}

/// Proves a file by itself, piece by piece.
fn verify(file: &Path) -> anyhow::Result<Found> {
    let found = check(file).with_context(|| file.display().to_string())?;
    Ok(found)
}

fn check(file: &Path) -> anyhow::Result<Found> {
    let bytes = fs::metadata(file)?.len();
    if bytes > SAVED_BYTES_MAX as u64 {
        bail!(Damaged::Large { bytes });
    }
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, fs::File::open(file)?);
    let mut start = Vec::new();
    reader.by_ref().take((FIXED_BYTES + HEAD_BYTES_MAX) as u64).read_to_end(&mut start)?;
    if start.starts_with(OLD_MAGIC) {
        return check_old(file).map(|()| Found { bytes, head: None });
    }
    let (head, used) = Head::parse(&start)?;
    let content = bytes.checked_sub(CHECKSUM_BYTES as u64).filter(|&content| content >= used as u64);
    let mut left = content.ok_or(Damaged::Cut)?;
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, fs::File::open(file)?);
    let (mut sum, mut chunk) = (Context::new(&SHA256), vec![0; CHUNK_BYTES]);
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        reader.read_exact(&mut chunk[..wanted])?;
        sum.update(&chunk[..wanted]);
        left -= wanted as u64;
    }
    let mut claimed = [0; CHECKSUM_BYTES];
    reader.read_exact(&mut claimed)?;
    if sum.finish().as_ref() != claimed {
        bail!(Damaged::Checksum);
    }
    Ok(Found { bytes, head: Some(head) })
}

/// Magic, format (u16), length (u64), SHA-256 of the rest.
fn check_old(file: &Path) -> anyhow::Result<()> {
    const HEAD: usize = 8 + 2 + 8 + 32;
    let bytes = fs::read(file)?;
    let (head, body) = bytes.split_at_checked(HEAD).ok_or(Damaged::Cut)?;
    let mut sum = Context::new(&SHA256);
    sum.update(body);
    if head[18..] != *sum.finish().as_ref() || head[10..18] != (body.len() as u64).to_le_bytes() {
        bail!(Damaged::Checksum);
    }
    Ok(())
}

impl Found {
    fn summary(&self) -> String {
        match &self.head {
            Some(head) => format!(
                "snapshot of revision {} at {}, {} objects, {} bytes",
                head.revision,
                head.time,
                head.count(),
                self.bytes
            ),
            None => format!("snapshot of version 0.1.0, {} bytes", self.bytes),
        }
    }

    fn rows(&self) -> Rows {
        let mut rows = vec![("file", "sound".to_owned()), ("bytes", self.bytes.to_string())];
        match &self.head {
            None => rows.push(("saved by", "version 0.1.0, which does not say what is in it".to_owned())),
            Some(head) => {
                rows.extend([
                    ("revision", head.revision.to_string()),
                    ("epoch", head.epoch.clone()),
                    ("cluster", head.cluster.clone()),
                    ("time", head.time.to_string()),
                    ("saved at", head.saved_at.to_string()),
                    ("saved by", format!("version {}", head.program)),
                    ("objects", head.count().to_string()),
                ]);
            }
        }
        let mut rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
        for (kind, count) in self.head.iter().flat_map(|head| &head.objects) {
            rows.push(vec![format!("  {kind}"), count.to_string()]);
        }
        Rows { header: vec!["what", "value"], rows }
    }
}

/// Beside the file, so that it can be renamed to it.
fn temporary(file: &Path) -> anyhow::Result<PathBuf> {
    let mut name = file.file_name().context("name a file")?.to_owned();
    name.push(".partial");
    Ok(file.with_file_name(name))
}

fn create(file: &Path, temporary: &Path) -> anyhow::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    if file.exists() {
        bail!("{} exists; name another file", file.display());
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(temporary).with_context(|| format!("cannot write {}", temporary.display()))
}
