//! Runs the servers of a plan until they are asked to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::check::{self, Level};
use crate::exit::Exit;
use crate::plan::Plan;
use crate::signals;
use crate::startup::Block;

pub fn serve(plan: Plan) -> Exit {
    for warning in &plan.notes.warnings {
        tracing::warn!("{warning}");
    }
    for remark in &plan.notes.remarks {
        tracing::info!("{remark}");
    }
    report_host(&plan);
    let stop = Arc::new(AtomicBool::new(false));
    let raise = stop.clone();
    if let Err(error) = signals::watch(move || raise.store(true, Ordering::SeqCst)) {
        tracing::error!("signals cannot be watched: {error}");
        return Exit::Runtime;
    }
    tracing::info!("{}", Block::of(&plan));
    run_node(plan, stop)
}

/// The brief form of `rmq check`. A failure is not yet the end: the step that needs it will say so.
fn report_host(plan: &Plan) {
    let broker = plan.broker.as_ref();
    let store = broker.map(|broker| Path::new(&broker.config.store_path_root_dir));
    for finding in check::findings(store, broker.map_or(1, |broker| broker.core_count)) {
        match finding.level {
            Level::Ok => {}
            Level::Warn => tracing::warn!("{}: {}; {}", finding.subject, finding.found, finding.remedy),
            Level::Fail => tracing::error!("{}: {}; {}", finding.subject, finding.found, finding.remedy),
        }
    }
}

/// The one place where the servers themselves are started.
fn run_node(_plan: Plan, _stop: Arc<AtomicBool>) -> Exit {
    tracing::error!("this build has no servers yet: its settings and checks end here");
    Exit::Runtime
}
