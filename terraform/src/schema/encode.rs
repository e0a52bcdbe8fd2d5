//! Pure. Attributes as Terraform is told of them.

use serde_json::{Value as Json, json};

use super::{Field, Given, Type};
use crate::wire::{self, Block, Nested, schema::Nesting};

/// A schema of these attributes.
pub(crate) fn encode(about: &str, fields: &[Field]) -> wire::Schema {
    let block = Block { attributes: fields.iter().map(attribute).collect(), description: about.to_owned() };
    wire::Schema { version: 0, block: Some(block) }
}

fn attribute(field: &Field) -> wire::Attribute {
    let nested = nested(&field.of);
    wire::Attribute {
        name: field.name.clone(),
        of_type: if nested.is_some() { Vec::new() } else { written(&field.of).to_string().into_bytes() },
        description: field.description(),
        required: field.given == Given::Required,
        optional: matches!(field.given, Given::Optional | Given::OptionalSecret),
        computed: matches!(field.given, Given::Computed | Given::Secret),
        sensitive: matches!(field.given, Given::Secret | Given::OptionalSecret),
        nested,
    }
}

fn nested(of: &Type) -> Option<Nested> {
    let (fields, nesting) = match of {
        Type::Record(fields) => (fields, Nesting::Single),
        Type::List(of) => (as_record(of)?, Nesting::List),
        Type::Map(of) => (as_record(of)?, Nesting::Map),
        _ => return None,
    };
    Some(Nested { attributes: fields.iter().map(attribute).collect(), nesting: nesting as i32 })
}

fn as_record(of: &Type) -> Option<&Vec<Field>> {
    match of {
        Type::Record(fields) => Some(fields),
        _ => None,
    }
}

/// A type in Terraform's own JSON.
fn written(of: &Type) -> Json {
    match of {
        Type::Bool => json!("bool"),
        Type::Number => json!("number"),
        Type::Text => json!("string"),
        Type::List(of) => json!(["list", written(of)]),
        Type::Map(of) => json!(["map", written(of)]),
        Type::Record(fields) => {
            let types = fields.iter().map(|field| (field.name.clone(), written(&field.of)));
            json!(["object", types.collect::<serde_json::Map<_, _>>()])
        }
    }
}

impl Field {
    /// All that is to be said of it.
    pub(crate) fn description(&self) -> String {
        let default = match &self.default {
            Some(default) if !default.is_object() => format!("Default: `{}`.", plain(default)),
            _ => String::new(),
        };
        let said = [self.about.as_str(), &self.bounds, &default];
        said.into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
