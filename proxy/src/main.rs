//! The `firebreak` command.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use firebreak::cli::{Cli, Command, LifecycleAction, LogFormat, RunArgs, TopicCommand, UpkeepArgs};
use firebreak::config::raw::Flags;
use firebreak::config::{Config, ConfigError, StoreEnv};
use firebreak::placement::command;
use firebreak::store::lifecycle::Lifecycle;
use firebreak::upkeep::{self, Order, Task};
use firebreak::{run, telemetry};

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;
/// What was asked for could not be done; 1 is for what was done and found something wrong.
const EXIT_UNDONE: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => start(&cli.run),
        Some(Command::Run(args)) => start(&args),
        Some(Command::Check { file, config }) => check(file.or(config).as_deref()),
        Some(Command::Fsck { deep, upkeep }) => tend(&upkeep, &Task::Fsck { deep }),
        Some(Command::Gc { dry_run, deleted_topics, grace_hours, whole_logs, upkeep }) => {
            tend(&upkeep, &Task::Gc { dry_run, deleted_topics, grace_hours, whole_logs })
        }
        Some(Command::Rehydrate { topic, to, mark_missing, keep_unsigned, upkeep }) => {
            let order = Order { topic, to, mark_missing, keep_unsigned };
            tend(&upkeep, &Task::Rehydrate(order))
        }
        Some(Command::Lifecycle { action, after_days, class, upkeep }) => {
            let rules = Lifecycle { cold_after_days: after_days, class };
            tend(&upkeep, &Task::Lifecycle { apply: action == LifecycleAction::Apply, rules })
        }
        Some(Command::Topic { command }) => topics(&command),
        Some(Command::Analyse { topic, threshold_bytes, prices, upkeep }) => {
            match (topic, prices) {
                (Some(topic), prices) => {
                    tend(&upkeep, &Task::Analyse { topic, threshold_bytes, prices })
                }
                (None, Some(prices)) => price(&prices, upkeep.json),
                (None, None) => {
                    eprintln!(
                        "name a topic to read, or --prices FILE alone to price round sizes; see \
                         `firebreak analyse --help`"
                    );
                    ExitCode::from(EXIT_USAGE)
                }
            }
        }
    }
}

fn tend(args: &UpkeepArgs, task: &Task) -> ExitCode {
    let flags = Flags { upstream: args.upstream.clone(), ..from_environment() };
    let config = match load(args.config.as_deref(), &flags) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    telemetry::start(LogFormat::Text);
    let faults = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(upkeep::UpkeepError::from);
    let done = done.and_then(|runtime| runtime.block_on(upkeep::run(&config, task, args.json)));
    faults.teardown();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!(%error, "not done");
            ExitCode::from(if error.is_usage() { EXIT_USAGE } else { EXIT_UNDONE })
        }
    }
}

fn price(prices: &Path, json: bool) -> ExitCode {
    match upkeep::price(prices, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("not done: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn topics(command: &TopicCommand) -> ExitCode {
    let faults = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.and_then(|runtime| runtime.block_on(command::run(command)));
    faults.teardown();
    match done {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("not done: {error}");
            ExitCode::from(EXIT_UNDONE)
        }
    }
}

fn from_environment() -> Flags {
    let upstream = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok();
    Flags { upstream, store: StoreEnv::read(), ..Flags::default() }
}

/// Loads a configuration; what is wrong with the process's environment is told with it.
fn load(file: Option<&Path>, flags: &Flags) -> Result<Config, ConfigError> {
    let loaded = Config::load(file, flags);
    match (telemetry::problem(), loaded) {
        (None, loaded) => loaded,
        (Some(problem), Ok(_)) => Err(ConfigError(vec![problem])),
        (Some(problem), Err(mut error)) => {
            error.0.push(problem);
            Err(error)
        }
    }
}

fn check(file: Option<&Path>) -> ExitCode {
    match load(file, &from_environment()) {
        Ok(_) => {
            println!("configuration is valid");
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("{error}:");
    for problem in &error.0 {
        eprintln!("  {problem}");
    }
    ExitCode::from(EXIT_USAGE)
}

fn start(args: &RunArgs) -> ExitCode {
    let config = match load(args.config.as_deref(), &args.flags()) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    telemetry::start(args.log);
    let faults = fail::FailScenario::setup();
    let ran = serve(args, config);
    faults.teardown();
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot run");
            ExitCode::FAILURE
        }
    }
}

/// Serves with two runtimes: one of many threads for clients, and this thread for all else.
fn serve(args: &RunArgs, config: Config) -> Result<(), run::RunError> {
    let mut of_clients = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        of_clients.worker_threads(workers.into());
    }
    let of_clients = of_clients.enable_all().build()?;
    let here = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let args = args.clone();
    let load = move || Config::load(args.config.as_deref(), &args.flags());
    let ran = here.block_on(run::run(config, Box::new(load), of_clients.handle()));
    here.shutdown_background();
    of_clients.shutdown_background();
    ran
}
