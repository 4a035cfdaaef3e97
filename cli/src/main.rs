//! `rmq`: the one binary. Reads the command line and hands over to the command's own file.

#![forbid(unsafe_code)]

mod arguments;
mod check;
mod exit;
mod log;
mod name_server;
mod plan;
mod serve;
mod signals;
mod startup;
mod store;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use rmq_broker::config::ConfigError;

use crate::arguments::{
    Arguments, BrokerArguments, CheckArguments, Command, NamesrvArguments, ResourceArguments, StoreCommand,
};
use crate::exit::Exit;
use crate::plan::Plan;

fn main() -> ExitCode {
    // A wrong command line ends here, with exit code 2 and clap's explanation.
    let arguments = Arguments::parse();
    if let Err(message) = log::start() {
        eprintln!("rmq: {message}");
        return Exit::Usage.into();
    }
    let exit = match arguments.command {
        Command::Namesrv(arguments) => run_name_server(&arguments),
        Command::Broker(arguments) => run_broker(&arguments),
        Command::Standalone(arguments) => serve(plan::standalone(&arguments)),
        Command::Check(arguments) => run_check(&arguments),
        Command::Store(StoreCommand::Check(arguments)) => store::check::run(&arguments),
        Command::Store(StoreCommand::Dump(arguments)) => store::dump::run(&arguments),
        Command::Store(StoreCommand::Repair(arguments)) => store::repair::run(&arguments),
    };
    exit.into()
}

fn run_name_server(arguments: &NamesrvArguments) -> Exit {
    let plan = plan::name_server(arguments);
    match (&plan, arguments.print_all) {
        (Ok(Plan { name_server: Some(name_server), .. }), true) => print(&name_server::print_all(name_server)),
        _ => serve(plan),
    }
}

fn run_broker(arguments: &BrokerArguments) -> Exit {
    let plan = plan::broker(arguments);
    let Ok(Plan { broker: Some(broker), .. }) = &plan else { return serve(plan) };
    // RocketMQ: -p wins over -m.
    if arguments.print_all {
        print(&broker.config.settings.print_all())
    } else if arguments.print_important {
        print(&broker.config.settings.print_important())
    } else {
        serve(plan)
    }
}

fn run_check(arguments: &CheckArguments) -> Exit {
    let findings = check::findings(Some(&arguments.store), ResourceArguments::default().core_count());
    let is_fit = findings.iter().all(|finding| finding.level < check::Level::Fail);
    let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    match print(&lines) {
        Exit::Success if !is_fit => Exit::Host,
        exit => exit,
    }
}

fn serve(plan: Result<Plan, ConfigError>) -> Exit {
    match plan {
        Ok(plan) => serve::serve(plan),
        Err(error) => {
            eprintln!("rmq: {error}");
            Exit::Usage
        }
    }
}

/// To stdout. A reader that has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Exit {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Runtime,
        _ => Exit::Success,
    }
}
