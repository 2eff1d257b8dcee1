//! The agentkeep command.
fn main() {}
