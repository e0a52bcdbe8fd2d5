//! Pure. Namespace.

use super::Rules;
use crate::shape::{Text, record};

/// The namespace of what holds for the whole mesh.
pub const OF_THE_MESH: &str = "mesh-system";
/// The namespaces that always exist.
pub const BUILT_IN: [&str; 2] = ["default", OF_THE_MESH];

record! {
    /// A space of names.
    pub struct NamespaceSpec {
        /// For people.
        "description" description: Option<Text<1024>>,
    }
}

impl Rules for NamespaceSpec {}
