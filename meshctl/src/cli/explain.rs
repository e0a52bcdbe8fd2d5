//! Pure. What `meshctl explain` can be told: a call, in the words of curl.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use model::name::{Name, ServiceName};
use serde_json::{Value, json};

use super::Output;

/// A call that might be made.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The service that calls, [NAMESPACE/]NAME
    #[arg(long, value_name = "SERVICE", value_parser = parse_service)]
    from: ServiceName,
    #[arg(
        long,
        value_name = "SERVICE",
        value_parser = parse_target,
        help = "The service that is called, [NAMESPACE/]NAME[:PORT]"
    )]
    to: Target,
    /// Method of the request [default: GET; POST for gRPC]
    method: Option<String>,
    /// Path and query of the request [default: /]
    path: Option<String>,
    /// A header of the request (repeatable): 'x-user: 7'
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Host of the request [default: the service's own host name]
    #[arg(long, value_name = "HOST")]
    authority: Option<String>,
    /// The host from which is called; the only one that runs the caller if left out
    #[arg(long, value_name = "NODE")]
    node: Option<Name>,
    /// Manifest files (YAML or JSON) as if they were applied; - for standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    service: ServiceName,
    port: Option<u16>,
}

impl Explain {
    /// As the API takes it.
    pub(crate) fn question(&self, change: Option<Value>) -> Value {
        let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in &self.headers {
            headers.entry(name).or_default().push(value);
        }
        json!({
            "from": self.from, "to": self.to.service, "port": self.to.port, "node": self.node,
            "method": self.method, "path": self.path, "authority": self.authority, "headers": headers,
            "change": change,
        })
    }
}

fn parse_service(text: &str) -> Result<ServiceName, String> {
    let whole = if text.contains('/') { text.to_owned() } else { format!("default/{text}") };
    whole.parse().map_err(|error: model::name::NameError| error.to_string())
}

fn parse_target(text: &str) -> Result<Target, String> {
    let (service, port) = match text.split_once(':') {
        Some((service, port)) => {
            let port = port.parse().map_err(|_| format!("'{port}' is no port; a port is from 1 to 65535"))?;
            (service, Some(port))
        }
        None => (text, None),
    };
    Ok(Target { service: parse_service(service)?, port })
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("must be 'name: value'")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_in_namespace_default_where_none_is_named() {
        let target = |text| parse_target(text).map(|target| (target.service.to_string(), target.port));
        assert_eq!(target("orders"), Ok(("default/orders".to_owned(), None)));
        assert_eq!(target("shop/orders:80"), Ok(("shop/orders".to_owned(), Some(80))));
        assert!(target("orders:http").expect_err("no port").contains("'http' is no port"));
        assert!(parse_service("Orders").is_err());
        assert_eq!(parse_header("X-User: 7:8"), Ok(("x-user".to_owned(), "7:8".to_owned())));
        assert!(parse_header("x-user").is_err());
    }
}
