//! Pure. Where a DiscoverySource of type File is.

use super::directory::absolute;
use crate::shape::{Decoder, Path, Text, record};

record! {
    /// A YAML file; each server needs the same one.
    pub struct FileSource {
        /// Its absolute path.
        "path" path: Text<4096>,
    }
}

impl FileSource {
    pub(super) fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        absolute(&self.path, &Path::Field(at, "path"), decoder);
    }
}
