//! Data sources: what the mesh knows, for other resources to build on. What it says is taken as the API says it.

use model::{
    client::{ClientError, Selection},
    kind::Kind,
    object::Object,
    resource::{EndpointSpec, EndpointStatus, Resource},
    shape::Shape,
};
use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::{
    control::Control,
    object::value_of,
    schema::{Field, Given, Type},
    value::Value,
};

mod shapes;

/// A data source.
pub(crate) struct DataSource {
    /// `mesh_cluster`.
    pub(crate) name: String,
    /// One sentence about it.
    pub(crate) about: String,
    /// Its attributes.
    pub(crate) fields: Vec<Field>,
    of: Source,
}

#[derive(Clone, Copy)]
enum Source {
    CaBundle,
    Cluster,
    Proxies,
    Service,
}

/// Why there is nothing to be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// The names make no object's.
    #[error("namespace and name must be RFC 1123 labels")]
    Names,
    /// The API refused, or is not there.
    #[error(transparent)]
    Failed(#[from] ClientError),
}

/// All of them, in the order of their names.
pub(crate) fn sources() -> Vec<DataSource> {
    let of = |name: &str, about: &str, fields: Vec<Field>, of: Source| DataSource {
        name: name.to_owned(),
        about: about.to_owned(),
        fields,
        of,
    };
    vec![
        of(
            "mesh_ca_bundle",
            "Whom the mesh trusts: its root certificates.",
            answer(&shapes::ca_bundle()),
            Source::CaBundle,
        ),
        of(
            "mesh_cluster",
            "The servers of the control plane. For administrators.",
            answer(&shapes::cluster()),
            Source::Cluster,
        ),
        of(
            "mesh_proxies",
            "The hosts' proxies, and what each runs.",
            answer(&shapes::proxies()),
            Source::Proxies,
        ),
        of(
            "mesh_service",
            "A service: its virtual IPs, its name in DNS, and its endpoints.",
            service(),
            Source::Service,
        ),
    ]
}

impl DataSource {
    /// What it says now.
    ///
    /// # Errors
    /// [`Unread`].
    pub(crate) async fn read(&self, control: &Control, config: &Value) -> Result<Value, Unread> {
        let json = match self.of {
            Source::CaBundle => with_pem(get(control, "/v1/ca/bundle").await?),
            Source::Cluster => get(control, "/v1/cluster").await?,
            Source::Proxies => json!({"proxies": listed(get(control, "/v1/proxies").await?)}),
            Source::Service => read_service(control, config).await?,
        };
        // What a newer server says beyond this is nothing that a plan could lose.
        let mut beyond = Vec::new();
        Ok(value_of(&Type::Record(self.fields.clone()), &json, "", &mut beyond))
    }
}

async fn get(control: &Control, path: &str) -> Result<Json, ClientError> {
    control.ask(|client| async move { client.json(Method::GET, path, None).await }).await.answer
}

/// A list by itself, or the items of one.
fn listed(mut answer: Json) -> Json {
    if answer.is_array() { answer } else { answer["items"].take() }
}

/// The roots as one text, which is what programs read.
fn with_pem(mut bundle: Json) -> Json {
    let roots: Vec<_> = bundle["roots"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let pem: String = roots.iter().map(|root| format!("{}\n", root.trim_end())).collect();
    bundle["pem"] = json!(pem);
    bundle
}

async fn read_service(control: &Control, config: &Value) -> Result<Json, Unread> {
    let key = crate::object::key(Kind::Service, config).ok_or(Unread::Names)?;
    let wanted = &key;
    let service = control.ask(|client| async move { client.get(wanted).await }).await.answer?;
    let selection = &Selection { namespace: key.namespace.clone(), labels: None };
    let endpoints =
        control.ask(|client| async move { client.list(Kind::Endpoint, selection).await }).await.answer?;
    let own =
        endpoints.items.iter().filter(|endpoint| endpoint.spec.get("service") == Some(&json!(key.name)));
    let status = service.status.clone().unwrap_or_default();
    Ok(json!({
        "namespace": key.namespace, "name": key.name, "labels": service.metadata.labels, "spec": service.spec,
        "hostname": status["hostname"], "virtualIPs": status["virtualIPs"],
        "endpoints": own.map(endpoint).collect::<Vec<_>>(),
    }))
}

/// What stands in spec and status, side by side, with every default.
fn endpoint(endpoint: &Object) -> Json {
    let status = endpoint.status.clone().unwrap_or_default();
    let mut shown = match &status["effective"] {
        Json::Object(effective) => effective.clone(),
        _ => endpoint.spec.clone(),
    };
    shown.insert("name".to_owned(), json!(endpoint.metadata.name));
    shown.insert("labels".to_owned(), json!(endpoint.metadata.labels));
    for field in ["health", "stale"] {
        shown.insert(field.to_owned(), status[field].clone());
    }
    Json::Object(shown)
}

fn answer(schema: &Json) -> Vec<Field> {
    match Type::of(schema).answered() {
        Type::Record(fields) => fields,
        _ => Vec::new(),
    }
}

fn service() -> Vec<Field> {
    let named = |name: &str, about: &str| Field {
        about: about.to_owned(),
        ..Field::computed(name, Type::Text, Given::Required)
    };
    let told = |wire: &str, about: &str, of: Type| Field {
        about: about.to_owned(),
        ..Field::computed(wire, of.answered(), Given::Computed)
    };
    let texts = || Type::List(Box::new(Type::Text));
    let virtual_ips = Field {
        name: "virtual_ips".to_owned(),
        ..told("virtualIPs", "The addresses that stand for it on every host.", texts())
    };
    vec![
        named("namespace", "The namespace."),
        named("name", "The name."),
        told("labels", "Its labels.", Type::Map(Box::new(Type::Text))),
        told("spec", "What it says.", Type::of(&Resource::schema(Kind::Service))),
        told("hostname", "Its name in DNS.", Type::Text),
        virtual_ips,
        told("endpoints", "Its running instances.", Type::List(Box::new(Type::Record(endpoint_fields())))),
    ]
}

fn endpoint_fields() -> Vec<Field> {
    let labels = json!({"type": "object", "properties": {
        "name": {"type": "string", "description": "Its name."},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Its labels."},
    }});
    let schemas = [labels, EndpointSpec::schema(), EndpointStatus::schema()];
    schemas.iter().flat_map(|schema| Type::of(schema).fields().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use model::object::Key;

    use super::*;

    #[test]
    fn an_endpoint_shows_what_it_is_and_how_it_is() {
        let key = Key::namespaced(
            Kind::Endpoint,
            "default".parse().expect("a name"),
            "a-1".parse().expect("a name"),
        );
        let mut object = Object::new(key, serde_json::Map::new());
        object.status = Some(
            json!({"effective": {"address": "10.0.0.5", "weight": 1}, "health": "Healthy", "stale": false}),
        );
        let mut beyond = Vec::new();
        let value = value_of(&Type::Record(endpoint_fields()), &endpoint(&object), "", &mut beyond);
        assert_eq!(value.attribute("name"), &Value::text("a-1"));
        assert_eq!(value.attribute("health"), &Value::text("Healthy"));
        assert_eq!((value.attribute("weight"), beyond.len()), (&Value::Number(1.into()), 0));
    }

    #[test]
    fn every_attribute_has_words_and_only_names_are_asked() {
        for source in sources() {
            let asked: Vec<_> = source
                .fields
                .iter()
                .filter(|field| field.given != Given::Computed)
                .map(|field| &field.name[..])
                .collect();
            let want: &[&str] = if source.name == "mesh_service" { &["namespace", "name"] } else { &[] };
            assert_eq!(asked, want, "{}", source.name);
            assert!(source.fields.iter().all(|field| !field.about.is_empty()), "{}", source.name);
        }
    }

    #[test]
    fn roots_are_one_text_too() {
        let bundle = with_pem(json!({"roots": ["a\n", "b"]}));
        assert_eq!(bundle["pem"], json!("a\nb\n"));
        assert_eq!(listed(json!({"items": [1]})), json!([1]));
    }
}
