//! The files of a checkout, as pairs of path and text, for checks that must not touch the disk themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tidy::source::Source;

/// Folders that hold what was made, not what was written; matched against the path from the root.
const SKIPPED: &[&str] = &[
    "target",
    ".git",
    "fuzz/target",
    "fuzz/corpus",
    "fuzz/artifacts",
    "dashboard/dist",
    "dashboard/node_modules",
];

/// A checkout in memory.
pub struct Tree {
    /// Every file's path from the root, with `/`.
    pub paths: BTreeSet<String>,
    /// Every text file.
    pub texts: BTreeMap<String, String>,
    /// Every Rust file, lexed.
    pub sources: Vec<Source>,
}

impl Tree {
    /// From what a caller holds; this is how the checks' own tests make one.
    pub fn of(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let texts: BTreeMap<String, String> = files.into_iter().collect();
        let rust = texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        let mut sources: Vec<Source> = rust.map(|(path, text)| Source::new(path, text)).collect();
        let declared: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
        sources.iter_mut().filter(|source| declared.contains(&source.path)).for_each(Source::declare_test);
        Self { paths: texts.keys().cloned().collect(), texts, sources }
    }

    /// Reads every file below `root` that is not a product of a build.
    pub fn read(root: &Path) -> Result<Self> {
        let mut paths = BTreeSet::new();
        let mut texts = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let entries =
                std::fs::read_dir(root.join(&folder)).with_context(|| format!("{}", folder.display()))?;
            for entry in entries {
                let entry = entry?;
                let path = folder.join(entry.file_name());
                let name = path.to_string_lossy().into_owned();
                if SKIPPED.contains(&name.as_str()) {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    folders.push(path);
                    continue;
                }
                let bytes = std::fs::read(root.join(&path)).with_context(|| name.clone())?;
                texts.extend(String::from_utf8(bytes).ok().map(|text| (name.clone(), text)));
                paths.insert(name);
            }
        }
        Ok(Self { paths, ..Self::of(texts) })
    }

    /// Names of all functions that a test runner runs.
    pub fn test_names(&self) -> BTreeSet<String> {
        let all = self.sources.iter().flat_map(Source::functions);
        all.filter(|function| function.is_test).map(|function| function.name).collect()
    }
}

/// The root of this checkout.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies one folder below the root").to_owned()
}
