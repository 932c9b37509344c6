//! Producers of the model, as three real clients behave towards one partition.

use std::rc::Rc;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each answer counts for its batch; new batches are sent behind the retry of a failed one.
    Java,
    /// A later success proves the earlier batches.
    Librdkafka,
    /// After a failure it goes back to the failed batch and sends one at a time.
    Franz,
}

/// A client batch: its content is fixed once it is made.
#[derive(Clone, Debug)]
pub struct Batch {
    pub index: usize,
    pub epoch: i16,
    pub sequence: i32,
    pub records: u32,
    /// Slot and count of the records that go there.
    pub parts: Rc<[(u8, u32)]>,
    pub born: u64,
    pub attempts: u32,
    pub not_before: u64,
    /// Connection and send number while it is in flight.
    pub flight: Option<(usize, u64)>,
}

/// What a client saw of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Open,
    Acknowledged,
    Failed,
}

pub struct Client {
    pub kind: Kind,
    pub slot: u8,
    pub epoch: i16,
    pub sequence: i32,
    pub connection: usize,
    /// Not acknowledged yet, in order.
    pub open: Vec<Batch>,
    pub fates: Vec<Fate>,
    pub parts: Vec<Rc<[(u8, u32)]>>,
    pub to_make: usize,
    pub one_by_one: bool,
}

/// Requests in flight.
pub const WINDOW: usize = 5;

impl Client {
    pub fn make(&mut self, now: u64, parts: Rc<[(u8, u32)]>) {
        let records: u32 = parts.iter().map(|(_, count)| count).sum();
        self.open.push(Batch {
            index: self.fates.len(),
            epoch: self.epoch,
            sequence: self.sequence,
            records,
            parts: parts.clone(),
            born: now,
            attempts: 0,
            not_before: now,
            flight: None,
        });
        self.fates.push(Fate::Open);
        self.parts.push(parts);
        self.to_make -= 1;
        self.sequence = self.sequence.wrapping_add(records.cast_signed()) & i32::MAX;
    }

    /// The batch to send now, by its place in `open`.
    pub fn next(&self, now: u64) -> Option<usize> {
        let flying = self.open.iter().filter(|batch| batch.flight.is_some()).count();
        let window = if self.one_by_one { 1 } else { WINDOW };
        if flying >= window {
            return None;
        }
        let at = self.open.iter().position(|batch| batch.flight.is_none())?;
        let batch = &self.open[at];
        let ready = now >= batch.not_before;
        // A retry goes alone in front of what is in flight; what is new may follow it.
        let turn = self.kind != Kind::Java || batch.attempts == 0 || at == 0;
        (ready && turn).then_some(at)
    }

    /// Takes the answer to a send; a late one for an older send is ignored.
    pub fn answered(&mut self, now: u64, index: usize, send: u64, durable: bool) {
        let Some(at) = self.open.iter().position(|batch| batch.index == index) else { return };
        if self.open[at].flight.is_none_or(|(_, number)| number != send) {
            return;
        }
        self.open[at].flight = None;
        if !durable {
            self.open[at].not_before = now + 20;
            if self.kind == Kind::Franz {
                self.one_by_one = true;
                for batch in &mut self.open[at..] {
                    batch.flight = None;
                }
            }
            return;
        }
        match self.kind {
            Kind::Java => {
                self.open.remove(at);
                self.fates[index] = Fate::Acknowledged;
            }
            Kind::Librdkafka => {
                for batch in self.open.drain(..=at) {
                    self.fates[batch.index] = Fate::Acknowledged;
                }
            }
            Kind::Franz if at == 0 => {
                self.one_by_one = false;
                self.open.remove(0);
                self.fates[index] = Fate::Acknowledged;
            }
            // Not the first one: it is sent again in its turn.
            Kind::Franz => self.one_by_one = true,
        }
    }

    /// A connection is lost: what flew on it is sent again.
    pub fn lost(&mut self, now: u64, connection: usize) {
        for batch in &mut self.open {
            if batch.flight.is_some_and(|(on, _)| on == connection) {
                batch.flight = None;
                batch.not_before = now + 10;
            }
        }
    }

    /// Gives up on what is open and goes on with a new epoch.
    pub fn bump(&mut self) {
        for batch in self.open.drain(..) {
            self.fates[batch.index] = Fate::Failed;
        }
        self.epoch += 1;
        self.sequence = 0;
        self.one_by_one = false;
    }
}
