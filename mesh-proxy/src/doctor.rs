//! `mesh-proxy doctor`: looks at what the proxy needs of this host, its settings, its identity and its peers, and says for
//! all that is not as it should be what to do about it. It changes nothing.

mod away;
mod finding;
mod here;

pub use away::PEERS_MAX;
pub use finding::{Finding, SKEW_MAX, State, is_ill, text};
pub use here::runs;

use crate::{
    clock,
    identity::{Identity, IdentityError, Keep},
    services::Services,
    settings::Settings,
};

/// Looks at everything.
pub async fn examine(settings: &Settings) -> Vec<Finding> {
    let identity = identity(settings);
    let services = Services::read(&settings.services_dir, &Services::default(), crate::caller::uid);
    let mut findings = here::services(settings, &services);
    let services = services.unwrap_or_default();
    match &identity {
        Err(error) => {
            let remedy = "mesh-proxy join https://HOST:8443 --token TOKEN, as root or as the proxy's user";
            findings.push(Finding::wrong("identity", error.to_string(), remedy));
        }
        Ok(identity) => {
            identity.adopt(&services.names());
            findings.extend(certificates(identity, &services));
            findings.extend(away::servers(settings, identity).await);
            findings.extend(away::peers(settings, identity).await);
        }
    }
    findings.extend(here::ports(settings).await);
    findings.extend(here::links());
    findings.push(here::conntrack());
    findings.push(here::resolver(settings));
    findings.push(here::callers().await);
    findings.push(here::cgroups(&services));
    findings.push(here::rules(settings));
    findings
}

fn identity(settings: &Settings) -> Result<Identity, IdentityError> {
    // A folder that is not there is not for us to make.
    match settings.data_dir.is_dir() {
        true => Identity::load(Keep::open(&settings.data_dir)?),
        false => Err(IdentityError::NotJoined(settings.data_dir.clone())),
    }
}

fn certificates(identity: &Identity, services: &Services) -> Vec<Finding> {
    let now = clock::unix().as_secs();
    let judge = |svid: &svid::Svid| {
        let renew_by = svid.renew_at(u32::MAX).as_secs();
        finding::certificate(&svid.id.to_string(), now, renew_by, svid.not_after.as_secs())
    };
    let own = match identity.shut_out() {
        Some(reason) => Finding::wrong("certificate", reason.to_string(), reason.remedy()),
        None => judge(&identity.slot().load()),
    };
    let identities = identity.services();
    let of = |service: model::name::ServiceName| match identities.slot(&service) {
        Some(slot) => judge(&slot.load()),
        None => {
            let remedy = format!(
                "start mesh-proxy; if it says 'not signed', grant it: spec.services of the Node has to name {service}"
            );
            Finding::wrong("certificate", format!("{service} has none"), remedy)
        }
    };
    std::iter::once(own).chain(services.names().into_iter().map(of)).collect()
}
