//! Each example of the description is sent as it stands, and taken.

use meshd::api::openapi;
use model::kind::Kind;
use reqwest::Method;
use serde_json::Value;

use crate::script::World;

/// The examples of a body, each with its media type.
fn examples(operation: &Value) -> Vec<(String, String)> {
    let content = operation["requestBody"]["content"].as_object();
    let content = content.into_iter().flatten();
    let example = |(media, body): (&String, &Value)| {
        let text = match &body["example"] {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        Some((media.clone(), text))
    };
    content.filter_map(example).collect()
}

/// A path with the names of its example in it.
fn filled(path: &str, example: &Value) -> String {
    let name = |field: &str| example["metadata"][field].as_str().unwrap_or_default();
    path.replace("{namespace}", name("namespace")).replace("{name}", name("name"))
}

async fn sent(world: &World, method: &Method, path: &str, (media, body): (String, String)) -> (u16, String) {
    let request = world.client.request(method.clone(), format!("{}{path}", world.dev.address));
    let request = request.bearer_auth(&world.dev.token).header("content-type", media).body(body);
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

#[tokio::test]
async fn every_example_of_the_description_is_taken() {
    let (world, document) = (World::new().await, openapi::document());
    let mut taken = 0;
    for &kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Endpoint) {
        let (one, _) = openapi::paths(kind);
        let mut written = Value::Null;
        for (method, wanted) in [(Method::PUT, 201), (Method::PATCH, 200)] {
            let operation = &document["paths"][&one][method.as_str().to_ascii_lowercase()];
            let [example] = &examples(operation)[..] else { panic!("{method} {one} has one example") };
            if method == Method::PUT {
                written = serde_json::from_str(&example.1).expect("JSON");
            }
            let path = filled(&one, &written);
            let (status, body) = sent(&world, &method, &path, example.clone()).await;
            assert_eq!(status, wanted, "{method} {path}: {body}");
            taken += 1;
        }
    }
    for (path, item) in
        document["paths"].as_object().expect("paths").iter().filter(|(path, _)| !path.contains('{'))
    {
        for example in examples(&item["post"]) {
            // What is there is not to be taken back.
            let path = if path == "/v1/rollback" { "/v1/rollback?dryRun=true" } else { path };
            let (status, body) = sent(&world, &Method::POST, path, example).await;
            assert_eq!(status, 200, "{path}: {body}");
            taken += 1;
        }
    }
    assert!(taken >= 2 * 13 + 4, "{taken} examples");
}
