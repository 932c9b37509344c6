//! What can go wrong while load is made; any of these voids a run.

use std::io;

/// A failed run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// The peer sent something that is not the expected answer.
    #[error("unexpected bytes: {0}")]
    Wire(&'static str),
    /// A message could not be encoded or decoded.
    #[error("codec: {0}")]
    Codec(String),
    /// The broker answered with an error code.
    #[error("{api} was answered with error {code}")]
    Refused {
        /// Name of the API.
        api: &'static str,
        /// Kafka's error code.
        code: i16,
    },
    /// A thread of the generator panicked.
    #[error("a generator thread panicked")]
    Panicked,
    /// A count that must not be zero is, or two counts that must agree do not.
    #[error("count: {0}")]
    Count(String),
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, BenchError>;
