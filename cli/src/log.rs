//! Log events to stderr, with levels from RUST_LOG.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

const LEVELS: &str = "info,glommio=warn";

/// Must run once, before the first event. A RUST_LOG that cannot be read is returned as the message to show.
pub fn start() -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(levels) if !levels.is_empty() => {
            EnvFilter::try_new(&levels).map_err(|error| format!("RUST_LOG={levels} cannot be read: {error}"))?
        }
        _ => EnvFilter::new(LEVELS),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
