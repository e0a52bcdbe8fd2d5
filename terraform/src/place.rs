//! Pure. Where in a configuration the API's words belong: `spec.rules[0].backendRefs[1].weight` as Terraform's path.

use model::invalid::FieldError;

use crate::{
    schema::{Field, Type},
    value::Value,
    wire::{AttributePath, Selector, Step},
};

/// A place in a configuration.
pub(crate) struct Place<'a> {
    /// The way there, as far as there are attributes.
    pub(crate) path: AttributePath,
    /// What stands there.
    value: &'a Value,
    /// What it is a part of.
    holder: &'a Value,
}

impl<'a> Place<'a> {
    /// The place that a path of the API means in `value`, whose attributes are `fields`.
    pub(crate) fn of(fields: &[Field], value: &'a Value, path: &str) -> Self {
        let mut walk = Walk { place: Place { path: AttributePath::default(), value, holder: value } };
        match path.strip_prefix("metadata.") {
            // No rule about a name or a label looks at anything else.
            Some(path) => {
                walk.record(fields, path);
                walk.place.holder = walk.place.value;
            }
            None => walk.record(fields, path),
        }
        walk.place
    }

    /// Whether what the API says of this place is true whatever will be known later: it is of a value that is known,
    /// in a record that is known.
    pub(crate) fn settled(&self) -> bool {
        let scalar = matches!(self.value, Value::Bool(_) | Value::Number(_) | Value::Text(_));
        scalar && self.holder.known()
    }
}

/// What is to be told of a configuration, of all that is wrong with it: the rest may be mended by what is not known yet.
pub(crate) fn told<'e>(
    fields: &[Field],
    value: &Value,
    errors: &'e [FieldError],
) -> Vec<(AttributePath, &'e FieldError)> {
    let complete = value.known();
    let placed = errors.iter().map(|error| (Place::of(fields, value, &error.path), error));
    placed
        .filter(|(place, _)| complete || place.settled())
        .map(|(place, error)| (place.path, error))
        .collect()
}

/// The place of a top-level attribute.
pub(crate) fn attribute(name: &str) -> AttributePath {
    AttributePath { steps: vec![step(Selector::Attribute(name.to_owned()))] }
}

fn step(selector: Selector) -> Step {
    Step { selector: Some(selector) }
}

struct Walk<'a> {
    place: Place<'a>,
}

impl<'a> Walk<'a> {
    fn go(&mut self, selector: Selector, value: &'a Value) {
        self.place.path.steps.push(step(selector));
        self.place.holder = self.place.value;
        self.place.value = value;
    }

    fn record(&mut self, fields: &[Field], path: &str) {
        let end = path.find(['.', '[']).unwrap_or(path.len());
        let (name, rest) = path.split_at(end);
        let Some(field) = fields.iter().find(|field| field.wire == name) else { return };
        let value = self.place.value.attribute(&field.name);
        self.go(Selector::Attribute(field.name.clone()), value);
        self.within(&field.of, rest);
    }

    /// `rest` begins with `.` or `[`, or is empty.
    fn within(&mut self, of: &Type, rest: &str) {
        match of {
            _ if rest.is_empty() => {}
            Type::Record(fields) => self.record(fields, rest.trim_start_matches('.')),
            Type::List(of) => self.element(of, rest),
            // A label's key has dots of its own: all that follows is the key.
            Type::Map(_) => {
                let key = rest.trim_start_matches('.');
                let value = self.place.value.attribute(key);
                self.go(Selector::Key(key.to_owned()), value);
            }
            _ => {}
        }
    }

    fn element(&mut self, of: &Type, rest: &str) {
        let Some((index, rest)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
            return;
        };
        let Ok(index) = index.parse::<usize>() else { return };
        let value = match self.place.value {
            Value::List(elements) => elements.get(index).unwrap_or(&Value::Null),
            _ => &Value::Null,
        };
        self.go(Selector::Index(i64::try_from(index).unwrap_or(i64::MAX)), value);
        self.within(of, rest);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::schema::resources;

    fn object(fields: &[(&str, Value)]) -> Value {
        Value::Object(
            fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect::<BTreeMap<_, _>>(),
        )
    }

    fn service(port: Value, protocol: Value) -> Value {
        let port = object(&[("port", port), ("protocol", protocol)]);
        object(&[("name", Value::text("orders")), ("spec", object(&[("ports", Value::List(vec![port]))]))])
    }

    fn fields() -> Vec<Field> {
        resources().into_iter().find(|resource| resource.name == "mesh_service").expect("services").fields
    }

    #[track_caller]
    fn check(path: &str, want: &[&str]) {
        let value = service(Value::Null, Value::Null);
        let steps = Place::of(&fields(), &value, path).path.steps;
        let steps: Vec<_> = steps
            .into_iter()
            .map(|step| match step.selector.expect("it goes somewhere") {
                Selector::Attribute(name) => name,
                Selector::Key(key) => format!("{key:?}"),
                Selector::Index(index) => index.to_string(),
            })
            .collect();
        assert_eq!(steps, want, "{path}");
    }

    #[test]
    fn paths_of_the_api_are_paths_of_terraform() {
        check("spec.ports[0].targetPort", &["spec", "ports", "0", "target_port"]);
        check(
            "spec.subsets[12].labels.app.kubernetes.io/name",
            &["spec", "subsets", "12", "labels", "\"app.kubernetes.io/name\""],
        );
        check("metadata.namespace", &["namespace"]);
        check("metadata.labels.team", &["labels", "\"team\""]);
        check("spec.later.than[1].this", &["spec"]);
        check("kind", &[]);
    }

    #[test]
    fn what_may_be_mended_by_what_is_not_known_yet_is_not_told() {
        let error = |path: &str| FieldError { path: path.to_owned(), message: String::new() };
        let errors = [error("spec.ports[0].port"), error("spec.ports[0].protocol"), error("spec.ports")];
        let count = |port, protocol| told(&fields(), &service(port, protocol), &errors).len();
        let (port, protocol) = (Value::Number(70_000.into()), Value::text("smtp"));
        assert_eq!(count(port.clone(), protocol.clone()), 3, "all is known");
        assert_eq!(count(Value::unknown(), protocol), 0, "it stands beside what is not known");
        assert_eq!(count(port, Value::unknown()), 0);
        let name = [error("metadata.name")];
        let told = |value: &Value| told(&fields(), value, &name).len();
        assert_eq!(told(&service(Value::unknown(), Value::Null)), 1, "a name is right or wrong by itself");
    }
}
