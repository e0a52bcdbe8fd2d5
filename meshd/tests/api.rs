//! The REST API of a real server over real TLS, told as transcripts (see `api/script.rs`).

#[path = "api/apply.rs"]
mod apply;
#[path = "api/callers.rs"]
mod callers;
#[path = "api/examples.rs"]
mod examples;
#[path = "api/explain.rs"]
mod explain;
#[path = "api/history.rs"]
mod history;
#[path = "api/hostile.rs"]
mod hostile;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/objects.rs"]
mod objects;
#[path = "api/paths.rs"]
mod paths;
#[path = "api/script.rs"]
mod script;
#[path = "api/streams.rs"]
mod streams;
#[path = "api/tokens.rs"]
mod tokens;
#[path = "api/watch.rs"]
mod watch;
