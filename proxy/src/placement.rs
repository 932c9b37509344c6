//! Who decides which segments there are: the placement log, a compacted topic of the cluster.
//!
//! leader (one process): intents -> brokers -> facts, written through a transactional producer.
//! tail (every proxy): log -> table -> the chains that exchanges go by. Invariant: the log is the
//! truth; what is not in it did not happen.

pub mod ask;
pub mod command;
pub mod day;
pub mod leader;
pub mod looks;
pub mod plan;
pub mod record;
pub mod seal;
pub mod table;
pub mod tail;
pub mod writer;
