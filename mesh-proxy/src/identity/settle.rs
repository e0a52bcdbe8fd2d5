//! How an identity on disk ends, and how another one takes its place. Each has one moment, the renaming of one file, before
//! which nothing has happened; what a crash leaves to be done after it, the next start does.

use super::{IdentityError, Keep};
use crate::disk;

/// In this folder the identity is made that is to take the present one's place. It does so from the moment at which its
/// `node.json` stands.
const NEXT: &str = "rejoin";
/// What `node.json` is called of a host that has left: the rest is only to be erased.
const LEFT: &str = "left.json";
/// Whose identity it is: with this file the host has joined.
const NODE: &str = "node.json";
/// What begins like one of these is of one host in one mesh.
const STEMS: [&str; 4] = ["node.", "bundle.json", "snapshot.json", "ports.json"];
/// What is taken over of another identity. Whose it is stands in the last one.
const TAKEN: [&str; 4] = ["bundle.json", "node.pem", "node.key", NODE];

impl Keep {
    /// Where the identity is made that is to take this one's place.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn next(&self) -> Result<Self, IdentityError> {
        Self::open(&self.path(NEXT))
    }

    /// Does what a crash left undone. Whoever uses the identity, or changes it, calls this first.
    ///
    /// # Errors
    /// If it cannot be done; trying again goes on where it ended.
    pub fn settle(&self) -> Result<(), IdentityError> {
        if self.path(LEFT).exists() {
            return self.erase_rest();
        }
        if self.path(NEXT).join(NODE).exists() {
            return self.replace();
        }
        Ok(())
    }

    /// Forgets who this host is, and all that it knows of its mesh; what is not of the identity stays.
    ///
    /// # Errors
    /// If it cannot be erased; what is left of it is no identity any more.
    pub fn erase(&self) -> Result<(), IdentityError> {
        disk::rename(&self.path(NODE), &self.path(LEFT))?;
        self.erase_rest()
    }

    fn erase_rest(&self) -> Result<(), IdentityError> {
        self.drop_services()?;
        disk::remove_folder(&self.path(NEXT))?;
        let ours = |name: &str| STEMS.iter().any(|stem| name.starts_with(stem));
        for path in disk::files(&self.path(""), ours)? {
            disk::remove(&path)?;
        }
        // Last of all: without this file nobody knows that something is left.
        Ok(disk::remove(&self.path(LEFT))?)
    }

    /// The configuration stays, as it is the same mesh; certificates of services do not: they are refused with the node
    /// for which they were signed.
    fn replace(&self) -> Result<(), IdentityError> {
        self.drop_services()?;
        for name in ["node.key.next", "node.csr"] {
            disk::remove(&self.path(name))?;
        }
        for name in TAKEN {
            let from = self.path(NEXT).join(name);
            if from.exists() {
                disk::rename(&from, &self.path(name))?;
            }
        }
        Ok(disk::remove_folder(&self.path(NEXT))?)
    }

    fn drop_services(&self) -> Result<(), IdentityError> {
        for path in disk::files(&self.path("services"), |_| true)? {
            disk::remove(&path)?;
        }
        Ok(())
    }
}
