//! Pure. Where a DiscoverySource of type Kubernetes is.

use super::directory::{absolute, address, pair};
use crate::shape::{Decoder, Path, Text, record};

record! {
    /// A Kubernetes cluster, whose EndpointSlices are watched.
    pub struct KubernetesSource {
        /// Where its API server is: `https://HOST:PORT`. Either this or `kubeconfig`.
        "address" address: Option<Text<2048>>,
        /// A kubeconfig on the servers, which says the address, the token and the certificates, by token or certificate alone; read anew each time. Either this or `address`.
        "kubeconfig" kubeconfig: Option<Text<4096>>,
        /// The context of the kubeconfig that counts; its current one if left out.
        "context" context: Option<Text<253>>,
        /// A file with a service account's token, on the servers, read anew for each question.
        "tokenFile" token_file: Option<Text<4096>>,
        /// A file with the certificates (PEM) that its own must come from; those that the system trusts if left out.
        "caFile" ca_file: Option<Text<4096>>,
        /// A file with the certificate (PEM) that is shown to it. Only together with `keyFile`.
        "certFile" cert_file: Option<Text<4096>>,
        /// A file with that certificate's key (PEM).
        "keyFile" key_file: Option<Text<4096>>,
        /// The namespace that is watched; all if left out.
        "namespace" namespace: Option<Text<63>>,
        /// Only EndpointSlices, that is Services, with such labels: a selector of Kubernetes'.
        "labelSelector" label_selector: Option<Text<1024>>,
    }
}

impl KubernetesSource {
    pub(super) fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        for (field, path) in [("tokenFile", &self.token_file), ("caFile", &self.ca_file)] {
            path.iter().for_each(|path| absolute(path, &Path::Field(at, field), decoder));
        }
        pair((&self.cert_file, &self.key_file), at, decoder);
        let secret = self.token_file.is_some();
        if let Some(text) = &self.address {
            address(text.as_str(), (false, secret), &Path::Field(at, "address"), decoder);
        }
        if self.address.is_some() == self.kubeconfig.is_some() {
            decoder.report(at, "must have either address or kubeconfig");
        }
        self.kubeconfig.iter().for_each(|path| absolute(path, &Path::Field(at, "kubeconfig"), decoder));
        if self.context.is_some() && self.kubeconfig.is_none() {
            decoder.report(&Path::Field(at, "context"), "is of a kubeconfig, and there is none");
        }
        for (field, there) in [
            ("tokenFile", self.token_file.is_some()),
            ("caFile", self.ca_file.is_some()),
            ("certFile", self.cert_file.is_some()),
        ] {
            if there && self.kubeconfig.is_some() {
                decoder.report(&Path::Field(at, field), "is said by the kubeconfig");
            }
        }
    }
}
