//! Every bound of the data plane, with its default and its reason.

use std::time::Duration;

/// Bytes of one I/O buffer. Smaller ones cost system calls; an idle connection holds none.
pub const IO_BUFFER_BYTES: usize = 128 * 1024;

/// Buffers kept for reuse; more are given back to the allocator.
pub const IO_BUFFERS_KEPT: usize = 64;

/// A response that may carry a tail of addresses and is at most this long is rewritten whole;
/// longer ones stream and keep their length.
pub const WHOLE_TAIL_BYTES_MAX: usize = 16 * 1024;

/// Longest tail (endpoints of all brokers and tags) of a streamed response.
pub const TAIL_BYTES_MAX: usize = IO_BUFFER_BYTES / 2;

/// Longest response without records that is held whole to be patched.
pub const PATCHED_RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest request, Produce apart, that is held whole: as much as names 100,000 partitions.
pub const WHOLE_REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Requests of one connection without an answer; a client that sends more is read later.
pub const PENDING_EXCHANGES_MAX: usize = 1024;

/// Longest client id that is read, as brokers' strings are.
pub const CLIENT_ID_BYTES_MAX: usize = 32 * 1024;

/// Bytes of a reference: a value must be longer to be worth storing.
pub const REFERENCE_BYTES: usize = 112;

/// Restored values of one Fetch response: clients drop responses beyond 100 MB.
pub const RESTORED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Values of one Produce request that are stored: each takes some hundred bytes besides its own.
pub const LARGE_VALUES_MAX: usize = 64 * 1024;

/// Records fields of one Produce request: six bytes of it make one, which takes a hundred here.
pub const SECTIONS_MAX: usize = 20_000;

/// The same of a Fetch answer.
pub const ANSWERED_SECTIONS_MAX: usize = 100_000;

/// Memory that a value takes besides its own bytes while it is restored.
pub const RESTORING_BYTES: usize = 512;

/// Time for one attempt at the store, and the time that its bytes may take besides.
pub const STORE_ATTEMPT: Duration = Duration::from_secs(4);

/// A transfer slower than this counts as none.
pub const STORE_BYTES_PER_SECOND_MIN: usize = 2 * 1024 * 1024;

/// Time for all attempts: clients wait 30 s for an answer.
pub const STORE_BUDGET: Duration = Duration::from_secs(20);

/// What a page of a listing may take besides the time for any answer: services look through more
/// than they tell.
pub const STORE_PAGE: Duration = Duration::from_secs(6);

/// The same of a directory, which is listed whole.
pub const LOCAL_LISTING: Duration = Duration::from_secs(600);

/// Objects that upkeep reads or removes at once.
pub const UPKEEP_AT_ONCE: usize = 16;

/// Files of a local store that are written, read or listed at once. Work on a disk that hangs goes
/// on though nobody waits for it, and holds a thread and its bytes.
pub const LOCAL_AT_ONCE: usize = 64;

/// Folders of a local store that are known to outlast a crash, of some 100 bytes each; beyond it
/// all are synced once more.
pub const LOCAL_FOLDERS_KNOWN_MAX: usize = 16 * 1024;

/// Pause before the second attempt; it doubles.
pub const STORE_BACKOFF: Duration = Duration::from_millis(75);

/// Failures in a row after which a store is left alone for a while.
pub const STORE_FAILURES_MAX: u32 = 5;

/// How long it is left alone.
pub const STORE_REST: Duration = Duration::from_secs(1);

/// Objects from here on are sent to S3 in parts.
pub const MULTIPART_BYTES_MIN: usize = 32 * 1024 * 1024;

/// Bytes of a part, and parts under way at once.
pub const MULTIPART_PART_BYTES: usize = 16 * 1024 * 1024;

/// See [`MULTIPART_PART_BYTES`].
pub const MULTIPART_AT_ONCE: usize = 4;

/// Values from here on get an object of their own.
pub const ALONE_BYTES_MIN: usize = 8 * 1024 * 1024;

/// Stored bytes between two values that are read along to save a request.
pub const GAP_BYTES_MAX: usize = 1024 * 1024;

/// Values written within this time are new: reading them fills the memory that is kept for them.
pub const HOT: Duration = Duration::from_secs(3600);

/// Ranges that one answer reads at once.
pub const RANGES_AT_ONCE: usize = 8;

/// Time for all values of one answer; clients wait 30 s. Less than for all attempts at the store:
/// what is silent is late, and by both times at once it would be either that or a failure.
pub const FETCH_DEADLINE: Duration = Duration::from_secs(19);

/// Produce requests of one connection whose values are under way to the store at once.
pub const STORING_MAX: usize = 8;

/// A read of the store that takes longer than this, and than most others, is asked twice.
pub const HEDGE_FLOOR: Duration = Duration::from_millis(200);

/// At most one read in so many is.
pub const HEDGED_OF: u64 = 20;

/// Longest range read at once.
pub const RANGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of values that one question to a shared cache is for, or one longer value.
pub const SHARED_QUESTION_BYTES: usize = 1024 * 1024;

/// What it gives or takes in a millisecond at least, beside its time for an answer.
pub const SHARED_BYTES_PER_MS: usize = 8 * 1024;

/// Questions to it that are under way at once.
pub const SHARED_AT_ONCE: usize = 4;

/// Longest value that it can be told to keep.
pub const SHARED_VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of values that wait to be written to it; what comes beyond is not.
pub const SHARED_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Values that wait to be written to it.
pub const SHARED_QUEUE_MAX: usize = 4096;

/// Time to reach it, which nobody waits for.
pub const SHARED_CONNECT: Duration = Duration::from_secs(3);

/// How long it is left alone after a failure, give or take a half.
pub const SHARED_REST: Duration = Duration::from_secs(1);

/// Head start of an attempt to reach something over the next one (RFC 8305 advises 250 ms).
pub const HEAD_START: Duration = Duration::from_millis(250);

/// Time that answers in flight get once a client has closed its side, or sent what is not taken.
pub const HALF_CLOSED: Duration = Duration::from_secs(10);

/// Time that a client of a draining process gets to notice that it was closed.
pub const LINGER: Duration = Duration::from_secs(1);

/// Bytes of a request that must come in `frame_progress`: less is no progress.
pub const FRAME_PROGRESS_BYTES: u64 = 1024;

/// Who holds room of a byte budget for a frame must move this part of it in `frame_progress`.
pub const HELD_SHARE: usize = 8;

/// Longest request that is read before its turn: room for it may be held for as long as the one
/// before takes.
pub const AHEAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// While others wait for room so long, the same must move in this part of `frame_progress`.
pub const WANTED: u32 = 4;

/// A part of a batch with sequences is sent to a broker at most so long after the turn of its
/// request came: what is sent later could be the old copy of a record that its client gave up.
pub const DISPATCH_MAX: Duration = Duration::from_secs(10);

/// A batch with sequences is tried again so long before its client is told to try again.
pub const RETRIES_MAX: Duration = Duration::from_secs(4);

/// Streams (producer and logical partition) that one connection keeps; beyond it all are looked up
/// anew.
pub const STREAMS_MAX: usize = 16 * 1024;

/// Producers, in each partition that they write to, whose newest epoch is kept.
pub const PRODUCERS_MAX: usize = 256 * 1024;

/// Rows of producers in sealed segments that are kept, of some 40 bytes each; beyond it all are
/// asked for anew.
pub const SEALED_ROWS_MAX: usize = 256 * 1024;

/// Shortest time between two questions about the leaders of one topic, however many want one.
pub const LEADERS_PAUSE: Duration = Duration::from_millis(100);

/// Partitions that one request about virtual topics may name: more than any client reads at once.
pub const LEG_PARTITIONS_MAX: usize = 20_000;

/// Longest name of a topic, as brokers have it.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Bytes that the legs of one Fetch ask for at most: less than the longest answer taken.
pub const LEG_FETCH_BYTES_MAX: usize = 60 * 1024 * 1024;

/// Longest frame of a client that has not proved who it is.
pub const AUTHENTICATION_FRAME_BYTES_MAX: usize = 64 * 1024;

/// Frames of a client that has not proved who it is.
pub const AUTHENTICATION_FRAMES_MAX: usize = 32;

/// Time before a wrong proof is answered, as `connection.failed.authentication.delay.ms`.
pub const AUTHENTICATION_DELAY: Duration = Duration::from_millis(100);

/// Passwords checked at once: each may be some milliseconds of work.
pub const PASSWORD_CHECKS_MAX: usize = 4;

/// Times after which something is given up, and sizes set by configuration.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest request frame, as `socket.request.max.bytes` of a broker.
    pub frame_bytes_max: usize,
    /// Client connections at once.
    pub connections_max: usize,
    /// Client connections at once from one address; `None`: as many as there may be.
    pub connections_per_address_max: Option<usize>,
    /// Client connections at once that have not proved who they are, where they must.
    pub unproven_max: usize,
    /// Bytes held for requests and responses that must be buffered.
    pub buffered_bytes_max: usize,
    /// Time to reach a broker.
    pub connect: Duration,
    /// Silence of a client before its first request.
    pub first_request: Duration,
    /// Time without progress within a request.
    pub frame_progress: Duration,
    /// Time without a byte either way, as `connections.max.idle.ms` of a broker.
    pub idle: Duration,
    /// Age at which a connection closes between requests, give or take a half; `None`: never.
    pub age: Option<Duration>,
    /// Time for a client's TLS handshake, and again for its SASL exchange.
    pub handshake: Duration,
    /// Time for the answers in flight at shutdown.
    pub drain: Duration,
    /// How often brokers are asked who they are.
    pub refresh: Duration,
}

impl Limits {
    /// Whether a key of the configuration is one that can change while the process runs.
    pub fn is_live(key: &str) -> bool {
        key.strip_prefix("limits.").is_some_and(|key| LIVE.contains(&key))
    }

    /// These limits, with those of `wanted` that can change while the process runs.
    pub fn renewed(&self, wanted: &Self) -> Self {
        Self {
            frame_bytes_max: self.frame_bytes_max,
            buffered_bytes_max: self.buffered_bytes_max,
            unproven_max: self.unproven_max,
            connect: self.connect,
            refresh: self.refresh,
            ..wanted.clone()
        }
    }

    /// Those of listeners beside the main ones, of which little is asked: an eighth of connections
    /// and bytes, and no frame that these have no room for.
    pub fn beside(&self) -> Self {
        let buffered_bytes_max = self.buffered_bytes_max / 8;
        Self {
            connections_max: (self.connections_max / 8).max(1),
            unproven_max: (self.unproven_max / 8).max(1),
            frame_bytes_max: self.frame_bytes_max.min(buffered_bytes_max / 2),
            buffered_bytes_max,
            ..self.clone()
        }
    }
}

/// Keys of `renewed`.
const LIVE: [&str; 8] = [
    "connections_max",
    "connections_per_address_max",
    "first_request_ms",
    "frame_progress_ms",
    "idle_ms",
    "age_ms",
    "handshake_ms",
    "drain_ms",
];

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 104_857_600,
            connections_max: 15_000,
            connections_per_address_max: None,
            unproven_max: 3000,
            buffered_bytes_max: 512 * 1024 * 1024,
            connect: Duration::from_secs(5),
            first_request: Duration::from_secs(60),
            frame_progress: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            age: None,
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(25),
            refresh: Duration::from_secs(5),
        }
    }
}
