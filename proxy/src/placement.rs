//! Who decides which segments there are: the placement log, a compacted topic of the cluster.
//!
//! tail (every proxy): log -> table -> the chains that exchanges go by. Invariant: the log is the
//! truth; what is not in it did not happen.

pub mod record;
pub mod table;
pub mod tail;
