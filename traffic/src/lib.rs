//! Pure. The decisions of the data plane, in the order in which a request meets them. Whoever asks brings the time, the
//! dice and the bytes; nothing here waits, opens, locks or remembers anything but what it is handed.
//!
//! A connection comes in, and its first bytes say what it speaks: [`protocol`]. Between proxies many calls share one:
//! [`mesh1`]; their first bytes say which port they are for: [`preamble`]. Where a message of HTTP/1.1 begins and ends is
//! said in one place: [`http1`]; HTTP/2 is [`http2`]. A request is judged by its head ([`request`]),
//! with its path brought into the one form that is decided on and forwarded: [`path`]. Its authority names a destination
//! of the [`snapshot`], which holds everything one request may consult at one revision and is made by [`compile`]. There
//! a [`route`] is found and a back end drawn by weight. How its service is treated says its [`conduct`]: [`admission`]
//! lets the call out or refuses it; the [`balancer`] picks an [`endpoint`] that is usable. What fails may be tried again: [`retry`], while the caller waits: [`deadline`]. On
//! the other side [`policy`] permits the call or denies it, [`rate`] says whether it comes too often, and [`headers`] what of
//! the request's fields goes on. What all of these would make of a call that might come says [`explain`].

pub mod protocol;

pub mod http1;
pub mod http2;
pub mod mesh1;
pub mod preamble;

pub mod path;
pub mod request;

pub mod compile;
pub mod snapshot;

pub mod route;

pub mod admission;
pub mod conduct;

pub mod balancer;
pub mod endpoint;

pub mod deadline;
pub mod retry;

pub mod headers;
pub mod policy;
pub mod rate;

pub mod explain;

mod aim;
mod dice;
mod hash;
mod moment;
mod outgoing;
mod pieces;

pub use dice::Dice;
pub use moment::Moment;
pub use outgoing::Outgoing;
