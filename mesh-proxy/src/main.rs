//! The proxy's program: see the crate's documentation.
fn main() {}
