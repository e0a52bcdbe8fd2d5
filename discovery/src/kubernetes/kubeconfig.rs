//! Pure. What a kubeconfig says of the cluster of its current context, or of another one: where it is, whom it believes, and
//! as whom it is asked. Whoever logs in by a program, a password or a provider is refused: a server runs no such program.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::resource::is_own_host;
use serde::Deserialize;

use crate::client::{Paper, Papers};

/// A cluster, as it is asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Access {
    /// `https://HOST:PORT`.
    pub(super) address: String,
    pub(super) papers: Papers,
    pub(super) token: Option<Token>,
}

/// A bearer token.
#[derive(Clone, PartialEq)]
pub(super) enum Token {
    /// In this file.
    File(String),
    /// This one.
    Text(String),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(path) => path,
            Self::Text(_) => "a token",
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<Named<Cluster>>,
    #[serde(default)]
    contexts: Vec<Named<Context>>,
    #[serde(default)]
    users: Vec<Named<User>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    content: T,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    username: Option<String>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

/// What a kubeconfig in `folder` says of a context, the current one if none is named. The error says what it cannot say.
pub(super) fn read(text: &str, folder: &str, context: Option<&str>) -> Result<Access, String> {
    let config: Kubeconfig = serde_saphyr::from_str(text).map_err(|_| "is no kubeconfig".to_owned())?;
    let name = context.unwrap_or(&config.current_context);
    if name.is_empty() {
        return Err("has no current-context; name one by context".to_owned());
    }
    let context = of(config.contexts, "context", name)?;
    let cluster = of(config.clusters, "cluster", &context.cluster)?;
    let user = match context.user.as_str() {
        "" => User::default(),
        name => of(config.users, "user", name)?,
    };
    let (at, by) = (format!("cluster {:?}", context.cluster), format!("user {:?}", context.user));
    for (there, what) in [
        (cluster.insecure_skip_tls_verify, format!("{at} has insecure-skip-tls-verify, which is not done")),
        (cluster.tls_server_name.is_some(), format!("{at} has tls-server-name, which is not done")),
        (cluster.proxy_url.is_some(), format!("{at} has proxy-url, which is not done")),
        (user.exec.is_some(), format!("{by} logs in by exec; use a token or a certificate")),
        (
            user.auth_provider.is_some(),
            format!("{by} logs in by auth-provider; use a token or a certificate"),
        ),
        (user.username.is_some(), format!("{by} logs in by a password; use a token or a certificate")),
    ] {
        if there {
            return Err(what);
        }
    }
    let paper = |path: Option<String>, data: Option<String>, what: &str| match (data, path) {
        (Some(data), _) => decoded(&data, what).map(|text| Some(Paper::Text(text))),
        (None, path) => Ok(path.map(|path| Paper::File(below(folder, &path)))),
    };
    let ca = paper(
        cluster.certificate_authority,
        cluster.certificate_authority_data,
        "certificate-authority-data",
    )?;
    let certificate =
        paper(user.client_certificate, user.client_certificate_data, "client-certificate-data")?;
    let key = paper(user.client_key, user.client_key_data, "client-key-data")?;
    if certificate.is_some() != key.is_some() {
        return Err(format!("{by} needs both a client certificate and its key"));
    }
    let address = cluster.server;
    if !safe(&address) {
        return Err(format!("{at} is at {address:?}, which is not https://"));
    }
    let token = match (user.token_file, user.token) {
        (Some(path), _) => Some(Token::File(below(folder, &path))),
        (None, token) => token.map(Token::Text),
    };
    Ok(Access { address, papers: Papers { ca, own: certificate.zip(key) }, token })
}

/// As admission holds of an address that is named itself: a secret goes over TLS, or stays on the server's own host.
fn safe(address: &str) -> bool {
    address.starts_with("https://") || address.strip_prefix("http://").is_some_and(is_own_host)
}

fn of<T>(all: Vec<Named<T>>, kind: &str, name: &str) -> Result<T, String> {
    let found = all.into_iter().find(|one| one.name == name).map(|one| one.content);
    found.ok_or_else(|| format!("has no {kind} {name:?}"))
}

fn decoded(data: &str, what: &str) -> Result<String, String> {
    let bytes = STANDARD.decode(data.trim()).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| format!("{what} is no PEM in base64"))
}

/// Paths in it are from where it stands.
fn below(folder: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", folder.trim_end_matches('/')) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
apiVersion: v1
kind: Config
current-context: shop
preferences: {}
clusters:
- name: one
  cluster: {server: 'https://one.example:6443', certificate-authority: pki/ca.crt}
- name: two
  cluster: {server: 'https://two.example', certificate-authority-data: Y2E=}
- {name: open, cluster: {server: 'http://three.example'}}
- {name: lax, cluster: {server: 'https://four.example', insecure-skip-tls-verify: true}}
contexts:
- {name: shop, context: {cluster: one, user: service, namespace: shop}}
- {name: data, context: {cluster: two, user: data}}
- {name: nobody, context: {cluster: one}}
- {name: plugin, context: {cluster: one, user: plugin}}
- {name: half, context: {cluster: one, user: half}}
- {name: odd, context: {cluster: one, user: odd}}
- {name: old, context: {cluster: one, user: old}}
- {name: open, context: {cluster: open, user: service}}
- {name: lax, context: {cluster: lax, user: service}}
- {name: lost, context: {cluster: gone, user: service}}
users:
- {name: service, user: {tokenFile: /var/token, token: old}}
- {name: data, user: {client-certificate-data: Y2VydA==, client-key-data: a2V5, token: secret}}
- {name: plugin, user: {exec: {command: aws}}}
- {name: half, user: {client-certificate: a.crt}}
- {name: odd, user: {client-certificate-data: '!', client-key: a.key}}
- {name: old, user: {username: admin, password: admin}}
";

    #[test]
    fn the_current_context_counts_or_the_one_that_is_named() {
        let file = |path: &str| Paper::File(path.to_owned());
        let text = |text: &str| Paper::Text(text.to_owned());
        let shop = read(CONFIG, "/etc/kube", None).expect("a context");
        assert_eq!(shop.address, "https://one.example:6443");
        assert_eq!(shop.papers, Papers { ca: Some(file("/etc/kube/pki/ca.crt")), own: None });
        assert_eq!(shop.token, Some(Token::File("/var/token".to_owned())), "a file is read anew");
        let data = read(CONFIG, "/etc/kube", Some("data")).expect("a context");
        let own = Some((text("cert"), text("key")));
        assert_eq!(data.papers, Papers { ca: Some(text("ca")), own });
        assert_eq!(data.token, Some(Token::Text("secret".to_owned())));
        assert!(!format!("{data:?}").contains("secret"), "{data:?}");
        assert_eq!(read(CONFIG, "/", Some("nobody")).expect("a context").token, None);
    }

    #[test]
    fn what_it_cannot_say_or_is_not_done_is_named() {
        for (context, want) in [
            ("none", "has no context \"none\""),
            ("lost", "has no cluster \"gone\""),
            ("plugin", "user \"plugin\" logs in by exec; use a token or a certificate"),
            ("old", "user \"old\" logs in by a password; use a token or a certificate"),
            ("half", "user \"half\" needs both a client certificate and its key"),
            ("odd", "client-certificate-data is no PEM in base64"),
            ("open", "cluster \"open\" is at \"http://three.example\", which is not https://"),
            ("lax", "cluster \"lax\" has insecure-skip-tls-verify, which is not done"),
        ] {
            assert_eq!(read(CONFIG, "/", Some(context)).expect_err(context), want);
        }
        assert_eq!(read("a: [", "/", None).expect_err("none"), "is no kubeconfig");
        let aimless = CONFIG.replace("current-context: shop", "");
        assert_eq!(
            read(&aimless, "/", None).expect_err("none"),
            "has no current-context; name one by context"
        );
    }
}
