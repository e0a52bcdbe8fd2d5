//! Pure. What `meshctl import` can be told.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use model::{
    name::{Name, ServiceName},
    resource::Port,
};

use crate::import::{Ports, Setting, Verdict};

/// Which mesh it comes from.
#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Config entries and intentions of Consul, as `consul config read` prints and `consul config write` takes them
    Consul {
        #[command(flatten)]
        options: ImportOptions,
        /// What Consul's default_policy says of calls without an intention
        #[arg(long, value_enum, default_value = "deny", value_name = "ACTION")]
        default: Action,
    },
    /// Policies of Kuma, as `kumactl get -o yaml` and `kubectl get -o yaml` print them
    Kuma {
        #[command(flatten)]
        options: ImportOptions,
    },
}

/// Whether calls are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// They are.
    Allow,
    /// They are not.
    Deny,
}

/// How the manifest is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManifestFormat {
    /// Documents; what does not come over stands on stderr.
    Yaml,
    /// One document, with what does not come over in `remarks`.
    Json,
}

/// What both have.
#[derive(Debug, Args)]
pub(crate) struct ImportOptions {
    /// The files; - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Namespace of what has none there [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<Name>,
    /// The port that services answer at, or one of them does (repeatable): 80, orders=8080, shop/orders=8080 [default: 80]
    #[arg(long = "port", value_name = "[SERVICE=]PORT", value_parser = parse_port)]
    ports: Vec<(Option<String>, Port)>,
    /// Apply what came over; not if something is lost, unless with --partial
    #[arg(long)]
    pub(crate) apply: bool,
    /// Apply, though something is lost
    #[arg(long, requires = "apply")]
    pub(crate) partial: bool,
    /// With --apply: check everything, change nothing
    #[arg(long, requires = "apply")]
    pub(crate) dry_run: bool,
    /// How to print the manifest
    #[arg(short, long, value_enum, default_value = "yaml", value_name = "FORMAT", conflicts_with = "apply")]
    pub(crate) output: ManifestFormat,
}

impl Action {
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Allow => Verdict::open(),
            Self::Deny => Verdict::closed(),
        }
    }
}

impl ImportOptions {
    /// What the files do not say of themselves.
    ///
    /// # Errors
    /// What is no service.
    pub(crate) fn setting(&self, usual: Verdict) -> anyhow::Result<Setting> {
        let namespace = self.namespace.clone().unwrap_or_else(|| "default".parse().expect("a label"));
        let mut ports = Ports { usual: Port::clamped(80), own: BTreeMap::new() };
        for (service, port) in &self.ports {
            let service = match service {
                None => {
                    ports.usual = *port;
                    continue;
                }
                Some(text) if text.contains('/') => text.parse()?,
                Some(text) => ServiceName::new(namespace.clone(), text.parse()?),
            };
            ports.own.insert(service, *port);
        }
        Ok(Setting { ports, usual, namespace })
    }
}

fn parse_port(text: &str) -> Result<(Option<String>, Port), String> {
    let (service, port) = match text.split_once('=') {
        Some((service, port)) => (Some(service.to_owned()), port),
        None => (None, text),
    };
    let port = port.parse().ok().and_then(Port::new);
    Ok((service, port.ok_or("a port is a number from 1 to 65535")?))
}
