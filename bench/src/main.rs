//! `rmq-bench`: load generator for RocketMQ brokers.
//!
//! One thread drives many connections through epoll with non-blocking sockets; frames are written
//! once and patched, replies are scanned where they lie. Exit codes: 0 messages went through and all
//! checks held, 1 they did not, 2 the run could not start.
#![forbid(unsafe_code)]

mod cluster;
mod connection;
mod consumer;
mod delay;
mod error;
mod frame;
mod lock;
mod options;
mod pop;
mod process;
mod producer;
mod record;
mod report;
mod run;
mod send_frame;
mod stamp;
mod transaction;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::error::BenchError;
use crate::options::{CommonOptions, Options, Work};
use crate::report::Report;

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.work {
        Work::Producer(work) => producer::run(work).and_then(|report| show(&work.common, report)),
        Work::Consumer(work) => consumer::run(work).and_then(|report| show(&work.common, report)),
    };
    match result {
        Ok(report) if report.is_failure() => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rmq-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn show(options: &CommonOptions, report: Report) -> Result<Report, BenchError> {
    if options.json.as_deref() == Some(Path::new("-")) {
        report.write_text(&mut std::io::stderr())?;
    } else {
        report.write_text(&mut std::io::stdout())?;
    }
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    Ok(report)
}
