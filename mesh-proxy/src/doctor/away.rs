//! What stands elsewhere: the servers of the mesh, and the proxies that this one calls.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream};
use http::{Method, header};
use model::{kind::Kind, resource::Resource};
use svid::Expect;
use tokio::{net::TcpStream, time::timeout};

use super::finding::{self, Finding};
use crate::{
    clock,
    config::cache::Cache,
    control::{connector, dial, request},
    identity::Identity,
    settings::{Server, Settings},
};

/// Peers that are dialled; who has more sees by these whether the network lets them through.
pub const PEERS_MAX: usize = 256;
/// Peers that are dialled at once.
const AT_ONCE: usize = 32;
/// How long each may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Each server: whether it answers as a member of this mesh, and what its clock says.
pub(super) async fn servers(settings: &Settings, identity: &Identity) -> Vec<Finding> {
    let servers = identity.servers(settings);
    if servers.is_empty() {
        let remedy = "name the servers of the mesh: servers = [\"https://HOST:8443\"] in proxy.toml";
        return vec![Finding::wrong("server", "none is known", remedy)];
    }
    let asked = stream::iter(servers).map(|server| async move {
        let said = timeout(PATIENCE, date(&server, identity)).await;
        match said.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(date) => answered(&server, date),
            Err(cause) => vec![unreachable(&server, &cause)],
        }
    });
    asked.buffered(AT_ONCE).concat().await
}

fn answered(server: &Server, date: Option<u64>) -> Vec<Finding> {
    let own = clock::unix().as_secs();
    let clock = date.map(|date| finding::clock(&server.to_string(), own, date));
    let clock = clock.unwrap_or_else(|| Finding::skipped("clock", format!("{server} does not say its own")));
    vec![Finding::fine("server", format!("{server} answers")), clock]
}

fn unreachable(server: &Server, cause: &str) -> Finding {
    let remedy = format!(
        "traffic goes on without it, but nothing new is heard of: is meshd running there, does a firewall let TCP to port {} through, is its name right, and the clock?",
        server.port
    );
    Finding::wrong("server", format!("{server}: {cause}"), remedy)
}

/// What a server says the time is, in seconds since 1970.
async fn date(server: &Server, identity: &Identity) -> Result<Option<u64>, String> {
    let trust = identity.trust();
    let config = svid::client_config(
        Some(identity.slot()),
        trust.clone(),
        Expect::Meshd,
        &[b"http/1.1"],
        clock::tls(),
    );
    let mut sender = dial(server, &connector(config), Some(&trust)).await?;
    let asked = sender.send_request(request(server, &Method::GET, "/healthz", None, None)).await;
    let head = asked.map_err(|error| error.to_string())?;
    let date = head.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    Ok(date.and_then(|date| Some(date.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())))
}

/// The proxies that this host would call by its last good configuration.
pub(super) async fn peers(settings: &Settings, identity: &Identity) -> Vec<Finding> {
    let peers = match known(settings, identity) {
        Ok(peers) if peers.is_empty() => return vec![Finding::skipped("peer", "none is known")],
        Ok(peers) => peers,
        Err(problem) => {
            let remedy = "mesh-proxy gets it anew from a server: start it where one can be reached";
            return vec![Finding::doubtful("peer", problem, remedy)];
        }
    };
    let count = peers.len();
    let dialled = stream::iter(peers.into_iter().take(PEERS_MAX)).map(|(peer, node)| async move {
        let met = timeout(PATIENCE, TcpStream::connect(peer)).await;
        let met = met
            .map_err(|_| "no answer in time".to_owned())
            .and_then(|met| met.map_err(|error| error.to_string()));
        met.err().map(|cause| closed(peer, &node, &cause))
    });
    let closed: Vec<_> = dialled.buffered(AT_ONCE).filter_map(std::future::ready).collect().await;
    let open =
        Finding::fine("peer", format!("{} of {count} can be dialled", count.min(PEERS_MAX) - closed.len()));
    if closed.is_empty() { vec![open] } else { closed }
}

fn closed(peer: SocketAddr, node: &str, cause: &str) -> Finding {
    let remedy = format!(
        "is mesh-proxy running on {node}, and does every firewall between let TCP to port {} through?",
        peer.port()
    );
    Finding::wrong("peer", format!("{node} at {peer}: {cause}"), remedy)
}

/// Where other hosts' proxies are dialled, with their names.
fn known(settings: &Settings, identity: &Identity) -> Result<BTreeSet<(SocketAddr, String)>, String> {
    let held = Cache::of(&settings.data_dir).load().map_err(|error| error.to_string())?.unwrap_or_default();
    let endpoints = held.objects.values().filter(|object| object.key().kind == Kind::Endpoint);
    let peer = |object: &std::sync::Arc<model::object::Object>| match object.resource() {
        Ok(Resource::Endpoint(spec)) => {
            let node = spec.node.filter(|node| *node != identity.node().node)?;
            let port = u16::try_from(spec.inbound_port.value()).ok()?;
            Some((SocketAddr::new(spec.address, port), node.to_string()))
        }
        _ => None,
    };
    Ok(endpoints.filter_map(peer).collect())
}
