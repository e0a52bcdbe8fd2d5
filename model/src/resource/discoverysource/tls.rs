//! Pure. What the endpoints of a source that have no proxy must show their callers.

use super::{directory::absolute, dns::is_name};
use crate::{
    name::{NAME_BYTES_MAX, Name},
    resource::{EndpointTls, endpoint::HOSTNAME_BYTES_MAX},
    shape::{Decoder, Path, Text, record},
};

/// What the name of a service stands for in a host's name.
const SERVICE: &str = "{service}";

record! {
    /// What endpoints that have no proxy must show their callers.
    pub struct DiscoveryTls {
        /// The name in their certificates, which callers ask for (SNI); `{service}` in it stands for the service's name in the mesh.
        "hostname" hostname: Text<HOSTNAME_BYTES_MAX>,
        /// The certificates that theirs must come from: a file on the callers' hosts, not on the servers; those that such a host trusts if left out.
        "caFile" ca_file: Option<Text<4096>>,
    }
}

impl DiscoveryTls {
    /// The same for the endpoints of one service.
    pub fn of(&self, service: &Name) -> EndpointTls {
        let hostname = self.hostname.as_str().replace(SERVICE, service.as_str());
        let hostname = Text::new(&hostname).expect("it was checked that there is room for the longest name");
        EndpointTls { hostname, ca_file: self.ca_file.clone() }
    }

    pub(super) fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        let hostname = self.hostname.as_str();
        let long = hostname.replace(SERVICE, &"a".repeat(NAME_BYTES_MAX)).len() > HOSTNAME_BYTES_MAX;
        let odd = hostname.contains('_') || hostname.ends_with('.') || long;
        if odd || !is_name(&hostname.replace(SERVICE, "a")) {
            let message = format_args!("must be a host's name, {SERVICE} in it if need be, is {hostname:?}");
            decoder.report(&Path::Field(at, "hostname"), message);
        }
        self.ca_file.iter().for_each(|path| absolute(path, &Path::Field(at, "caFile"), decoder));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::shape::{Mode, Shape};

    fn decoded(hostname: &str, ca_file: &str) -> Result<DiscoveryTls, String> {
        let mut decoder = Decoder::new(Mode::Strict);
        let tls = json!({"hostname": hostname, "caFile": ca_file});
        let decoded = DiscoveryTls::decode(&tls, &Path::Root, &mut decoder);
        decoded.iter().for_each(|tls| tls.check(&Path::Root, &mut decoder));
        decoder.finish().map_err(|invalid| invalid.to_string())?;
        decoded.ok_or_else(|| "it is not valid".to_owned())
    }

    #[test]
    fn a_service_s_name_stands_in_that_of_its_host() {
        let of = |hostname: &str| {
            let tls = decoded(hostname, "/ca.pem").expect("valid").of(&"orders".parse().expect("a name"));
            assert_eq!(tls.ca_file.expect("a file").as_str(), "/ca.pem");
            tls.hostname.as_str().to_owned()
        };
        assert_eq!(of("{service}.old.example"), "orders.old.example");
        assert_eq!(of("old.example"), "old.example");
        // There is room for the longest name, at least.
        let longest = format!("{{service}}.{}", "a.".repeat(94) + "b");
        let name = "a".repeat(NAME_BYTES_MAX).parse().expect("a name");
        let most = decoded(&longest, "/a").expect("valid").of(&name);
        assert_eq!(most.hostname.as_str().len(), HOSTNAME_BYTES_MAX);
        decoded(&format!("c{longest}"), "/a").expect_err("one more");
    }

    #[test]
    fn what_is_no_host_s_name_is_said() {
        for hostname in ["", "a b", "a..b", "old_orders.example", "example.", "{name}.example", "*.example"] {
            let error = decoded(hostname, "/a").expect_err(hostname);
            assert!(error.contains("hostname: must be a host's name"), "{error}");
        }
        let error = decoded("a", "a").expect_err("where is it");
        assert!(error.contains("caFile: must be an absolute path"), "{error}");
    }
}
