//! Pure. What an import could not take over, line by line.

use std::{cell::RefCell, fmt};

use serde::Serialize;

/// How much of it came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Degree {
    /// Nothing of it.
    Lost,
    /// It is there, and does not do quite the same.
    Differs,
}

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Remark {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: u64,
    pub(crate) degree: Degree,
    /// Which field of which entry.
    pub(crate) what: String,
    pub(crate) why: String,
    /// What to do instead.
    pub(crate) instead: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let degree = match self.degree {
            Degree::Lost => "lost",
            Degree::Differs => "differs",
        };
        let Self { file, line, what, why, instead, .. } = self;
        write!(f, "{file}:{line}: {what}: {degree}: {why}; instead: {instead}")
    }
}

/// Collects them.
#[derive(Debug, Default)]
pub(crate) struct Remarks(RefCell<Vec<Remark>>);

impl Remarks {
    pub(crate) fn add(&self, remark: Remark) {
        let mut remarks = self.0.borrow_mut();
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }

    /// All of them, in the order of the files.
    pub(crate) fn finish(self, files: &[String]) -> Vec<Remark> {
        let mut remarks = self.0.into_inner();
        remarks.sort_by_key(|remark| (files.iter().position(|file| *file == remark.file), remark.line));
        remarks
    }
}
