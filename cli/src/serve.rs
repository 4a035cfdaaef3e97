//! Runs the servers of a plan until they are asked to stop.

use std::path::{Path, PathBuf};

use rmq_broker::node::StopFlag;
use rmq_broker::start::{self, BrokerOptions, NodeError, NodeOptions, RunError};
use rmq_engine::store_dir::StoreError;

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
    let stop = StopFlag::default();
    let raise = stop.clone();
    if let Err(error) = signals::watch(move || raise.raise()) {
        tracing::error!("signals cannot be watched: {error}");
        return Exit::Runtime;
    }
    let mut block = Block::of(&plan);
    let options = NodeOptions {
        broker: plan.broker.map(|broker| BrokerOptions {
            store: PathBuf::from(&broker.config.store_path_root_dir),
            cores: broker.core_count,
            log_memory_bytes: broker.log_memory_bytes,
            config: broker.config,
        }),
        name_server: plan.name_server,
        stop,
    };
    let outcome = start::run(options, move |report| {
        block.add_report(report);
        tracing::info!("{block}");
    });
    match outcome {
        Ok(()) => {
            tracing::info!("stopped");
            Exit::Success
        }
        Err(error) => {
            tracing::error!("{error}");
            exit_of(&error)
        }
    }
}

fn exit_of(error: &NodeError) -> Exit {
    match error {
        NodeError::Store(StoreError::Full { .. } | StoreError::NotWritable { .. }) | NodeError::Ring(_) => Exit::Host,
        NodeError::Cores(RunError::Ring(_)) => Exit::Host,
        NodeError::Store(_) | NodeError::Recovery(_) | NodeError::KeyValues(_) => Exit::Store,
        NodeError::Address { .. } => Exit::Usage,
        NodeError::Bind(_) | NodeError::Cores(_) | NodeError::Io(_) => Exit::Runtime,
    }
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
