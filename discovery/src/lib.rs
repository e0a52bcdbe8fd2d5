//! Services that stand elsewhere: what a directory outside the mesh says, and what follows from it for the registry. A
//! source tells full sets and changes; everything else is pure. It knows neither who leads nor how the registry is written.

use std::{future::Future, pin::Pin, time::Duration};

use model::resource::{DiscoverySourceSpec, DiscoveryType};

pub mod blocking;
pub mod changes;
mod client;
mod clock;
pub mod consul;
pub mod dns;
pub mod eureka;
pub mod file;
pub mod files;
pub mod found;
mod gather;
pub mod keeper;
pub mod kubernetes;
mod labels;
pub mod nomad;
pub mod wanted;

use files::{FileError, Files};
use found::{Found, FoundKey, Set};

/// What a source tells.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// All that there is: what is not in it is no more.
    Full(Set),
    /// One service as it is now, or that it is no more.
    Changed(FoundKey, Option<Found>),
    /// One service cannot be told for this reason, though others can: what was told of it stays.
    Silent(FoundKey, Failure),
    /// One that could not be told is as it was told before.
    Again(FoundKey),
    /// Nothing became another: a sign of life.
    Same,
}

/// Why a source tells nothing. The same fault has the same words, so that it is told once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// It does not answer, or not as it should.
    #[error("{0}")]
    Source(String),
}

/// What [`Source::next`] answers with.
pub type Telling<'a> = Pin<Box<dyn Future<Output = Result<News, Failure>> + Send + 'a>>;

/// A directory outside the mesh.
pub trait Source: Send {
    /// What it tells next: first a full set. Waits for it, but never for longer than the span that it was opened with:
    /// then it says that all is as it was. After a failure it is called again.
    fn next(&mut self) -> Telling<'_>;
}

/// The source that a spec says. It tells something at least each `beat` while it is well.
///
/// # Errors
/// The spec lacks what its type needs.
pub fn open(spec: &DiscoverySourceSpec, beat: Duration, files: &Files) -> Result<Box<dyn Source>, Failure> {
    let lacking = || Failure::Source(format!("the spec says nothing of type {}", spec.r#type));
    match spec.r#type {
        DiscoveryType::File => {
            let file = spec.file.as_ref().ok_or_else(lacking)?;
            Ok(Box::new(file::FileSource::new(file.path.as_str(), beat, files.clone())))
        }
        DiscoveryType::Consul => {
            let consul = spec.consul.as_ref().ok_or_else(lacking)?;
            Ok(Box::new(consul::open(consul, spec.clone(), beat, files.clone())))
        }
        DiscoveryType::Dns => {
            let dns = spec.dns.as_ref().ok_or_else(lacking)?;
            Ok(Box::new(dns::DnsSource::open(dns, beat, files.clone())?))
        }
        DiscoveryType::Eureka => {
            let eureka = spec.eureka.as_ref().ok_or_else(lacking)?;
            Ok(Box::new(eureka::EurekaSource::open(eureka, beat, files.clone())))
        }
        DiscoveryType::Kubernetes => {
            let kubernetes = spec.kubernetes.as_ref().ok_or_else(lacking)?;
            Ok(Box::new(kubernetes::KubernetesSource::open(kubernetes, beat, files.clone())))
        }
        DiscoveryType::Nomad => {
            let nomad = spec.nomad.as_ref().ok_or_else(lacking)?;
            Ok(Box::new(nomad::open(nomad, spec.clone(), beat, files.clone())))
        }
    }
}

/// How often a source tells something where it falls silent after `after`: two beats may be lost.
pub fn beat(after: Duration) -> Duration {
    after / 3
}
