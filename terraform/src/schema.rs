//! Pure. What attributes there are: worked out from the JSON schemas of the model, which are the API's own. A field that is
//! declared there is an attribute here, with its words, its default and its bounds.

use model::{kind::Kind, object::MetadataInput, resource::Resource, shape::Shape};
use serde_json::Value as Json;

use crate::waiting;

mod bounds;
mod encode;

pub(crate) use bounds::bounds;
pub(crate) use encode::encode;

/// What an attribute may hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Type {
    /// True or false.
    Bool,
    /// A number.
    Number,
    /// A text.
    Text,
    /// Any number of them, in order.
    List(Box<Type>),
    /// By key.
    Map(Box<Type>),
    /// Attributes of its own.
    Record(Vec<Field>),
}

/// Who says what an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// The user, always.
    Required,
    /// The user, who may leave it out; then it is null, and the mesh's default counts.
    Optional,
    /// The mesh.
    Computed,
    /// The user, who may leave it out, and nobody else is to see it.
    OptionalSecret,
    /// The mesh, once, and nobody else is to see it.
    Secret,
}

/// An attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    /// As Terraform has it: `backend_refs`.
    pub(crate) name: String,
    /// As the API has it: `backendRefs`.
    pub(crate) wire: String,
    /// What it is.
    pub(crate) about: String,
    /// What may stand there, in words; empty where the type says it all.
    pub(crate) bounds: String,
    /// What counts where it is left out.
    pub(crate) default: Option<Json>,
    /// Who says it.
    pub(crate) given: Given,
    /// What it holds.
    pub(crate) of: Type,
}

/// A resource, for a kind that operators write.
#[derive(Debug, Clone)]
pub(crate) struct ResourceType {
    /// The kind.
    pub(crate) kind: Kind,
    /// `mesh_http_route`.
    pub(crate) name: String,
    /// Its attributes.
    pub(crate) fields: Vec<Field>,
}

/// All resources, in the order of their names.
pub(crate) fn resources() -> Vec<ResourceType> {
    // Endpoints are written by proxies and discovery alone.
    let kinds = Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Endpoint);
    let mut resources: Vec<_> = kinds.map(ResourceType::of).collect();
    resources.sort_by(|a, b| a.name.cmp(&b.name));
    resources
}

impl ResourceType {
    fn of(kind: Kind) -> Self {
        let spec = Field {
            about: format!("What it says. {}", kind.about()),
            ..Field::of("spec", &Resource::schema(kind), false)
        };
        let mut fields = metadata(kind);
        fields
            .push(Field { given: if spec.of.demands() { Given::Required } else { Given::Optional }, ..spec });
        fields.extend(waiting::field(kind));
        if kind.has_secret() {
            fields.push(Field {
                about: "The token itself. The mesh tells it once, when it is made, and keeps only its hash: it stands \
                        in Terraform's state and nowhere else, and is null after an import."
                    .to_owned(),
                ..Field::computed("token", Type::Text, Given::Secret)
            });
        }
        Self { kind, name: format!("mesh_{}", snake(kind.as_str())), fields }
    }
}

impl Field {
    /// One that the mesh fills in.
    pub(crate) fn computed(name: &str, of: Type, given: Given) -> Self {
        let (wire, about, bounds) = (name.to_owned(), String::new(), String::new());
        Self { name: snake(name), wire, about, bounds, default: None, given, of }
    }

    /// The field `wire` of a record, by its JSON schema.
    pub(crate) fn of(wire: &str, schema: &Json, required: bool) -> Self {
        Self {
            name: snake(wire),
            wire: wire.to_owned(),
            about: schema["description"].as_str().unwrap_or_default().to_owned(),
            bounds: bounds(schema),
            default: schema.get("default").cloned(),
            given: if required { Given::Required } else { Given::Optional },
            of: Type::of(schema),
        }
    }
}

impl Type {
    /// What a JSON schema of the model allows.
    pub(crate) fn of(schema: &Json) -> Self {
        match schema["type"].as_str() {
            Some("boolean") => Self::Bool,
            Some("integer" | "number") => Self::Number,
            Some("array") => Self::List(Box::new(Self::of(&schema["items"]))),
            Some("object") if schema["additionalProperties"].is_object() => {
                Self::Map(Box::new(Self::of(&schema["additionalProperties"])))
            }
            Some("object") => Self::Record(record(schema)),
            _ => Self::Text,
        }
    }

    /// The attributes, where it has some.
    pub(crate) fn fields(&self) -> &[Field] {
        match self {
            Self::Record(fields) => fields,
            Self::List(of) | Self::Map(of) => of.fields(),
            _ => &[],
        }
    }

    /// Whether it is a record that cannot be empty.
    fn demands(&self) -> bool {
        matches!(self, Self::Record(fields) if fields.iter().any(|field| field.given == Given::Required))
    }

    /// The same, all of it filled in by the mesh.
    pub(crate) fn answered(self) -> Self {
        match self {
            Self::Record(fields) => Self::Record(fields.into_iter().map(Field::answered).collect()),
            Self::List(of) => Self::List(Box::new(of.answered())),
            Self::Map(of) => Self::Map(Box::new(of.answered())),
            scalar => scalar,
        }
    }
}

impl Field {
    /// The same, filled in by the mesh.
    pub(crate) fn answered(self) -> Self {
        Self { given: Given::Computed, of: self.of.answered(), ..self }
    }
}

/// The fields of a record's JSON schema; those that are taken and mean nothing have no type.
fn record(schema: &Json) -> Vec<Field> {
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let typed = properties.filter(|(_, schema)| schema.get("type").is_some());
    typed.map(|(name, schema)| Field::of(name, schema, required.contains(&name.as_str()))).collect()
}

/// What users write of the metadata of a kind: names first.
fn metadata(kind: Kind) -> Vec<Field> {
    let mut fields = record(&MetadataInput::schema());
    fields.retain(|field| field.wire != "namespace" || kind.namespaced());
    for field in &mut fields {
        if field.wire == "namespace" {
            field.given = Given::Required;
            field.about = "The namespace. Another one makes another object.".to_owned();
        }
        if field.wire == "name" {
            field.about = "The name: an RFC 1123 label. Another one makes another object.".to_owned();
        }
    }
    fields.sort_by_key(|field| (field.given != Given::Required, field.name != "namespace"));
    fields
}

/// `backendRefs` as `backend_refs`, `HTTPRoute` as `http_route`.
pub(crate) fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| letters[before]);
        let ends_word = before.is_some_and(|before| before.is_ascii_lowercase() || before.is_ascii_digit());
        let next_small = letters.get(index + 1).is_some_and(char::is_ascii_lowercase);
        let ends_capitals = before.is_some_and(|before| before.is_ascii_uppercase()) && next_small;
        if letter.is_ascii_uppercase() && (ends_word || ends_capitals) {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests;
