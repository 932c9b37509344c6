//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::raw::Flags;

/// A Kafka-protocol proxy: clients change bootstrap.servers and nothing else.
#[derive(Debug, Parser)]
#[command(name = "firebreak", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Example:\n  firebreak --upstream kafka-1:9092\n  \
    kcat -b 127.0.0.1:19092 -L")]
pub struct Cli {
    /// What to do; without one: run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy (the default).
    Run(RunArgs),
    /// Check a configuration and print every problem: exit code 0 or 2.
    #[command(after_help = "Example:\n  firebreak check firebreak.toml")]
    Check {
        /// The file; without one only environment variables are checked.
        file: Option<PathBuf>,
    },
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Brokers of the cluster: HOST:PORT[,HOST:PORT...].
    #[arg(long, value_name = "H:P", env = "KAFKA_BOOTSTRAP_SERVERS")]
    pub upstream: Option<String>,
    /// Where clients bootstrap [default: 127.0.0.1:19092].
    #[arg(long, value_name = "A:P")]
    pub listen: Option<String>,
    /// Ports of the virtual brokers: node N is served at A + N [default: the 100 behind --listen].
    #[arg(long, value_name = "A-B")]
    pub ports: Option<String>,
    /// Host name that clients are told [default: the address of --listen].
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Admin port: /livez /readyz /metrics /status /config [default: 127.0.0.1:9091].
    #[arg(long, value_name = "A:P")]
    pub admin: Option<SocketAddr>,
    /// Configuration file (TOML); flags win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Form of the log on stderr.
    #[arg(long, value_enum, default_value = "text")]
    pub log: LogFormat,
    /// Threads that move bytes [default: one per core].
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
}

impl RunArgs {
    /// The flags that are laid over the configuration file.
    pub fn flags(&self) -> Flags {
        Flags {
            upstream: self.upstream.clone(),
            listen: self.listen.clone(),
            ports: self.ports.clone(),
            advertise: self.advertise.clone(),
            admin: self.admin,
        }
    }
}
