//! Fake brokers on hosts of the simulated network.
//!
//! They share one state, as if replication were perfect: what was appended survives every crash.
//! A broker serves one request of a connection at a time and takes its time for it.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use protocol_ext::fake_broker::{FakeNode, FakeSession, Step};
use protocol_ext::header::Head;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::{TcpListener, TcpStream};

use crate::world::{Phase, World};

/// Hosts of brokers.
pub const HOSTS: usize = 4;
/// Ids that brokers may have.
pub const IDS: i32 = 7;
/// Port of every broker.
pub const PORT: u16 = 9092;
/// One answer in so many comes in pieces.
const PIECES_OF: usize = 6;
/// Requests of one API that are answered at once.
const API_VERSIONS: i16 = 18;

/// The host of a broker.
pub fn host(n: usize) -> String {
    format!("upstream-{n}")
}

/// Runs the broker of a host until it crashes.
pub async fn run(world: Rc<World>, n: usize) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    tokio::time::sleep(world.ms(1, 300)).await;
    let id = world.ids.borrow()[n];
    join(&world, n, id);
    loop {
        let (stream, _) = listener.accept().await?;
        let world = world.clone();
        tokio::task::spawn_local(async move {
            // However a connection ends, its client sees it.
            let _ = serve(&world, stream, id).await;
        });
    }
}

struct Open(Rc<World>);

impl Open {
    fn new(world: &Rc<World>) -> Self {
        world.open_at_brokers.set(world.open_at_brokers.get() + 1);
        Self(world.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_at_brokers.set(self.0.open_at_brokers.get() - 1);
    }
}

/// The controller takes a broker in.
fn join(world: &World, n: usize, id: i32) {
    let mut cluster = world.cluster.borrow_mut();
    cluster.nodes.retain(|node| node.id != id && node.host != host(n));
    cluster.nodes.push(FakeNode { id, host: host(n), port: PORT });
    drop(cluster);
    lead(world, 3);
}

/// The controller takes a broker out, and others lead in its place.
pub fn leave(world: &World, n: usize) {
    world.cluster.borrow_mut().nodes.retain(|node| node.host != host(n));
    lead(world, 0);
}

/// Gives every partition without a leader one, and one in so many of the others another.
pub fn lead(world: &World, moved_of: usize) {
    let mut cluster = world.cluster.borrow_mut();
    let nodes: Vec<i32> = cluster.nodes.iter().map(|node| node.id).collect();
    if nodes.is_empty() {
        return;
    }
    for log in cluster.topics.iter_mut().flat_map(|topic| &mut topic.logs) {
        let (leader, epoch) = log.leader.unwrap_or((-1, 0));
        let moves = moved_of > 0 && world.one_in(moved_of);
        if !nodes.contains(&leader) || moves {
            let next = nodes[world.below(nodes.len())];
            if next != leader {
                log.leader = Some((next, epoch + 1));
                world.count("leaders moved");
            }
        }
    }
}

/// Who asks, as its request says.
fn client(frame: &[u8]) -> Option<String> {
    let length = usize::try_from(i16::from_be_bytes(frame.get(8..10)?.try_into().ok()?)).ok()?;
    String::from_utf8(frame.get(10..10 + length)?.to_vec()).ok()
}

async fn serve(world: &Rc<World>, mut stream: TcpStream, id: i32) -> std::io::Result<()> {
    let mut session = FakeSession::default();
    let mut open = None;
    let name = format!("broker {id}");
    loop {
        // A partition hides the end of a connection, so idle ones are closed.
        let length = tokio::time::timeout(world.idle.get(), stream.read_i32()).await;
        let length = length.map_err(|_| std::io::ErrorKind::TimedOut)?;
        let length = usize::try_from(length?).map_err(std::io::Error::other)?;
        let mut frame = BytesMut::zeroed(length);
        stream.read_exact(&mut frame).await?;
        let frame = frame.freeze();
        world.event(&name, "asked", &frame);
        let Ok(head) = Head::parse(&frame) else {
            world.violate(format!("broker {id} got no request"));
            return Ok(());
        };
        if world.phase.get() == Phase::Drain {
            // Earlier ones may be half open: a partition hides the end of a connection.
            open.get_or_insert_with(|| Open::new(world));
        }
        let asks = client(&frame).filter(|name| name.contains('@'));
        let steps = world.cluster.borrow_mut().receive_in(&mut session, id, &frame);
        if steps == [Step::Close] {
            world.violate(format!("broker {id} cannot read api {} v{}", head.api, head.version));
        }
        if world.phase.get() == Phase::Drain
            && let (Some(name), false) = (&asks, steps.is_empty())
        {
            let owed = (name.clone(), head.correlation);
            world.owed.borrow_mut().insert(owed, "taken");
        }
        if head.api != API_VERSIONS {
            pause(world).await;
        }
        for step in steps {
            match step {
                Step::Send(bytes) => send(world, &mut stream, &name, &bytes).await?,
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Held => {}
                Step::Close => return Ok(()),
            }
        }
    }
}

async fn pause(world: &World) {
    let pace = u64::try_from(world.pace.get().as_millis()).expect("small");
    let long = if world.one_in(30) { 8 } else { 1 };
    tokio::time::sleep(world.ms(0, pace * long)).await;
}

/// Writes an answer: at once, in pieces, or not to its end.
async fn send(
    world: &World,
    stream: &mut TcpStream,
    name: &str,
    answer: &Bytes,
) -> std::io::Result<()> {
    world.event(name, "answers", answer);
    if world.cuts.get() > 0 && world.phase.get() == Phase::Trouble {
        world.cuts.set(world.cuts.get() - 1);
        world.count("answers cut");
        let n = world.below(answer.len());
        stream.write_all(&answer[..n]).await?;
        tokio::time::sleep(world.ms(0, 20)).await;
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    if !world.one_in(PIECES_OF) {
        return stream.write_all(answer).await;
    }
    let mut left = &answer[..];
    while !left.is_empty() {
        let n = world.between(1, left.len());
        stream.write_all(&left[..n]).await?;
        left = &left[n..];
        tokio::time::sleep(Duration::from_millis(world.below(3) as u64)).await;
    }
    Ok(())
}
