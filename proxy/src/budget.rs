//! Room for bytes that are held: a bound, who holds how much of it, and who waits for some.
//!
//! Flow: `take`, in the order of asking -> [`Room`] -> given back when dropped. Holders are known
//! by their task, so that accept/sweep.rs finds the connection that keeps others waiting.
//! Invariant: room is taken before the bytes are there, and whoever holds some never waits for
//! more of the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;

use crate::clock::{self, Tick};
use crate::fault;

/// A bound on bytes held at once.
#[derive(Debug)]
pub struct Budget {
    room: Arc<Semaphore>,
    units: usize,
    table: Arc<Mutex<Table>>,
}

/// Bytes of one unit: semaphores count in 32 bits.
const UNIT_BYTES: usize = 1024;

#[derive(Debug, Default)]
struct Table {
    /// Bytes by task, of rooms that wait for a peer.
    held: HashMap<task::Id, usize>,
    /// Who waits since when, in the order of asking.
    waiting: BTreeMap<u64, Tick>,
    next: u64,
}

/// Bytes of a budget that are taken; dropping gives them back.
#[derive(Debug)]
pub struct Room {
    permit: OwnedSemaphorePermit,
    table: Arc<Mutex<Table>>,
    /// The connection that answers for it, and for how much.
    holder: Option<(task::Id, usize)>,
}

/// A place among those who wait.
struct Waiting<'a>(&'a Mutex<Table>, u64);

impl Budget {
    /// Room for `bytes`.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { room: Arc::new(Semaphore::new(units)), units, table: Arc::default() }
    }

    /// Room for `bytes` if there is some now; more than all there is counts as all.
    pub fn try_take(&self, bytes: usize) -> Option<Room> {
        let permit = self.room.clone().try_acquire_many_owned(self.units_of(bytes)).ok()?;
        Some(self.taken(permit))
    }

    /// Waits for room for `bytes`; more than all there is counts as all.
    pub async fn take(&self, bytes: usize) -> Option<Room> {
        if let Some(room) = self.try_take(bytes) {
            return Some(room);
        }
        let _waiting = Waiting::new(&self.table);
        let permit = self.room.clone().acquire_many_owned(self.units_of(bytes)).await.ok()?;
        Some(self.taken(permit))
    }

    /// Bytes that a task holds for its peers.
    pub fn held_by(&self, task: task::Id) -> usize {
        self.table.lock().held.get(&task).copied().unwrap_or(0)
    }

    /// Since when the first of those who wait does; `None` if nobody waits.
    pub fn waited_for_since(&self) -> Option<Tick> {
        self.table.lock().waiting.first_key_value().map(|(_, since)| *since)
    }

    /// How many wait for room.
    pub fn waiting(&self) -> usize {
        self.table.lock().waiting.len()
    }

    /// Bytes that are taken now.
    pub fn taken_bytes(&self) -> usize {
        (self.units - self.room.available_permits().min(self.units)) * UNIT_BYTES
    }

    /// All bytes there are.
    pub fn bytes(&self) -> usize {
        self.units * UNIT_BYTES
    }

    fn units_of(&self, bytes: usize) -> u32 {
        if fault::on("room-unbounded") {
            return 0;
        }
        u32::try_from(bytes.div_ceil(UNIT_BYTES).min(self.units)).unwrap_or(u32::MAX)
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Room {
        let mut room = Room { permit, table: self.table.clone(), holder: None };
        room.awaits_peer(true);
        room
    }
}

impl Room {
    /// Whether the bytes in it wait for the peer of the connection that took it, as they do at
    /// first; else the work on them is bounded in time by itself, and nobody is to blame.
    pub fn awaits_peer(&mut self, awaits: bool) {
        if let Some((task, bytes)) = self.holder.take() {
            self.table.lock().released(task, bytes);
        }
        if let Some(task) = task::try_id().filter(|_| awaits) {
            let bytes = self.permit.num_permits() * UNIT_BYTES;
            *self.table.lock().held.entry(task).or_default() += bytes;
            self.holder = Some((task, bytes));
        }
    }

    /// Never gives it back: for a fault.
    pub fn leak(mut self) {
        self.permit.split(self.permit.num_permits()).into_iter().for_each(|all| all.forget());
    }

    /// Gives back what is beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let beyond = self.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT_BYTES));
        let awaits = self.holder.is_some();
        self.awaits_peer(false);
        drop(self.permit.split(beyond));
        self.awaits_peer(awaits);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.awaits_peer(false);
    }
}

impl Table {
    fn released(&mut self, task: task::Id, bytes: usize) {
        if let Some(held) = self.held.get_mut(&task) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.held.remove(&task);
            }
        }
    }
}

impl<'a> Waiting<'a> {
    fn new(table: &'a Mutex<Table>) -> Self {
        let mut locked = table.lock();
        let ticket = locked.next;
        locked.next += 1;
        locked.waiting.insert(ticket, clock::now());
        drop(locked);
        Self(table, ticket)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting.remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_known_by_the_task_that_holds_it_while_its_peer_is_waited_for() {
        let mut tasks = task::JoinSet::new();
        tasks.spawn(async {
            let budget = Budget::new(64 * UNIT_BYTES);
            let me = task::id();
            let mut first = budget.take(10 * UNIT_BYTES).await.expect("room");
            let second = budget.take(1).await.expect("room");
            assert_eq!((budget.held_by(me), budget.taken_bytes()), (11 * 1024, 11 * 1024));
            first.shrink(4 * UNIT_BYTES);
            assert_eq!((budget.held_by(me), budget.taken_bytes()), (5 * 1024, 5 * 1024));
            first.awaits_peer(false);
            assert_eq!((budget.held_by(me), budget.taken_bytes()), (1024, 5 * 1024));
            first.awaits_peer(true);
            drop(second);
            assert_eq!(budget.held_by(me), 4 * 1024);
            drop(first);
            assert_eq!((budget.held_by(me), budget.taken_bytes()), (0, 0));
            assert!(budget.table.lock().held.is_empty());
        });
        tasks.join_next().await.expect("a task").expect("no panic");
    }

    #[tokio::test]
    async fn whoever_waits_is_counted_until_it_gives_up() {
        let budget = Budget::new(UNIT_BYTES);
        let all = budget.take(usize::MAX).await.expect("room");
        assert_eq!((budget.waiting(), budget.waited_for_since()), (0, None));
        let short = std::time::Duration::from_millis(1);
        let mut second = Box::pin(budget.take(1));
        assert!(tokio::time::timeout(short, second.as_mut()).await.is_err());
        assert_eq!(budget.waiting(), 1);
        assert!(budget.waited_for_since().is_some_and(|since| since <= clock::now()));
        drop(second);
        assert_eq!((budget.waiting(), budget.waited_for_since()), (0, None));
        drop(all);
        assert!(budget.try_take(1).is_some());
    }
}
