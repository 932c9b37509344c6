//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::StoreEnv;
use crate::config::raw::Flags;
use crate::store::lifecycle::ColdClass;

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
        /// The file, as other commands are given it.
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
    },
    /// Compare stored values with the logs that refer to them: exit code 1 if any is missing, 3 if
    /// that cannot be told.
    #[command(after_help = "Example:\n  firebreak fsck --config firebreak.toml --deep")]
    Fsck {
        /// Read every stored object and check its sums, many at once and in bounded memory.
        #[arg(long)]
        deep: bool,
        /// The configuration and the form of what is printed.
        #[command(flatten)]
        upkeep: UpkeepArgs,
    },
    /// Remove stored values that no log refers to, in two passes: mark, then delete. Also what is
    /// left of uploads that were broken off.
    #[command(after_help = "Example:\n  firebreak gc --config firebreak.toml --dry-run")]
    Gc {
        /// Say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Also values of topics that the cluster does not show: they were deleted, or this
        /// configuration may not see them.
        #[arg(long)]
        deleted_topics: bool,
        /// Hours from the mark to the deletion; younger objects and uploads are left alone.
        #[arg(long, value_name = "N", default_value = "24",
            value_parser = clap::value_parser!(u64).range(1..))]
        grace_hours: u64,
        /// Read every log from its beginning, also what earlier runs left an index of.
        #[arg(long)]
        whole_logs: bool,
        /// The configuration and the form of what is printed.
        #[command(flatten)]
        upkeep: UpkeepArgs,
    },
    /// Copy a topic to another one with its values in it, to be read without the proxy. Goes on
    /// where it ended.
    #[command(
        after_help = "Example:\n  firebreak rehydrate satellite-images --config firebreak.toml"
    )]
    Rehydrate {
        /// The topic.
        topic: String,
        /// Name of the copy [default: that of the topic and "-rehydrated"].
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
        /// Copy records whose values are gone without them, marked by a header; else it ends there.
        #[arg(long)]
        mark_missing: bool,
        /// Copy values that look like references and are not followed as they are; else it ends at
        /// the first that may be one.
        #[arg(long)]
        keep_unsigned: bool,
        /// The configuration and the form of what is printed.
        #[command(flatten)]
        upkeep: UpkeepArgs,
    },
    /// Rules that a bucket keeps by itself: a cheaper class for old objects, an end for uploads
    /// that were broken off.
    #[command(after_help = "Example:\n  firebreak lifecycle apply --config firebreak.toml")]
    Lifecycle {
        /// Print the rules, or set them beside those that the bucket has.
        #[arg(value_enum)]
        action: LifecycleAction,
        /// Days after which objects change their class.
        #[arg(long, value_name = "N", default_value = "90",
            value_parser = clap::value_parser!(u16).range(30..))]
        after_days: u16,
        /// The class; all of these are read at once.
        #[arg(long, value_enum, default_value = "standard-ia")]
        class: ColdClass,
        /// The configuration.
        #[command(flatten)]
        upkeep: UpkeepArgs,
    },
    /// Virtual topics with days: list, describe, roll.
    #[command(after_help = "Example:\n  firebreak topic roll wildfire-detections")]
    Topic {
        /// What to do.
        #[command(subcommand)]
        command: TopicCommand,
    },
    /// What offload would save for a topic, by its log and a list of prices.
    #[command(after_help = "Examples:\n  firebreak analyse satellite-images \
        --upstream kafka-1:9092 --prices prices.toml\n  firebreak analyse --prices prices.toml")]
    Analyse {
        /// The topic; without one only round sizes are priced and no cluster is asked.
        topic: Option<String>,
        /// Longer values would be stored [default: by the topic's rule, else 100000].
        #[arg(long, value_name = "N")]
        threshold_bytes: Option<usize>,
        /// Prices; docs/prices.example.toml has every key.
        #[arg(long, value_name = "FILE")]
        prices: Option<PathBuf>,
        /// The configuration and the form of what is printed.
        #[command(flatten)]
        upkeep: UpkeepArgs,
    },
}

/// What to do with a bucket's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LifecycleAction {
    /// Print them.
    Print,
    /// Set them.
    Apply,
}

/// What to do with virtual topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Virtual topics and how many segments they have.
    List {
        /// Where a running proxy is asked.
        #[command(flatten)]
        at: AdminArgs,
    },
    /// The segments of a virtual topic.
    Describe {
        /// The virtual topic.
        name: String,
        /// Where a running proxy is asked.
        #[command(flatten)]
        at: AdminArgs,
    },
    /// End the open segments of a virtual topic and open new ones.
    Roll {
        /// The virtual topic.
        name: String,
        /// Where a running proxy is asked.
        #[command(flatten)]
        at: AdminArgs,
        /// Time for it, in seconds: a leader that is lost is waited for.
        #[arg(long, value_name = "S", default_value_t = 60)]
        wait_s: u32,
    },
}

/// Where a running proxy is asked, and how its answer is printed.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// Admin port of a running proxy.
    #[arg(long, value_name = "A:P", default_value = "127.0.0.1:9091")]
    pub admin: SocketAddr,
    /// Print one JSON value.
    #[arg(long)]
    pub json: bool,
}

/// What every command of upkeep takes.
#[derive(Debug, Args)]
pub struct UpkeepArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Brokers of the cluster: HOST:PORT[,HOST:PORT...]; wins over the file.
    #[arg(long, value_name = "H:P", env = "KAFKA_BOOTSTRAP_SERVERS")]
    pub upstream: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
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
    /// Admin port: /livez /readyz /metrics /status /config /topics [default: 127.0.0.1:9091].
    #[arg(long, value_name = "A:P")]
    pub admin: Option<SocketAddr>,
    /// Configuration file (TOML); flags win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Form of the log on stderr.
    #[arg(long, value_enum, default_value = "text")]
    pub log: LogFormat,
    /// Threads that move bytes, 1 to 1024 [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
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
            store: StoreEnv::read(),
        }
    }
}
