//! The simulation: events by time, one source of randomness, faults, and the check at the end.
//!
//! Proxies here drive `protocol_ext::ees` as the real one does: offer, look up, dispatch under a
//! deadline, judge answers, settle.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use protocol_ext::ees::{
    Newest, PartAnswer, Position, Row, Stream, StreamId, Verdict, View, judge,
};

use crate::brokers::{Append, Entry, Phi};
use crate::clients::{Client, Fate, Kind};

/// Rules left out on purpose, to see that the model notices.
#[derive(Clone, Copy, Debug, Default)]
pub struct Without {
    pub one_outstanding: bool,
    pub contiguity: bool,
    pub first_look_up: bool,
    pub look_up_across_seals: bool,
    pub high_watermark_at_seals: bool,
    pub sealed_length_at_look_ups: bool,
    pub laps: bool,
    /// Batches that no row leads up to wait for others' dispatch only.
    pub patience: bool,
}

/// What happened, over all seeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub batches: u64,
    pub acknowledged: u64,
    pub failed: u64,
    pub new: u64,
    pub duplicates: u64,
    pub older: u64,
    pub fail_overs: u64,
    pub proxy_crashes: u64,
    pub freezes: u64,
    pub lost_answers: u64,
    pub transient: u64,
    pub outages: u64,
    pub seals: u64,
    pub retries_across_seals: u64,
    pub found_in_sealed: u64,
    pub look_ups: u64,
    pub refused: u64,
    pub moves: u64,
    pub returns: u64,
    pub caught_up: u64,
    pub bumps: u64,
    pub wraps: u64,
    pub forgotten: u64,
    pub contradictions: u64,
}

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Lost,
    Doubled,
    Reordered,
    Contradiction,
}

pub const SLOTS: usize = 3;
const PROXIES: usize = 2;
/// Bound of a dispatch after its request was read.
const DISPATCH: u64 = 1_000;
/// As `FORGOTTEN_AFTER`: longer than clients wait for an answer.
const PATIENCE: Duration = Duration::from_millis(5_000);
const PART_TIMEOUT: u64 = 600;
const REQUEST_TIMEOUT: u64 = 3_000;
const DELIVERY_TIMEOUT: u64 = 12_000;
/// Faults stop here; what is open may end after it.
const FAULTS_END: u64 = 20_000;
const END: u64 = 60_000;
const PRODUCER: i64 = 7;
/// Index of what was written before a client's first batch.
const BEFORE: usize = usize::MAX;

#[derive(Clone, Copy, Debug)]
enum Event {
    Client(usize),
    Read { connection: usize, send: u64 },
    Look { job: usize, at: usize },
    Dispatch { job: usize, part: usize },
    AtBroker { job: usize, part: usize, attempt: u32, slot: usize, segment: usize, entry: Entry },
    Judge { job: usize, part: usize, attempt: u32, code: i16, stored_at: i64 },
    Timeout { job: usize, part: usize, attempt: u32 },
    Answer { connection: usize, index: usize, send: u64, durable: bool },
    HungUp { connection: usize },
    Replicate { slot: usize, segment: usize },
    Seal { slot: usize, epoch: Option<u32> },
    Placed { proxy: usize, slot: usize, segments: usize },
    Fault,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Waiting,
    Sent(u32),
    Durable,
    GivenUp,
}

struct Request {
    send: u64,
    index: usize,
    epoch: i16,
    sequence: i32,
    records: u32,
    parts: Rc<[(u8, u32)]>,
}

/// Why a look-up is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    First,
    Sealed,
}

struct Job {
    connection: usize,
    request: Request,
    read_at: u64,
    at: Option<Position>,
    parts: Vec<(Part, u32, usize)>,
    purpose: Purpose,
    view: Vec<Row>,
    failed_look: bool,
    /// It was ahead of what came here.
    ahead: bool,
    targets: Vec<(usize, usize)>,
    /// A look-up runs; all parts wait for it.
    looking: bool,
    done: bool,
}

#[derive(Default)]
struct Connection {
    client: usize,
    proxy: usize,
    queue: VecDeque<(u64, Request)>,
    wire: HashMap<u64, Request>,
    jobs: Vec<usize>,
    streams: HashMap<i16, Stream>,
    /// Segments of each slot that a stream's last look-up covered.
    looked: HashMap<i16, [usize; SLOTS]>,
    hung_up: bool,
    dead: bool,
}

pub struct Sim {
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: HashMap<u64, Event>,
    count: u64,
    random: u64,
    without: Without,
    pub totals: Totals,
    clients: Vec<Client>,
    connections: Vec<Connection>,
    jobs: Vec<Job>,
    chains: Vec<Vec<Phi>>,
    waiting: Vec<(usize, usize, usize, u32, Event)>,
    /// Segments of each slot that a proxy knows of.
    placed: [[usize; SLOTS]; PROXIES],
    frozen: [u64; PROXIES],
    newest_epoch: [HashMap<usize, i16>; PROXIES],
    sealing: [bool; SLOTS],
    large: bool,
    trace: bool,
}

impl Sim {
    pub fn new(seed: u64, kind: Kind, without: Without) -> Self {
        let mut sim = Self {
            now: 0,
            events: BinaryHeap::new(),
            bodies: HashMap::new(),
            count: 0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03,
            without,
            totals: Totals::default(),
            clients: Vec::new(),
            connections: Vec::new(),
            jobs: Vec::new(),
            chains: (0..SLOTS).map(|_| vec![Phi::new()]).collect(),
            waiting: Vec::new(),
            placed: [[1; SLOTS]; PROXIES],
            frozen: [0; PROXIES],
            newest_epoch: Default::default(),
            sealing: [false; SLOTS],
            large: false,
            trace: std::env::var_os("EES_TRACE").is_some(),
        };
        sim.large = sim.one_in(8);
        let near_wrap = without.laps || sim.one_in(3);
        for slot in 0..2 {
            let sequence = if near_wrap { i32::MAX - 40 - sim.below(160) as i32 } else { 0 };
            let connection = sim.connect(usize::from(slot));
            sim.clients.push(Client {
                kind,
                slot,
                epoch: 0,
                sequence,
                connection,
                open: Vec::new(),
                fates: Vec::new(),
                parts: Vec::new(),
                to_make: 110,
                one_by_one: false,
            });
            sim.at(1, Event::Client(usize::from(slot)));
            if near_wrap && !sim.one_in(4) {
                sim.write_before(slot, sequence);
            }
        }
        sim.at(50, Event::Fault);
        sim
    }

    /// Brokers have the batch before a client's first one.
    fn write_before(&mut self, slot: u8, sequence: i32) {
        let id = StreamId::new(PRODUCER, 0, usize::from(slot)).unwrap();
        let fields = id.fields(Position::first_lap(sequence - 3).unwrap());
        let (producer_id, epoch) = (fields.id, fields.epoch);
        let client = usize::from(slot);
        let entry = Entry { producer_id, epoch, records: 3, client, index: BEFORE };
        let phi = &mut self.chains[client][0];
        phi.append(0, entry);
        phi.replicate(None);
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((self.now + delay, self.count)));
        self.bodies.insert(self.count, event);
    }

    fn connect(&mut self, client: usize) -> usize {
        let proxy = self.below(PROXIES as u64) as usize;
        self.connections.push(Connection { client, proxy, ..Connection::default() });
        self.connections.len() - 1
    }

    /// Runs to the end and checks.
    pub fn run(&mut self) -> Vec<Broken> {
        while let Some(Reverse((at, number))) = self.events.pop() {
            let Some(event) = self.bodies.remove(&number) else { continue };
            self.now = at;
            if self.now > END {
                break;
            }
            if let Some(until) = self.thawed_at(&event) {
                self.at(until - self.now, event);
                continue;
            }
            if self.trace {
                eprintln!("{at} {event:?}");
            }
            self.handle(event);
        }
        self.verify()
    }

    /// A frozen proxy does nothing until it goes on.
    fn thawed_at(&self, event: &Event) -> Option<u64> {
        let job = |job: usize| self.connections[self.jobs[job].connection].proxy;
        let proxy = match *event {
            Event::Read { connection, .. } | Event::HungUp { connection } => {
                self.connections[connection].proxy
            }
            Event::Look { job: j, .. }
            | Event::Dispatch { job: j, .. }
            | Event::Judge { job: j, .. }
            | Event::Timeout { job: j, .. } => job(j),
            Event::Placed { proxy, .. } => proxy,
            _ => return None,
        };
        let until = self.frozen[proxy];
        (until > self.now).then_some(until)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Client(client) => self.client(client),
            Event::Read { connection, send } => self.read(connection, send),
            Event::Look { job, at } => self.look(job, at),
            Event::Dispatch { job, part } => self.dispatch(job, part),
            Event::AtBroker { job, part, attempt, slot, segment, entry } => {
                self.at_broker((job, part, attempt), slot, segment, entry);
            }
            Event::Judge { job, part, attempt, code, stored_at } => {
                self.judge(job, part, attempt, code, stored_at);
            }
            Event::Timeout { job, part, attempt } => {
                if self.jobs[job].parts[part].0 == Part::Sent(attempt) {
                    self.retry(job, part);
                }
            }
            Event::Answer { connection, index, send, durable } => {
                if !self.connections[connection].dead {
                    let client = self.connections[connection].client;
                    self.clients[client].answered(self.now, index, send, durable);
                    self.send_all(client);
                }
            }
            Event::HungUp { connection } => self.connections[connection].hung_up = true,
            Event::Replicate { slot, segment } => {
                let lagging = self.one_in(3).then(|| self.below(2) as usize);
                self.chains[slot][segment].replicate(lagging);
                self.acknowledge(slot, segment);
                let phi = &self.chains[slot][segment];
                if phi.high_watermark < phi.log.len() {
                    let delay = 1 + self.below(60);
                    self.at(delay, Event::Replicate { slot, segment });
                }
            }
            Event::Seal { slot, epoch } => self.seal(slot, epoch),
            Event::Placed { proxy, slot, segments } => {
                let known = &mut self.placed[proxy][slot];
                *known = segments.max(*known);
            }
            Event::Fault => self.fault(),
        }
    }

    // -- clients --

    fn client(&mut self, c: usize) {
        let now = self.now;
        let old = self.clients[c].open.first().map(|batch| batch.born + DELIVERY_TIMEOUT);
        if old.is_some_and(|until| now > until) {
            self.totals.bumps += 1;
            self.clients[c].bump();
        }
        if self.clients[c].to_make > 0 && self.clients[c].open.len() < 12 {
            let parts = self.parts();
            let before = self.clients[c].sequence;
            self.clients[c].make(now, parts);
            self.totals.wraps += u64::from(self.clients[c].sequence < before);
        }
        self.send_all(c);
        if self.clients[c].to_make > 0 || !self.clients[c].open.is_empty() {
            let pause = 5 + self.below(60);
            self.at(pause, Event::Client(c));
        }
    }

    fn send_all(&mut self, c: usize) {
        while let Some(place) = self.clients[c].next(self.now) {
            self.send(c, place);
        }
    }

    /// Counts for the slots of a new batch.
    fn parts(&mut self) -> Rc<[(u8, u32)]> {
        let slots = 1 + self.below(7);
        let large = self.large;
        let mut parts = Vec::new();
        for slot in 0..SLOTS as u8 {
            if slots >> slot & 1 == 1 {
                let count = if large { (1 << 22) + self.below(1 << 20) } else { 1 + self.below(6) };
                parts.push((slot, count as u32));
            }
        }
        parts.into()
    }

    fn send(&mut self, c: usize, place: usize) {
        let connection = self.clients[c].connection;
        self.count += 1;
        let send = self.count;
        let batch = &mut self.clients[c].open[place];
        batch.attempts += 1;
        batch.flight = Some((connection, send));
        let request = Request {
            send,
            index: batch.index,
            epoch: batch.epoch,
            sequence: batch.sequence,
            records: batch.records,
            parts: batch.parts.clone(),
        };
        self.connections[connection].wire.insert(send, request);
        // In order on one connection, so the delay is the same for all.
        self.at(2, Event::Read { connection, send });
    }

    /// A client leaves its connection: `open` if the old one stays for what is in flight on it, and
    /// for its return.
    fn move_client(&mut self, c: usize, open: bool) {
        let old = self.clients[c].connection;
        let mine = |(n, on): &(usize, &Connection)| *n != old && on.client == c && !on.dead;
        let open_ones: Vec<usize> =
            self.connections.iter().enumerate().filter(mine).map(|(n, _)| n).collect();
        let new = match open_ones.last() {
            Some(there) if open && self.one_in(2) => {
                self.totals.returns += 1;
                *there
            }
            _ => self.connect(c),
        };
        self.clients[c].connection = new;
        if !open {
            self.connections[old].dead = true;
            self.clients[c].lost(self.now, old);
            let delay = self.below(30);
            self.at(delay, Event::HungUp { connection: old });
        }
    }

    // -- proxies --

    fn read(&mut self, connection: usize, send: u64) {
        let Some(request) = self.connections[connection].wire.remove(&send) else { return };
        let (proxy, client) =
            (self.connections[connection].proxy, self.connections[connection].client);
        let newest = self.newest_epoch[proxy].entry(client).or_default();
        *newest = request.epoch.max(*newest);
        self.connections[connection].queue.push_back((self.now, request));
        self.work(connection);
    }

    /// Takes up queued requests, one after the other.
    fn work(&mut self, connection: usize) {
        let at_once = if self.without.one_outstanding { 2 } else { 1 };
        while self.connections[connection].jobs.len() < at_once {
            let Some((_, request)) = self.connections[connection].queue.pop_front() else { return };
            let parts = request.parts.iter().map(|_| (Part::Waiting, 0, 0)).collect();
            let job = self.jobs.len();
            let (epoch, sequence) = (request.epoch, request.sequence);
            let records = request.records;
            self.jobs.push(Job {
                connection,
                request,
                // A request is read when its turn comes: the client may wait in the socket.
                read_at: self.now,
                at: None,
                parts,
                purpose: Purpose::Sealed,
                view: Vec::new(),
                failed_look: false,
                ahead: false,
                targets: Vec::new(),
                looking: false,
                done: false,
            });
            self.connections[connection].jobs.push(job);
            let stream = self.connections[connection].streams.entry(epoch).or_default();
            match stream.offer(sequence, records) {
                Verdict::LookUp if self.without.first_look_up => {
                    self.blindly(job);
                }
                Verdict::Refuse | Verdict::Ahead if self.without.contiguity => {
                    let at = Position::first_lap(sequence).unwrap();
                    self.decided(job, Verdict::Accept(at));
                }
                verdict @ (Verdict::LookUp | Verdict::Ahead) => {
                    self.jobs[job].ahead = verdict == Verdict::Ahead;
                    self.start_look(job, Purpose::First);
                }
                verdict => self.decided(job, verdict),
            }
        }
    }

    fn decided(&mut self, job: usize, verdict: Verdict) {
        match verdict {
            Verdict::Accept(at) => {
                let at = match self.without.laps {
                    true => Position::first_lap(at.sequence()).unwrap(),
                    false => at,
                };
                self.jobs[job].at = Some(at);
                if self.without.one_outstanding {
                    self.stream(job).settle(at, true);
                }
                self.cross_seals_then_dispatch(job);
            }
            Verdict::LookUp | Verdict::Ahead | Verdict::Refuse => {
                self.totals.refused += 1;
                self.finish(job, false);
            }
        }
    }

    fn stream(&mut self, job: usize) -> &mut Stream {
        let Job { connection, request, .. } = &self.jobs[job];
        self.connections[*connection].streams.entry(request.epoch).or_default()
    }

    fn segments(&self, job: usize) -> [usize; SLOTS] {
        self.placed[self.connections[self.jobs[job].connection].proxy]
    }

    /// The first write to a new segment needs a look at the sealed ones before it.
    fn cross_seals_then_dispatch(&mut self, job: usize) {
        let segments = self.segments(job);
        let Job { connection, request, .. } = &self.jobs[job];
        let looked =
            self.connections[*connection].looked.entry(request.epoch).or_insert([1; SLOTS]);
        let slots = request.parts.iter().map(|(slot, _)| usize::from(*slot));
        let new = slots.filter(|slot| segments[*slot] > looked[*slot]).count();
        if new > 0 && self.without.look_up_across_seals {
            *looked = segments;
        } else if new > 0 {
            return self.start_look(job, Purpose::Sealed);
        }
        for part in 0..self.jobs[job].parts.len() {
            if self.jobs[job].parts[part].0 == Part::Waiting {
                self.dispatch(job, part);
            }
        }
    }

    fn start_look(&mut self, job: usize, purpose: Purpose) {
        self.totals.look_ups += 1;
        let segments = self.segments(job);
        let all = (0..SLOTS).flat_map(|slot| (0..segments[slot]).map(move |n| (slot, n)));
        let only_sealed = purpose == Purpose::Sealed;
        let targets = all.filter(|(slot, n)| !only_sealed || n + 1 < segments[*slot]).collect();
        let job_ = &mut self.jobs[job];
        (job_.purpose, job_.targets, job_.failed_look) = (purpose, targets, false);
        job_.view.clear();
        job_.looking = true;
        let delay = 1 + self.below(5);
        self.at(delay, Event::Look { job, at: 0 });
    }

    /// Reads one physical partition after the other: a look-up is not one moment.
    fn look(&mut self, job: usize, at: usize) {
        let Some((slot, segment)) = self.jobs[job].targets.get(at).copied() else {
            return self.looked(job);
        };
        match self.rows(job, slot, segment) {
            Some(rows) => self.jobs[job].view.extend(rows),
            None => self.jobs[job].failed_look = true,
        }
        let delay = self.below(4);
        self.at(delay, Event::Look { job, at: at + 1 });
    }

    fn rows(&mut self, job: usize, slot: usize, segment: usize) -> Option<Vec<Row>> {
        let Job { connection, request, .. } = &self.jobs[job];
        let client = &self.clients[self.connections[*connection].client];
        let id = StreamId::new(PRODUCER, request.epoch, usize::from(client.slot))?;
        let phi = &self.chains[slot][segment];
        let ghost = phi.ghost.as_ref().filter(|ghost| ghost.until > self.now);
        let (producers, end, high_watermark) = match ghost {
            Some(ghost) => (&ghost.producers, ghost.end, ghost.high_watermark),
            None if phi.is_led(self.now) => (&phi.producers, phi.log.len(), phi.high_watermark),
            None => return None,
        };
        if let Some(sealed) = phi.sealed {
            let whole = end == sealed && high_watermark == sealed;
            if !whole && !self.without.sealed_length_at_look_ups {
                return None;
            }
        } else if ghost.is_some() {
            // A question with the leader epoch of fresh metadata is refused there.
            return None;
        }
        let rows = producers.iter().filter_map(|(producer_id, last)| {
            let (of, at) = StreamId::read(*producer_id, i32::from(last.epoch))?;
            (of == id).then_some(Row {
                slot: slot as u8,
                sealed: phi.sealed.is_some(),
                at,
                records: last.records,
                committed: high_watermark >= end,
            })
        });
        Some(rows.collect())
    }

    fn looked(&mut self, job: usize) {
        let segments = self.segments(job);
        let view = View(std::mem::take(&mut self.jobs[job].view));
        let failed = self.jobs[job].failed_look;
        self.jobs[job].looking = false;
        let Request { epoch, sequence, records, .. } = self.jobs[job].request;
        let laps = !self.without.laps;
        let connection = self.jobs[job].connection;
        if failed {
            if self.jobs[job].at.is_some() && self.in_time(job) {
                let delay = 20 + self.below(50);
                self.jobs[job].targets.clear();
                self.jobs[job].purpose = Purpose::Sealed;
                let job_ = &mut self.jobs[job];
                let all = (0..SLOTS).flat_map(|slot| (0..segments[slot]).map(move |n| (slot, n)));
                job_.targets = all.filter(|(slot, n)| n + 1 < segments[*slot]).collect();
                (job_.failed_look, job_.looking) = (false, true);
                return self.at(delay, Event::Look { job, at: 0 });
            }
            self.totals.refused += 1;
            return self.finish(job, false);
        }
        // What was placed while this look-up ran is looked at before the first write there.
        let covered = self.covered(job);
        self.connections[connection].looked.insert(epoch, covered);
        match self.jobs[job].purpose {
            Purpose::Sealed => {
                self.stream(job).see_sealed(&view);
                self.cross_seals_then_dispatch(job);
            }
            Purpose::First if !laps => self.literally(job, &view),
            Purpose::First => {
                let now = Duration::from_millis(self.now);
                let short = Duration::from_millis(DISPATCH);
                let patience = if self.without.patience { short } else { PATIENCE };
                let stream = self.stream(job);
                let verdict = stream.offer_seen((sequence, records), &view, now, patience);
                if let Verdict::Accept(at) = verdict {
                    let follows = match view.newest() {
                        Newest::Batch { at: newest, records, .. } => {
                            newest.to(at) <= 0 || newest.behind(records) == at
                        }
                        Newest::Nothing | Newest::Unclear => sequence == 0,
                    };
                    self.totals.forgotten += u64::from(!follows);
                    self.totals.caught_up += u64::from(self.jobs[job].ahead);
                }
                self.decided(job, verdict);
            }
        }
    }

    fn covered(&self, job: usize) -> [usize; SLOTS] {
        let mut covered = [1; SLOTS];
        for (slot, n) in &self.jobs[job].targets {
            // All but the last segment are sealed, so segment n was open at most.
            let known = if self.jobs[job].purpose == Purpose::Sealed { n + 2 } else { n + 1 };
            covered[*slot] = covered[*slot].max(known);
        }
        covered
    }

    /// The rule for first batches with sequences compared as numbers.
    fn literally(&mut self, job: usize, view: &View) {
        let Request { sequence, .. } = self.jobs[job].request;
        let newest = view.0.iter().map(|row| row.at.sequence()).max();
        let there = view.0.iter().filter(|row| Some(row.at.sequence()) == newest);
        let next = newest.map(|newest| newest.wrapping_add(there.map(|r| r.records as i32).sum()));
        let goes = newest.is_none_or(|newest| sequence <= newest || Some(sequence) == next);
        match goes {
            true => self.blindly(job),
            false => self.decided(job, Verdict::Refuse),
        }
    }

    /// Accepts the first batch of a stream on a connection, whatever it is.
    fn blindly(&mut self, job: usize) {
        let Request { sequence, records, .. } = self.jobs[job].request;
        let (batch, nothing, zero) = ((sequence, records), View::default(), Duration::ZERO);
        let stream = self.stream(job);
        let verdict = match stream.offer_seen(batch, &nothing, zero, zero) {
            Verdict::Refuse => stream.offer_seen(batch, &nothing, zero, zero),
            verdict => verdict,
        };
        self.decided(job, verdict);
    }

    fn in_time(&self, job: usize) -> bool {
        let Job { connection, request, read_at, .. } = &self.jobs[job];
        let connection = &self.connections[*connection];
        let newest = self.newest_epoch[connection.proxy].get(&connection.client).copied();
        self.now <= read_at + DISPATCH
            && !connection.hung_up
            && newest.is_none_or(|newest| newest <= request.epoch)
    }

    fn dispatch(&mut self, job: usize, part: usize) {
        let Job { done, looking, parts, .. } = &self.jobs[job];
        if *done || *looking || parts[part].0 != Part::Waiting {
            return;
        }
        let Some(at) = self.jobs[job].at else { return };
        let (slot, records) = self.jobs[job].request.parts[part];
        if self.stream(job).is_sealed_in(slot, at) {
            self.totals.found_in_sealed += 1;
            self.jobs[job].parts[part].0 = Part::Durable;
            return self.ended(job);
        }
        if !self.in_time(job) {
            self.jobs[job].parts[part].0 = Part::GivenUp;
            return self.ended(job);
        }
        let connection = self.jobs[job].connection;
        let client = self.connections[connection].client;
        let epoch = self.jobs[job].request.epoch;
        let segment = self.segments(job)[usize::from(slot)] - 1;
        let looked = self.connections[connection].looked.get(&epoch);
        if looked.is_some_and(|looked| looked[usize::from(slot)] < segment + 1)
            && !self.without.look_up_across_seals
        {
            return self.cross_seals_then_dispatch(job);
        }
        let id = StreamId::new(PRODUCER, epoch, usize::from(self.clients[client].slot));
        let fields = id.unwrap().fields(at);
        let index = self.jobs[job].request.index;
        let (producer_id, epoch) = (fields.id, fields.epoch);
        let entry = Entry { producer_id, epoch, records, client, index };
        let state = &mut self.jobs[job].parts[part];
        let attempt = state.1 + 1;
        let crossing = state.1 > 0 && state.2 < segment;
        *state = (Part::Sent(attempt), attempt, segment);
        self.totals.retries_across_seals += u64::from(crossing);
        self.at(PART_TIMEOUT, Event::Timeout { job, part, attempt });
        let slot = usize::from(slot);
        // Lost on the way at times, slow at times.
        if self.faulty() && self.one_in(40) {
            return;
        }
        let delay = if self.faulty() && self.one_in(30) { self.below(900) } else { self.below(4) };
        self.at(delay, Event::AtBroker { job, part, attempt, slot, segment, entry });
    }

    fn faulty(&self) -> bool {
        self.now < FAULTS_END
    }

    fn judge(&mut self, job: usize, part: usize, attempt: u32, code: i16, stored_at: i64) {
        let state = self.jobs[job].parts[part];
        // A late answer to an attempt that was given up counts as well, but for refusals.
        let current = state.0 == Part::Sent(attempt);
        match judge(code, 0, stored_at) {
            answer if answer.is_durable() => {
                match answer {
                    PartAnswer::Duplicate(_) => self.totals.duplicates += 1,
                    PartAnswer::Older => self.totals.older += 1,
                    _ => self.totals.new += 1,
                }
                if current {
                    self.jobs[job].parts[part].0 = Part::Durable;
                    self.ended(job);
                }
            }
            PartAnswer::Contradiction => {
                self.totals.contradictions += 1;
                if current {
                    self.jobs[job].parts[part].0 = Part::GivenUp;
                    self.ended(job);
                }
            }
            _ if current => self.retry(job, part),
            _ => {}
        }
    }

    fn retry(&mut self, job: usize, part: usize) {
        if self.jobs[job].done {
            return;
        }
        self.jobs[job].parts[part].0 = Part::Waiting;
        let delay = 15 + self.below(60);
        self.at(delay, Event::Dispatch { job, part });
    }

    /// A part has ended: the batch has, if all have.
    fn ended(&mut self, job: usize) {
        let parts = &self.jobs[job].parts;
        if parts.iter().all(|(part, ..)| matches!(part, Part::Durable | Part::GivenUp)) {
            let durable = parts.iter().all(|(part, ..)| *part == Part::Durable);
            self.finish(job, durable);
        }
    }

    fn finish(&mut self, job: usize, durable: bool) {
        if std::mem::replace(&mut self.jobs[job].done, true) {
            return;
        }
        if let Some(at) = self.jobs[job].at
            && !(self.without.one_outstanding && durable)
        {
            self.stream(job).settle(at, durable);
        }
        let connection = self.jobs[job].connection;
        self.connections[connection].jobs.retain(|open| *open != job);
        let Request { index, send, .. } = self.jobs[job].request;
        self.at(2, Event::Answer { connection, index, send, durable });
        self.work(connection);
    }

    // -- brokers --

    fn at_broker(&mut self, of: (usize, usize, u32), slot: usize, segment: usize, entry: Entry) {
        let (job, part, attempt) = of;
        let now = self.now;
        let answer = |code, stored_at| Event::Judge { job, part, attempt, code, stored_at };
        if self.faulty() && self.one_in(50) {
            self.totals.transient += 1;
            let code = if self.one_in(2) { 19 } else { 6 };
            return self.at(1, answer(code, -1));
        }
        match self.chains[slot][segment].append(now, entry) {
            Append::Code(code) => self.at(1, answer(code, -1)),
            Append::At { needs, duplicate } => {
                let event = answer(0, if duplicate { 1 } else { -1 });
                if self.faulty() && self.one_in(40) {
                    self.totals.lost_answers += 1;
                } else {
                    let leader = self.chains[slot][segment].leader_epoch;
                    self.waiting.push((slot, segment, needs, leader, event));
                }
                let delay = 1 + self.below(8);
                self.at(delay, Event::Replicate { slot, segment });
                self.acknowledge(slot, segment);
            }
        }
    }

    /// Answers what is replicated; what waited at a lost leader is never answered.
    fn acknowledge(&mut self, slot: usize, segment: usize) {
        let phi = &self.chains[slot][segment];
        let (end, epoch) = (phi.high_watermark, phi.leader_epoch);
        let here = |w: &(usize, usize, usize, u32, Event)| w.0 == slot && w.1 == segment;
        let all = std::mem::take(&mut self.waiting);
        for waiting in all {
            if !here(&waiting) {
                self.waiting.push(waiting);
            } else if waiting.3 == epoch {
                match waiting.2 <= end {
                    true => self.at(1, waiting.4),
                    false => self.waiting.push(waiting),
                }
            }
        }
    }

    /// One step of sealing the newest segment of a slot: refuse writes, wait until they are
    /// refused, wait until everything is replicated, make the seal a fact.
    fn seal(&mut self, slot: usize, seen_epoch: Option<u32>) {
        let segment = self.chains[slot].len() - 1;
        let now = self.now;
        let phi = &mut self.chains[slot][segment];
        if phi.refuses_from.is_none() {
            self.sealing[slot] = true;
            let lag = self.below(200);
            self.chains[slot][segment].refuses_from = Some(now + lag);
            return self.at(lag, Event::Seal { slot, epoch: None });
        }
        if !phi.is_led(now) {
            return self.at(20, Event::Seal { slot, epoch: None });
        }
        let replicated = phi.high_watermark == phi.log.len();
        let ready = replicated && seen_epoch == Some(phi.leader_epoch);
        if !ready && !self.without.high_watermark_at_seals {
            let epoch = Some(phi.leader_epoch);
            self.at(15, Event::Replicate { slot, segment });
            return self.at(20, Event::Seal { slot, epoch });
        }
        phi.sealed = Some(phi.high_watermark);
        self.totals.seals += 1;
        self.sealing[slot] = false;
        self.chains[slot].push(Phi::new());
        let segments = self.chains[slot].len();
        for proxy in 0..PROXIES {
            let delay = 1 + self.below(400);
            self.at(delay, Event::Placed { proxy, slot, segments });
        }
    }

    fn fault(&mut self) {
        if !self.faulty() {
            return;
        }
        let slot = self.below(SLOTS as u64) as usize;
        let segment = match self.one_in(3) {
            true => self.below(self.chains[slot].len() as u64) as usize,
            false => self.chains[slot].len() - 1,
        };
        let now = self.now;
        match self.below(10) {
            0..3 => {
                self.totals.fail_overs += 1;
                let (pause, ghost) = (10 + self.below(300), 200 + self.below(2_500));
                let ghost = self.one_in(2).then_some(now + ghost);
                self.chains[slot][segment].fail_over(now, pause, ghost);
                self.at(5, Event::Replicate { slot, segment });
            }
            3 => {
                self.totals.outages += 1;
                let pause = 300 + self.below(1_800);
                self.chains[slot][segment].down_until = now + pause;
            }
            4 => {
                self.totals.freezes += 1;
                let proxy = self.below(PROXIES as u64) as usize;
                self.frozen[proxy] = now + 300 + self.below(5_000);
            }
            5 => self.crash_proxy(),
            6 | 7 => {
                self.totals.moves += 1;
                let client = self.below(self.clients.len() as u64) as usize;
                let open = !self.one_in(4);
                self.move_client(client, open);
            }
            _ if !self.sealing[slot] && self.chains[slot].len() < 8 => {
                self.at(0, Event::Seal { slot, epoch: None });
            }
            _ => {}
        }
        self.time_out_requests();
        let pause = 40 + self.below(400);
        self.at(pause, Event::Fault);
    }

    fn crash_proxy(&mut self) {
        self.totals.proxy_crashes += 1;
        let proxy = self.below(PROXIES as u64) as usize;
        for connection in 0..self.connections.len() {
            if self.connections[connection].proxy != proxy || self.connections[connection].dead {
                continue;
            }
            let client = self.connections[connection].client;
            let gone = &mut self.connections[connection];
            (gone.dead, gone.hung_up) = (true, true);
            gone.queue.clear();
            gone.wire.clear();
            for job in std::mem::take(&mut gone.jobs) {
                self.jobs[job].done = true;
            }
            self.clients[client].lost(self.now, connection);
            if self.clients[client].connection == connection {
                let new = self.connect(client);
                self.clients[client].connection = new;
            }
        }
        self.newest_epoch[proxy].clear();
    }

    /// Clients leave connections that do not answer.
    fn time_out_requests(&mut self) {
        for c in 0..self.clients.len() {
            let now = self.now;
            let stuck = self.clients[c].open.iter().find_map(|batch| {
                let (on, send) = batch.flight?;
                let waited = self.connections[on].wire.contains_key(&send)
                    || now.saturating_sub(batch.not_before) > REQUEST_TIMEOUT;
                (waited && now > batch.not_before + REQUEST_TIMEOUT).then_some(on)
            });
            let Some(on) = stuck else { continue };
            if on == self.clients[c].connection {
                self.move_client(c, false);
            } else {
                self.connections[on].dead = true;
                self.clients[c].lost(now, on);
                self.at(5, Event::HungUp { connection: on });
            }
        }
    }

    // -- the check --

    fn verify(&mut self) -> Vec<Broken> {
        let mut broken = Vec::new();
        if self.totals.contradictions > 0 {
            broken.push(Broken::Contradiction);
        }
        for (c, client) in self.clients.iter().enumerate() {
            self.totals.batches += client.fates.len() as u64;
            for fate in &client.fates {
                match fate {
                    Fate::Acknowledged => self.totals.acknowledged += 1,
                    Fate::Failed => self.totals.failed += 1,
                    Fate::Open => {}
                }
            }
            for slot in 0..SLOTS as u8 {
                let visible = self.chains[usize::from(slot)].iter().flat_map(|phi| {
                    let end = phi.sealed.unwrap_or(phi.log.len()).min(phi.log.len());
                    phi.log[..end].iter().filter(|entry| entry.client == c && entry.index != BEFORE)
                });
                let visible: Vec<usize> = visible.map(|entry| entry.index).collect();
                broken.extend(check(client, slot, &visible));
            }
        }
        broken
    }
}

fn check(client: &Client, slot: u8, visible: &[usize]) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut times = vec![0_u32; client.fates.len()];
    let mut newest = None;
    for index in visible {
        times[*index] += 1;
        if client.fates[*index] == Fate::Acknowledged && times[*index] == 1 {
            if newest.is_some_and(|newest| newest > *index) {
                if std::env::var_os("EES_TRACE").is_some() {
                    eprintln!("reordered: client {} batch {index} in slot {slot}", client.slot);
                }
                broken.push(Broken::Reordered);
            }
            newest = Some(*index);
        }
    }
    for (index, fate) in client.fates.iter().enumerate() {
        let has_part = client.parts[index].iter().any(|(of, _)| *of == slot);
        if times[index] > 1 {
            if std::env::var_os("EES_TRACE").is_some() {
                eprintln!("doubled: client {} batch {index} in slot {slot}", client.slot);
            }
            broken.push(Broken::Doubled);
        }
        if has_part && *fate == Fate::Acknowledged && times[index] == 0 {
            if std::env::var_os("EES_TRACE").is_some() {
                eprintln!("lost: client {} batch {index} in slot {slot}", client.slot);
            }
            broken.push(Broken::Lost);
        }
    }
    broken
}
