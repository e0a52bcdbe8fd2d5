//! What this server's own part of the API needs beside registry and authority: the proxies that talk to this member,
//! the guard before joining, and the metrics. Handlers get it as an `Extension`.

use std::sync::Arc;

use uuid::Uuid;

use crate::{guard::Guard, members::Members, proxies::Proxies, telemetry::Metrics};

/// Shared by the handlers of this server.
pub struct Daemon {
    /// The cluster, as members check it when they talk to each other.
    pub cluster: Uuid,
    /// Connections among members.
    pub members: Arc<Members>,
    /// The proxies whose keep-alives come through this member.
    pub proxies: Arc<Proxies>,
    /// Slows down those who guess tokens.
    pub guard: Guard,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}
