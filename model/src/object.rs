//! Pure. The envelope that every object travels and is stored in. What stands in `spec` is the kinds' own matter
//! (`resource`); it is kept as it was written.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    duration::Millis,
    invalid::Invalid,
    kind::Kind,
    name::Name,
    resource::Resource,
    shape::{Decoder, Ignored, Mode, Path, Text, decode_at, describe, record},
};

/// The only version of the envelope: `apiVersion`, which may be left out.
pub const API_VERSION: &str = "mesh/v1";
/// The longest value of a label, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 63;
/// The longest value of an annotation, in bytes.
pub const ANNOTATION_VALUE_BYTES_MAX: usize = 4_096;

/// Labels: names for people and selectors (`version: v2`).
pub type Labels = BTreeMap<LabelKey, Text<LABEL_VALUE_BYTES_MAX>>;

/// What identifies an object: kind, namespace (mesh-wide kinds have none), name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, for kinds that live in one.
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
}

/// An object as it is stored and answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Names and bookkeeping.
    pub metadata: Metadata,
    /// What the user wrote, unchanged.
    pub spec: Map<String, Value>,
    /// What the mesh says of it; never taken from input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// Names and bookkeeping of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// For kinds that live in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// The object's name.
    pub name: Name,
    /// For selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// For people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<LabelKey, Text<ANNOTATION_VALUE_BYTES_MAX>>,
    /// The revision of its last change; 0 before it is stored.
    #[serde(default)]
    pub revision: u64,
    /// When it was made.
    #[serde(default)]
    pub created_at: Millis,
    /// When it was last changed.
    #[serde(default)]
    pub updated_at: Millis,
}

record! {
    /// The part of the metadata that users write.
    pub struct MetadataInput {
        /// The namespace; mesh-wide kinds have none.
        "namespace" namespace: Option<Name>,
        /// The name: an RFC 1123 label.
        "name" name: Name,
        /// For selectors: key to value.
        "labels" labels: Labels,
        /// For people and tools: key to value.
        "annotations" annotations: BTreeMap<LabelKey, Text<ANNOTATION_VALUE_BYTES_MAX>>,
        /// Of the answer that is sent back; ignored.
        "revision" revision: Ignored,
        /// Of the answer that is sent back; ignored.
        "createdAt" created_at: Ignored,
        /// Of the answer that is sent back; ignored.
        "updatedAt" updated_at: Ignored,
    }
}

/// The key of a label or annotation: letters, digits, `.`, `-`, `_` and `/`; 1 to 253 bytes, starting with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey(String);

/// Why a text is not a label's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a label's key must have 1 to 253 letters, digits, '.', '-', '_' or '/', and start with a letter or digit"
)]
pub struct LabelKeyError;

/// An object with its decoded spec.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// As it is to be stored: revision and times are zero, status is absent.
    pub object: Object,
    /// What its spec means.
    pub resource: Resource,
}

// === impl LabelKey ===

impl LabelKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for LabelKey {
    type Err = LabelKeyError;

    fn from_str(text: &str) -> Result<Self, LabelKeyError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
        let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !starts || text.len() > 253 || !text.bytes().all(allowed) {
            return Err(LabelKeyError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::name::as_text!(LabelKey);

// === impl Key ===

impl Key {
    /// The key of a mesh-wide object.
    pub fn mesh_wide(kind: Kind, name: Name) -> Self {
        Self { kind, namespace: None, name }
    }

    /// The key of an object in a namespace.
    pub fn namespaced(kind: Kind, namespace: Name, name: Name) -> Self {
        Self { kind, namespace: Some(namespace), name }
    }

    /// Where it stands in the API: `/v1/namespaces/default/services/orders`.
    pub fn path(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("/v1/namespaces/{namespace}/{}/{}", self.kind.plural(), self.name),
            None => format!("/v1/{}/{}", self.kind.plural(), self.name),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

// === impl Object ===

impl Object {
    /// A new object, not yet stored.
    pub fn new(key: Key, spec: Map<String, Value>) -> Self {
        let metadata = Metadata {
            namespace: key.namespace,
            name: key.name,
            labels: Labels::new(),
            annotations: BTreeMap::new(),
            revision: 0,
            created_at: Millis(0),
            updated_at: Millis(0),
        };
        Self { kind: key.kind, metadata, spec, status: None }
    }

    /// What identifies it.
    pub fn key(&self) -> Key {
        Key { kind: self.kind, namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }

    /// What its spec means, read leniently: another version may have stored it.
    ///
    /// # Errors
    /// The fields that do not fit the kind.
    pub fn resource(&self) -> Result<Resource, Invalid> {
        Resource::decode(self.kind, &self.metadata, &self.spec, Mode::Lenient)
    }

    /// Whether a user who wrote `other` over this changes nothing.
    pub fn same_input(&self, other: &Self) -> bool {
        let (a, b) = (&self.metadata, &other.metadata);
        self.key() == other.key()
            && a.labels == b.labels
            && a.annotations == b.annotations
            && self.spec == other.spec
    }
}

impl Parsed {
    /// Decodes what a user wrote. `kind` is what the path says, where one does.
    ///
    /// # Errors
    /// Every wrong field: unknown ones, wrong types and values, a kind or namespace that does not fit.
    pub fn from_input(value: &Value, kind: Option<Kind>) -> Result<Self, Invalid> {
        let mut decoder = Decoder::new(Mode::Strict);
        let known = ["apiVersion", "kind", "metadata", "spec", "status"];
        let Some(fields) = decoder.object(value, &Path::Root, &known) else {
            decoder.finish()?;
            return Err(Invalid::one("", "must be an object"));
        };
        check_version(fields, &mut decoder);
        let kind = input_kind(fields, kind, &mut decoder);
        let metadata =
            decoder.field::<MetadataInput>(fields, &Path::Root, "metadata", None).map(Metadata::from);
        if let (Some(kind), Some(metadata)) = (kind, &metadata) {
            check_scope(kind, metadata, &mut decoder);
        }
        let spec = input_spec(fields, &mut decoder);
        let resource = match (kind, &spec) {
            (Some(kind), Some(spec)) => Resource::decode_into(kind, metadata.as_ref(), spec, &mut decoder),
            _ => None,
        };
        decoder.finish()?;
        let (Some(kind), Some(metadata), Some(spec), Some(resource)) = (kind, metadata, spec, resource)
        else {
            return Err(Invalid::one("", "is not an object of the mesh"));
        };
        Ok(Self { object: Object { kind, metadata, spec, status: None }, resource })
    }
}

fn check_version(fields: &Map<String, Value>, decoder: &mut Decoder) {
    match fields.get("apiVersion") {
        None => {}
        Some(Value::String(version)) if version == API_VERSION => {}
        Some(other) => {
            decoder.report(
                &Path::Field(&Path::Root, "apiVersion"),
                format_args!("must be {API_VERSION}, is {}", describe(other)),
            );
        }
    }
}

fn input_kind(fields: &Map<String, Value>, expected: Option<Kind>, decoder: &mut Decoder) -> Option<Kind> {
    let at = Path::Field(&Path::Root, "kind");
    match (fields.get("kind"), expected) {
        (None, Some(kind)) => Some(kind),
        (None, None) => {
            decoder.report(&at, "is required");
            None
        }
        (Some(value), expected) => {
            let kind = value.as_str().and_then(Kind::named);
            match (kind, expected) {
                (None, _) => {
                    let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
                    decoder.report(
                        &at,
                        format_args!("must be one of {}; is {}", known.join(", "), describe(value)),
                    );
                }
                (Some(kind), Some(expected)) if kind != expected => {
                    decoder.report(&at, format_args!("must be {expected}, as in the path; is {kind}"));
                }
                _ => {}
            }
            kind
        }
    }
}

fn check_scope(kind: Kind, metadata: &Metadata, decoder: &mut Decoder) {
    let metadata_at = Path::Field(&Path::Root, "metadata");
    let at = Path::Field(&metadata_at, "namespace");
    match (&metadata.namespace, kind.namespaced()) {
        (None, true) => decoder.report(&at, format_args!("is required: {kind} lives in a namespace")),
        (Some(_), false) => decoder.report(&at, format_args!("must be left out: {kind} is mesh-wide")),
        _ => {}
    }
}

fn input_spec(fields: &Map<String, Value>, decoder: &mut Decoder) -> Option<Map<String, Value>> {
    match fields.get("spec") {
        None | Some(Value::Null) => Some(Map::new()),
        Some(Value::Object(spec)) => Some(spec.clone()),
        Some(other) => {
            decoder.report(
                &Path::Field(&Path::Root, "spec"),
                format_args!("must be an object, is {}", describe(other)),
            );
            None
        }
    }
}

impl From<MetadataInput> for Metadata {
    fn from(input: MetadataInput) -> Self {
        let MetadataInput { namespace, name, labels, annotations, .. } = input;
        Self {
            namespace,
            name,
            labels,
            annotations,
            revision: 0,
            created_at: Millis(0),
            updated_at: Millis(0),
        }
    }
}

/// Decodes a part of an object's status that this version knows the shape of, leniently.
///
/// # Errors
/// The fields that do not fit.
pub fn status<T: crate::shape::Shape>(value: &Value) -> Result<T, Invalid> {
    decode_at(value, &Path::Field(&Path::Root, "status"), Mode::Lenient)
}

#[cfg(test)]
mod tests;
