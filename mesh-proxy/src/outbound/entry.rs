//! Pure. Where a local application's call came in, and what that says of who calls whom.

use http::request;
use model::name::ServiceName;
use traffic::snapshot::Port;

use crate::{heads, refused::Refused, shared::Config};

/// A listener for local applications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// `[[upstream]]`: one destination, for one local service.
    Upstream {
        /// Who calls: the service whose file declares it.
        source: ServiceName,
        /// Who is called.
        destination: ServiceName,
        /// At which port; its default one if none is said.
        port: Option<u16>,
    },
    /// `listen.outbound`: a connection to a virtual IP that the kernel turned aside.
    Captured {
        /// Who calls, where that can be told.
        source: Option<ServiceName>,
        /// Whose virtual IP it is.
        destination: ServiceName,
        /// The port that was dialled there.
        port: u16,
    },
    /// `listen.host_router`: every destination, by Host.
    HostRouter {
        /// The listener's own port, which callers who cannot set Host may name.
        port: u16,
    },
}

impl Entry {
    /// For whom it is a listener, if not for every local service.
    pub(super) fn owner(&self) -> Option<&ServiceName> {
        match self {
            Self::Upstream { source, .. } => Some(source),
            Self::Captured { .. } | Self::HostRouter { .. } => None,
        }
    }

    /// Who calls, where nothing on this host is bound.
    pub(super) fn source(&self, config: &Config) -> Result<ServiceName, Refused> {
        match self {
            Self::Upstream { source, .. } => Ok(source.clone()),
            Self::Captured { source, .. } => source.clone().ok_or(Refused::NoCaller),
            Self::HostRouter { .. } => config.router_identity.clone().ok_or(Refused::NoCaller),
        }
    }

    /// Who is called, where that does not depend on the request.
    pub(super) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Upstream { destination, .. } | Self::Captured { destination, .. } => Some(destination),
            Self::HostRouter { .. } => None,
        }
    }

    /// Whether it stands in a file that this service is called.
    pub(super) fn declares(&self, service: &ServiceName) -> bool {
        self.service() == Some(service)
    }

    /// Who is called.
    pub(super) fn called(&self, head: &request::Parts) -> Result<ServiceName, Refused> {
        if let Some(service) = self.service() {
            return Ok(service.clone());
        }
        let authority = heads::authority(head);
        ServiceName::from_hostname(authority)
            .ok_or_else(|| Refused::NoService(authority.chars().take(100).collect()))
    }

    /// At which port: the listener's, that of the request's authority, or the destination's default one.
    pub(super) fn port<'a>(
        &self,
        config: &'a Config,
        service: &ServiceName,
        authority: &str,
    ) -> Result<&'a Port, Refused> {
        let unknown = || Refused::UnknownService(service.clone());
        let destination = config.snapshot.destination(service).ok_or_else(unknown)?;
        let named = match self {
            Self::Upstream { port, .. } => *port,
            Self::Captured { port, .. } => Some(*port),
            Self::HostRouter { port } => {
                let named = authority.rsplit_once(':').and_then(|(_, named)| named.parse().ok());
                named.filter(|named| named != port)
            }
        };
        match named {
            Some(named) => destination.port(named).ok_or_else(|| Refused::NoPort(service.clone(), named)),
            None => destination.default_port().ok_or_else(|| Refused::NoPorts(service.clone())),
        }
    }
}
