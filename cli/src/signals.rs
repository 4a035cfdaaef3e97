//! SIGINT and SIGTERM: the first asks the servers to stop, the second ends the process.

use std::io;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::exit::SIGNAL_BASE;

/// Calls `stop` at the first signal, from a thread of its own.
pub fn watch(stop: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("rmq-signals".into()).spawn(move || {
        let mut is_stopping = false;
        for signal in signals.forever() {
            let name = signal_name(signal).unwrap_or("signal");
            if is_stopping {
                tracing::warn!("{name} while stopping: ending at once");
                std::process::exit(SIGNAL_BASE + signal);
            }
            is_stopping = true;
            tracing::info!("{name}: stopping; once more ends at once");
            stop();
        }
    })?;
    Ok(())
}
