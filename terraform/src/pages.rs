//! The pages of docs/terraform.

use std::{io, path::Path};

/// Writes a page for each resource and data source into `folder`.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)
}
