//! Pure. What other meshes are told, in our objects: and line by line, what does not come over. No field is passed over in
//! silence: what is not known is told.

use model::name::Name;
use serde::Serialize;
use serde_json::Value;

mod access;
mod consul;
mod fields;
mod hcl;
mod kuma;
mod plan;
mod regex;
mod remark;
mod span;
mod tree;

pub(crate) use access::Verdict;
use fields::{At, Names};
pub(crate) use plan::Ports;
use remark::Remarks;
pub(crate) use remark::{Degree, Remark};

#[cfg(test)]
mod tests;

/// A file, by the name that it is told of by.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) file: String,
    pub(crate) text: String,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Imported {
    /// The objects, as a manifest.
    pub(crate) items: Vec<Value>,
    /// What is not as it was.
    pub(crate) remarks: Vec<Remark>,
}

/// What other meshes do not say of themselves.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) ports: Ports,
    /// Whose calls are let in of which nothing is said.
    pub(crate) usual: Verdict,
    /// Where services live of which no namespace is said.
    pub(crate) namespace: Name,
}

/// From Consul: config entries and intentions, in JSON or HCL.
///
/// # Errors
/// The first fault of syntax, with its file and line.
pub(crate) fn consul(sources: &[Source], setting: Setting) -> Result<Imported, String> {
    let documents = documents(sources, |source| {
        if source.text.trim_start().starts_with(['{', '[']) {
            tree::of_yaml(&source.text)
        } else {
            hcl::parse(&source.text).map(|document| vec![document])
        }
    })?;
    let remarks = Remarks::default();
    let mut consul = consul::Consul::new(setting);
    for (file, document) in &documents {
        consul.read(&At::document(document, file, Names::Loose, &remarks));
    }
    let items = consul.finish();
    Ok(Imported { items, remarks: remarks.finish(&files(sources)) })
}

/// From Kuma: policies in YAML or JSON, of Kubernetes or universal.
///
/// # Errors
/// The first fault of syntax, with its file and line.
pub(crate) fn kuma(sources: &[Source], setting: Setting) -> Result<Imported, String> {
    let documents = documents(sources, |source| tree::of_yaml(&source.text))?;
    let remarks = Remarks::default();
    let mut kuma = kuma::Kuma::new(setting);
    for (file, document) in &documents {
        kuma.read(&At::document(document, file, Names::Exact, &remarks));
    }
    let items = kuma.finish();
    Ok(Imported { items, remarks: remarks.finish(&files(sources)) })
}

fn documents(
    sources: &[Source],
    read: impl Fn(&Source) -> Result<Vec<tree::Node>, String>,
) -> Result<Vec<(&str, tree::Node)>, String> {
    let mut documents = Vec::new();
    for source in sources {
        let read = read(source).map_err(|error| format!("{}: {error}", source.file))?;
        documents.extend(read.into_iter().map(|document| (source.file.as_str(), document)));
    }
    Ok(documents)
}

fn files(sources: &[Source]) -> Vec<String> {
    sources.iter().map(|source| source.file.clone()).collect()
}
