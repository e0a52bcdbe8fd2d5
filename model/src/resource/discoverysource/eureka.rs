//! Pure. Where a DiscoverySource of type Eureka is.

use super::directory::{absolute, address};
use crate::{
    duration::Timespan,
    shape::{Decoder, Path, Text, record},
};

/// The shortest `every`.
const EVERY_MIN: Timespan = Timespan::from_secs(1);

record! {
    /// A Eureka server, asked by its REST API.
    pub struct EurekaSource {
        /// Where its API is: `https://HOST:PORT/eureka`, or `http://`, in plaintext. For Netflix' own server `/eureka/v2`.
        "address" address: Text<2048>,
        /// A file with `USER:PASSWORD`, on the servers, read anew for each question.
        "passwordFile" password_file: Option<Text<4096>>,
        /// A file with the certificates (PEM) that its own must come from; those that the system trusts if left out.
        "caFile" ca_file: Option<Text<4096>>,
        /// How often it is asked; at least 1s, and at least three times in `stalePolicy.after`.
        "every" every: Timespan = Timespan::from_secs(5),
        /// Whether instances are called at their secure port. What listens there is TLS of the applications' own.
        "securePort" secure_port: bool = false,
    }
}

impl EurekaSource {
    pub(super) fn check(&self, at: &Path<'_>, decoder: &mut Decoder) {
        for (field, path) in [("passwordFile", &self.password_file), ("caFile", &self.ca_file)] {
            path.iter().for_each(|path| absolute(path, &Path::Field(at, field), decoder));
        }
        if self.every < EVERY_MIN {
            decoder.report(&Path::Field(at, "every"), format_args!("must be at least {EVERY_MIN}"));
        }
        let secret = self.password_file.is_some();
        address(self.address.as_str(), (true, secret), &Path::Field(at, "address"), decoder);
    }
}
