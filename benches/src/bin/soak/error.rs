//! Why a run could not be made or finished; what a finished run found is no error.

use std::io;
use std::time::Duration;

use rdkafka::error::KafkaError;

/// A run that came to no verdict.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// A file or a process of the run.
    #[error("{what}: {error}")]
    Io {
        /// The file or the process.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// A client could not be made or could not do what the run needs of it.
    #[error("{what}: {error}")]
    Kafka {
        /// What it was to do.
        what: &'static str,
        /// Why.
        error: KafkaError,
    },
    /// Something that had to happen did not, in time.
    #[error("{what}: not after {after:?}{why}")]
    Stuck {
        /// What had to happen.
        what: String,
        /// How long was waited.
        after: Duration,
        /// The last reason known, or nothing.
        why: String,
    },
    /// The environment does not name the S3 service.
    #[error("{0} is not set: `compose/s3.sh start` prints it")]
    Untold(&'static str),
    /// The S3 service does not answer, or not so.
    #[error("S3 service: {0}")]
    Bucket(String),
    /// A topic was not copied, or not all of it.
    #[error("rehydrate {topic}: {ended}: {said}")]
    Rehydrate {
        /// The topic.
        topic: String,
        /// How the command ended.
        ended: String,
        /// What it said.
        said: String,
    },
    /// A thread of the load panicked.
    #[error("a thread of the load panicked")]
    Panicked,
}

impl SoakError {
    /// For `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    /// For `map_err`.
    pub fn kafka(what: &'static str) -> impl FnOnce(KafkaError) -> Self {
        move |error| Self::Kafka { what, error }
    }
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, SoakError>;
