//! Pure. What the provider is told of the control plane: its block in the configuration, and the same environment that
//! `meshctl` reads.

use std::{io, path::Path};

use model::client::Settings;

use crate::{
    schema::{Field, Given, Type},
    value::Value,
};

/// Where settings come from beside the configuration.
pub(crate) struct Around<'a> {
    /// A variable of the environment.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// A file's text.
    pub(crate) file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// What is wrong with the settings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The attribute.
    pub(crate) attribute: &'static str,
    /// What would be right.
    pub(crate) message: String,
}

const ADDRESS: &str = "address";
const TOKEN: &str = "token";
const CACERT: &str = "cacert";

/// The attributes of the provider's block.
pub(crate) fn fields() -> Vec<Field> {
    let optional = |name: &str, about: &str, given| Field {
        about: about.to_owned(),
        ..Field::computed(name, Type::Text, given)
    };
    vec![
        optional(
            ADDRESS,
            "The control plane's address, `https://HOST:8443`; several, separated by commas, of which any will do. \
             `MESH_ADDR` if left out.",
            Given::Optional,
        ),
        optional(
            CACERT,
            "The root certificates to trust: a file's path, or PEM. `MESH_CACERT` if left out.",
            Given::Optional,
        ),
        optional(TOKEN, "The bearer token. `MESH_TOKEN` if left out.", Given::OptionalSecret),
    ]
}

/// The settings of each server; none where something is known only after `apply`.
///
/// # Errors
/// [`Wrong`].
pub(crate) fn settings(config: &Value, around: &Around<'_>) -> Result<Option<Vec<Settings>>, Wrong> {
    if !config.known() {
        return Ok(None);
    }
    let of = |attribute: &str, variable: &str| {
        let written = config.attribute(attribute).as_text().map(str::to_owned);
        written.or_else(|| (around.variable)(variable)).filter(|text| !text.is_empty())
    };
    let Some(addresses) = of(ADDRESS, "MESH_ADDR") else {
        let message = "no control plane is named: set `address`, or MESH_ADDR".to_owned();
        return Err(Wrong { attribute: ADDRESS, message });
    };
    let (token, roots) = (of(TOKEN, "MESH_TOKEN"), of(CACERT, "MESH_CACERT"));
    let roots = roots.map(|roots| pem(roots, around)).transpose()?;
    let addresses = addresses.split(',').map(str::trim).filter(|address| !address.is_empty());
    let settings = addresses.map(|address| Settings {
        address: address.to_owned(),
        token: token.clone(),
        roots: roots.clone(),
    });
    Ok(Some(settings.collect()))
}

fn pem(text: String, around: &Around<'_>) -> Result<String, Wrong> {
    if text.trim_start().starts_with("-----BEGIN") {
        return Ok(text);
    }
    (around.file)(Path::new(&text)).map_err(|error| Wrong {
        attribute: CACERT,
        message: format!("cannot read root certificates {text}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check(config: &[(&str, Value)], environment: &[(&str, &str)]) -> Result<Option<Vec<Settings>>, Wrong> {
        let config: BTreeMap<_, _> =
            config.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let variable = |name: &str| {
            let found = environment.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let file = |path: &Path| match path.to_str() {
            Some("ca.pem") => Ok("a root".to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        settings(&Value::Object(config), &Around { variable: &variable, file: &file })
    }

    #[test]
    fn the_configuration_counts_before_the_environment() {
        let environment =
            [("MESH_ADDR", "https://a:1, https://b:1,"), ("MESH_TOKEN", "t"), ("MESH_CACERT", "ca.pem")];
        let found = check(&[], &environment).expect("settings").expect("known");
        let addresses: Vec<_> = found.iter().map(|server| server.address.as_str()).collect();
        assert_eq!(addresses, ["https://a:1", "https://b:1"]);
        assert!(found.iter().all(|server| server.token.as_deref() == Some("t")));
        assert!(found.iter().all(|server| server.roots.as_deref() == Some("a root")));
        let pem = "-----BEGIN CERTIFICATE-----";
        let own = [("address", Value::text("https://c:1")), ("cacert", Value::text(pem))];
        let found = check(&own, &environment).expect("settings").expect("known");
        assert_eq!((found[0].address.as_str(), found[0].roots.as_deref()), ("https://c:1", Some(pem)));
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_unknown_waited_for() {
        let wrong = |config: &[(&str, Value)], environment: &[(&str, &str)]| {
            check(config, environment).err().map(|wrong| wrong.attribute)
        };
        assert_eq!(wrong(&[], &[("MESH_ADDR", "")]), Some("address"));
        let missing = [("address", Value::text("https://a:1")), ("cacert", Value::text("nowhere.pem"))];
        assert_eq!(wrong(&missing, &[]), Some("cacert"));
        assert!(check(&[("address", Value::unknown())], &[]).expect("no fault").is_none());
    }
}
