//! One client connection: two pumps in one task, and the queue of open exchanges between them.
//!
//! client -> requests -> (queue: exchange) -> home broker
//! client <- responses <- (queue: exchange) <- home broker
//!
//! Invariants: answers leave in the order of requests; a request that ends the connection takes no
//! answer from those before it; a side whose peer does not read is not read either; a connection
//! without traffic holds no buffer; a silent client holds no broker.

mod authenticate;
mod carriers;
mod forced;
pub mod frames;
pub mod handle;
mod incoming;
mod partition_bytes;
mod peek;
mod produce;
pub mod queue;
mod refusals;
mod requests;
mod responses;
mod rules;
mod session;
mod storing;
mod whole;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::SemaphorePermit;
use tokio::task::unconstrained;
use tokio::time::sleep;

use crate::buffer::Buffer;
use crate::data_plane::DataPlane;
use crate::error::ConnectionError;
use crate::fault;
use crate::limits::{HALF_CLOSED, LINGER, Limits};
use crate::metrics::Side;
use crate::net::{self, Line, Tcp};
use crate::route::addresses::Door;
use crate::stream::{ReadHalf, Stream};
use crate::tls;
use crate::upstream::access::Login;
use authenticate::Entrance;
use handle::Handle;
use queue::Queue;
use requests::{RequestEnd, Requests};
use responses::Responses;
use session::Session;

/// How long a client may take to begin.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    handshake: Duration,
    first_request: Duration,
}

impl Patience {
    /// As the limits say.
    pub fn of(limits: &Limits) -> Self {
        Self { handshake: limits.handshake, first_request: limits.first_request }
    }
}

/// Serves one client until either side closes, an error, or a drain.
pub async fn serve(
    client: Tcp,
    door: Door,
    plane: Arc<DataPlane>,
    handle: Arc<Handle>,
    patience: Patience,
) -> Result<(), ConnectionError> {
    let _counted = plane.metrics.connection(Side::Client);
    let entered = apart(|| enter(client, door, (&plane, &handle), patience)).await?;
    let Some((mut client, begun)) = entered else { return Ok(()) };
    let served = match begun {
        Ok(Some(Begun { line, input, session, mut home })) => {
            let _counted = plane.metrics.connection(Side::Broker);
            let ((from_client, to_client), (from_home, to_home)) = (client.split(), home.split());
            let queue = Queue::default();
            let input = (input, session);
            let mut requests = Requests::new(&plane, &queue, &handle, input, from_client, to_home);
            requests.line = line;
            let mut responses = Responses::new(&plane, &queue, &handle, from_home, to_client);
            both(pin!(requests.pump()), pin!(responses.pump()), &queue).await.map(|()| true)
        }
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    };
    let gone = matches!(served, Err(ConnectionError::Unreachable { .. })) || handle.is_draining();
    if gone && handle.signs().sent == 0 {
        away(|| client.reset_at_close());
    } else if matches!(served, Ok(true) | Err(ConnectionError::BrokerIo(_))) {
        apart(|| linger(&mut client)).await;
    }
    served.map(drop)
}

/// A future apart from its caller's: what is rarely done takes nothing of the state and of the
/// stack that every request goes through.
#[inline(never)]
fn apart<'a, F: Future + Send + 'a>(
    make: impl FnOnce() -> F,
) -> Pin<Box<dyn Future<Output = F::Output> + Send + 'a>> {
    Box::pin(make())
}

/// Resets a client that has read nothing: an end as the first thing that it reads is taken for a
/// wrong protocol, and some do not come again; a reset is a broker that is away.
fn away(reset: impl FnOnce()) {
    if !fault::on("away-looks-closed") {
        reset();
    }
}

/// A client whose first request is there, and its broker.
struct Begun {
    line: Option<Line>,
    input: Buffer,
    session: Option<Box<Session>>,
    home: Stream,
}

/// Lets a client in, and tells how its first bytes went; `None` if a drain begins before them.
async fn enter(
    client: Tcp,
    door: Door,
    (plane, handle): (&DataPlane, &Handle),
    patience: Patience,
) -> Result<Option<(Stream, Result<Option<Begun>, ConnectionError>)>, ConnectionError> {
    let line = match &plane.routed {
        Some(_) => Some(Line::of(&client).map_err(ConnectionError::ClientIo)?),
        None => None,
    };
    let unproven = unproven(plane).inspect_err(|_| away(|| net::reset_at_close(&client)))?;
    let Some((mut client, door)) =
        admitted(client, door, plane, handle, patience.handshake).await?
    else {
        return Ok(None);
    };
    let held = (line, unproven);
    let begun = begin(&mut client, door, (plane, handle), patience, held).await;
    Ok(Some((client, begun)))
}

/// Waits for a client's first bytes and connects to its broker; `None` if none of its requests was
/// taken.
async fn begin(
    client: &mut Stream,
    door: Door,
    (plane, handle): (&DataPlane, &Handle),
    patience: Patience,
    (line, unproven): (Option<Line>, Option<SemaphorePermit<'_>>),
) -> Result<Option<Begun>, ConnectionError> {
    let (mut from_client, mut to_client) = client.split();
    let mut input = Buffer::new(&plane.pool);
    // TLS has asked what it asks; only SASL asks more.
    let _unproven = unproven.filter(|_| plane.sasl.is_some() || fault::on("unproven-for-long"));
    let at_once = fault::on("silent-client-connects");
    if !at_once
        && plane.sasl.is_none()
        && !first_head(&mut input, &mut from_client, handle, patience.first_request).await?
    {
        return Ok(None);
    }
    let Some(sasl) = &plane.sasl else {
        let home = plane.directory.connect(door, &plane.limits, &Login::Nobody).await;
        let unreachable = |error| ConnectionError::Unreachable { node: behind(door), error };
        let home = home.map_err(unreachable)?.stream;
        return Ok(Some(Begun { line, input, session: None, home }));
    };
    let (from, to, waiting) = (&mut from_client, &mut to_client, &mut input);
    let mut entrance = Entrance { plane, sasl, handle, input: waiting, from, to, door };
    let Some(admitted) = entrance.pass(patience.handshake).await? else { return Ok(None) };
    let session = Some(Box::new(Session::new(&admitted)));
    Ok(Some(Begun { line, input, session, home: admitted.home.stream }))
}

/// The broker behind a listener, for people.
fn behind(door: Door) -> String {
    match door {
        Door::Bootstrap => "any broker".to_owned(),
        Door::Node(node) => format!("broker {node}"),
    }
}

/// Takes one of the places for clients that have not proved who they are, where they must.
fn unproven(plane: &DataPlane) -> Result<Option<SemaphorePermit<'_>>, ConnectionError> {
    if plane.tls.is_none() && plane.sasl.is_none() {
        return Ok(None);
    }
    let place = plane.unproven.try_acquire();
    place.map(Some).map_err(|_| ConnectionError::Full("limits.unproven_max"))
}

/// Does the TLS handshake, where there is one; gives the virtual broker that the client asked for.
/// `None` if a drain begins before.
async fn admitted(
    client: Tcp,
    door: Door,
    plane: &DataPlane,
    handle: &Handle,
    limit: Duration,
) -> Result<Option<(Stream, Door)>, ConnectionError> {
    let Some(server) = &plane.tls else { return Ok(Some((Stream::Plain(client), door))) };
    let line = Line::of(&client).map_err(ConnectionError::ClientIo)?;
    let named = |name: Option<&str>| plane.directory.named(door, name);
    tokio::select! {
        biased;
        accepted = tls::accept(server, client, &plane.pool, named) => accepted.map(Some),
        () = handle.drained() => {
            away(|| line.reset_at_close());
            Ok(None)
        }
        () = sleep(limit), if !fault::on("handshake-unbounded") => {
            Err(ConnectionError::SlowHandshake(limit))
        }
    }
}

/// Closes towards a client that may still be sending: a socket closed with unread bytes in it
/// would take back answers that are on their way. What is read here is never answered, so the
/// client sends it again elsewhere.
async fn linger(client: &mut Stream) {
    let drop_all = async {
        client.shutdown().await?;
        let mut unread = [0; 1024];
        while client.read(&mut unread).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // The client's errors and its silence are of no interest any more.
    let _ = tokio::time::timeout(LINGER, drop_all).await;
}

/// Waits for the first bytes of a request; false if the client leaves or a drain begins before.
async fn first_head(
    input: &mut Buffer,
    from: &mut ReadHalf<'_>,
    handle: &Handle,
    limit: Duration,
) -> Result<bool, ConnectionError> {
    let head = async {
        while input.len() < frames::PREFIX_BYTES {
            if input.fill(from).await.map_err(ConnectionError::ClientIo)? == 0 {
                return Ok(false);
            }
            frames::check_protocol(input.bytes())?;
        }
        Ok(true)
    };
    tokio::select! {
        biased;
        head = head => head,
        () = handle.drained() => Ok(false),
        () = sleep(limit) => Err(ConnectionError::Silent(limit)),
    }
}

/// Polls both pumps in one task: requests first, since they open the exchanges that responses
/// close, and again when responses made room. Ends when the responses end, or with an error; one of
/// a request waits for the answers to those before it.
fn both(
    mut requests: Pin<&mut impl Future<Output = Result<RequestEnd, ConnectionError>>>,
    mut responses: Pin<&mut impl Future<Output = Result<(), ConnectionError>>>,
    queue: &Queue,
) -> impl Future<Output = Result<(), ConnectionError>> {
    let mut asking = true;
    // The last request is with the broker, or it took no more of them: what is in flight may still
    // matter to it (acks=0), and a client that only shut down writing still reads.
    let mut half_closed = None;
    let mut wrong = None;
    poll_fn(move |cx| {
        let ended = loop {
            if asking && let Poll::Ready(end) = requests.as_mut().poll(cx) {
                asking = false;
                let hung_up = match end {
                    Ok(RequestEnd::Drained) if fault::on("drain-ignores-in-flight") => {
                        return Poll::Ready(Ok(()));
                    }
                    Ok(end) => end == RequestEnd::HungUp,
                    // A broker that closes answers first what it has taken.
                    Err(ConnectionError::BrokerIo(_)) if !fault::on("answers-lost-with-home") => {
                        true
                    }
                    // It looks at a request only when those before it are answered.
                    Err(error)
                        if error.is_of_request() && !fault::on("answers-lost-with-request") =>
                    {
                        wrong = Some(error);
                        true
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                };
                half_closed = hung_up.then(|| Box::pin(unconstrained(sleep(HALF_CLOSED))));
                queue.close();
            }
            if let Poll::Ready(end) = responses.as_mut().poll(cx) {
                break end;
            }
            if let Some(limit) = &mut half_closed {
                ready!(limit.as_mut().poll(cx));
                break Ok(());
            }
            if !queue.take_freed() {
                return Poll::Pending;
            }
        };
        Poll::Ready(wrong.take().map_or(ended, Err))
    })
}
