//! Pure. Namespace.

use super::Rules;
use crate::shape::{Text, record};

/// The namespaces that always exist.
pub const BUILT_IN: [&str; 2] = ["default", "mesh-system"];

record! {
    /// A space of names.
    pub struct NamespaceSpec {
        /// For people.
        "description" description: Option<Text<1024>>,
    }
}

impl Rules for NamespaceSpec {}
