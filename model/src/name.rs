//! Pure. Names that cannot be wrong: a value that exists has been checked.
//! What a name refers to is never looked at here.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The longest name: an RFC 1123 label has at most 63 octets.
pub const NAME_BYTES_MAX: usize = 63;

/// The name of an object: an RFC 1123 label (lower-case letters, digits, `-`; 1 to 63 octets).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than [`NAME_BYTES_MAX`].
    #[error("must have 1 to {NAME_BYTES_MAX} characters, has {0}")]
    Length(usize),
    /// A character that a label may not have.
    #[error(
        "must be lower-case letters, digits and '-', starting and ending with a letter or digit: '{0}' is not"
    )]
    Character(String),
    /// Not `namespace/name`.
    #[error("must be <namespace>/<name>, for example default/orders: '{0}' is not")]
    Pair(String),
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Tables of names are looked up by what may be none.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return Err(NameError::Length(text.len()));
        }
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let ends = allowed(bytes[0]) && allowed(bytes[bytes.len() - 1]);
        if !ends || !bytes.iter().all(|&byte| allowed(byte) || byte == b'-') {
            return Err(NameError::Character(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

/// A service of the mesh, by namespace and name; printed as `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// The namespace it lives in.
    pub namespace: Name,
    /// Its name there.
    pub name: Name,
}

impl ServiceName {
    /// The service `name` of `namespace`.
    pub fn new(namespace: Name, name: Name) -> Self {
        Self { namespace, name }
    }

    /// The host name under which the mesh answers for it: `<name>.<namespace>.mesh`.
    pub fn hostname(&self) -> String {
        format!("{}.{}.mesh", self.name, self.namespace)
    }

    /// The service that a host name of the mesh stands for (`orders.default.mesh`, a port and a final dot are
    /// ignored); `None` for all other hosts.
    pub fn from_hostname(host: &str) -> Option<Self> {
        let host = host.split_once(':').map_or(host, |(host, _)| host);
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let (name, namespace) = host.strip_suffix(".mesh")?.split_once('.')?;
        Some(Self { namespace: namespace.parse().ok()?, name: name.parse().ok()? })
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| NameError::Pair(text.to_owned()))?;
        Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
    }
}

/// A pattern over names: exact, or with `*` for any run of characters (`shop-*`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameGlob(Arc<str>);

impl NameGlob {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` fits the pattern.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

impl FromStr for NameGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return Err(NameError::Length(text.len()));
        }
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'*';
        if !text.bytes().all(allowed) {
            return Err(NameError::Character(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

/// A pattern over services: `namespace/name`, each part a [`NameGlob`] (`shop/*`, `default/orders`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceGlob {
    namespace: NameGlob,
    name: NameGlob,
}

impl ServiceGlob {
    /// Whether the service fits the pattern.
    pub fn matches(&self, service: &ServiceName) -> bool {
        self.reaches(&service.namespace) && self.name.matches(service.name.as_str())
    }

    /// Whether services of the namespace may fit it.
    pub fn reaches(&self, namespace: &Name) -> bool {
        self.namespace.matches(namespace.as_str())
    }

    /// The one namespace whose services fit it; `None` where there may be several.
    pub fn namespace(&self) -> Option<Name> {
        self.namespace.as_str().parse().ok()
    }
}

impl FromStr for ServiceGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| NameError::Pair(text.to_owned()))?;
        Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NameGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServiceGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Texts that travel as themselves: debug, serde and parsing by way of `Display` and `FromStr`.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use as_text;

as_text!(Name, NameGlob, ServiceName, ServiceGlob);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_rfc_1123() {
        for good in ["a", "0", "orders", "shop-1", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().expect("a label").as_str(), good);
        }
        for bad in ["", "-a", "a-", "Orders", "a.b", "a_b", "é", "a/b", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn service_names_are_pairs() {
        let name: ServiceName = "default/orders".parse().expect("a pair");
        assert_eq!(
            (name.to_string().as_str(), name.hostname().as_str()),
            ("default/orders", "orders.default.mesh")
        );
        for bad in ["orders", "default/", "/orders", "a/b/c"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn hostnames_of_the_mesh_name_services() {
        for good in ["orders.default.mesh", "Orders.Default.mesh:80", "orders.default.mesh."] {
            assert_eq!(ServiceName::from_hostname(good).expect(good).to_string(), "default/orders");
        }
        for other in ["orders.default", "orders.mesh", "a.b.c.mesh", "mesh", "example.com"] {
            assert_eq!(ServiceName::from_hostname(other), None, "{other}");
        }
    }

    #[test]
    fn globs_match_whole_names() {
        let check = |glob: &str, text: &str| glob.parse::<NameGlob>().expect("a glob").matches(text);
        assert!(
            check("*", "anything")
                && check("shop-*", "shop-1")
                && check("a*c*e", "abcde")
                && check("orders", "orders")
        );
        assert!(
            !check("shop-*", "web-1")
                && !check("orders", "orders2")
                && !check("a*c*e", "abcd")
                && !check("a*a", "a")
        );
        let any: ServiceGlob = "shop/*".parse().expect("a glob");
        assert!(
            any.matches(&"shop/web".parse().expect("a name"))
                && !any.matches(&"default/web".parse().expect("a name"))
        );
        let namespace = |glob: &str| glob.parse::<ServiceGlob>().expect("a glob").namespace();
        assert_eq!((namespace("shop/w*"), namespace("sh*/web")), ("shop".parse().ok(), None));
    }
}
