//! A load balancer of connections in front of several proxies that are advertised as it.
//!
//! Each connection goes to one of the proxies that are in service, in turn, so one client's
//! connections go through several. It can lose answers: they are held back, then the connection is
//! cut. And a proxy can be taken out of service with or without its being told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// A running balancer; its sockets close when it is dropped.
pub struct Balancer {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    proxies: Vec<&'static str>,
    out: Vec<AtomicBool>,
    turn: AtomicUsize,
    links: Mutex<Vec<Link>>,
}

/// One client's connection and the proxy it goes to.
struct Link {
    proxy: usize,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Flows,
    /// Requests go on, answers do not.
    AnswersHeld,
    /// Both sides are closed.
    Cut,
    /// The client's side is closed, and the proxy does not learn of it.
    Abandoned,
}

impl Balancer {
    /// Listens on `host`, ports `first` to `last`, for the same ports of the proxies.
    pub fn start(host: &str, (first, last): (u16, u16), proxies: Vec<&'static str>) -> Self {
        let out = proxies.iter().map(|_| AtomicBool::new(false)).collect();
        let (turn, links) = (AtomicUsize::new(0), Mutex::default());
        let shared = Arc::new(Shared { proxies, out, turn, links });
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        for port in first..=last {
            let listener = runtime.block_on(TcpListener::bind((host, port))).unwrap();
            runtime.spawn(accept(listener, port, shared.clone()));
        }
        Self { shared, runtime: Some(runtime) }
    }

    /// Holds back the answers of one connection, or of all, for `time`, and cuts what was held.
    /// Gives how many connections that were.
    pub fn lose_answers(&self, all: bool, time: Duration) -> usize {
        let held: Vec<watch::Sender<State>> = {
            let links = self.shared.live();
            let chosen = self.shared.turn.fetch_add(7, Ordering::Relaxed);
            let skipped = if all || links.is_empty() { 0 } else { chosen % links.len() };
            let most = if all { links.len() } else { 1 };
            links.iter().skip(skipped).take(most).map(|link| link.state.clone()).collect()
        };
        for state in &held {
            state.send_replace(State::AnswersHeld);
        }
        std::thread::sleep(time);
        for state in &held {
            state.send_replace(State::Cut);
        }
        held.len()
    }

    /// Takes a proxy out of service: its clients are cut off. Unless it is `told`, it does not
    /// learn that they are gone.
    pub fn take_out(&self, proxy: usize, told: bool) {
        self.shared.out[proxy].store(true, Ordering::Relaxed);
        let state = if told { State::Cut } else { State::Abandoned };
        for link in self.shared.live().iter().filter(|link| link.proxy == proxy) {
            link.state.send_replace(state);
        }
    }

    /// Puts it into service again.
    pub fn put_in(&self, proxy: usize) {
        self.shared.out[proxy].store(false, Ordering::Relaxed);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Shared {
    /// The connections there are.
    fn live(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        let mut links = self.links.lock().unwrap();
        links.retain(|link| !link.state.is_closed() && *link.state.borrow() == State::Flows);
        links
    }

    /// Connects to the next proxy that takes it.
    async fn connect(&self, port: u16) -> Option<(usize, TcpStream)> {
        for _ in 0..self.proxies.len() {
            let proxy = self.turn.fetch_add(1, Ordering::Relaxed) % self.proxies.len();
            if self.out[proxy].load(Ordering::Relaxed) {
                continue;
            }
            if let Ok(stream) = TcpStream::connect((self.proxies[proxy], port)).await {
                return Some((proxy, stream));
            }
        }
        None
    }
}

async fn accept(listener: TcpListener, port: u16, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let Some((proxy, stream)) = shared.connect(port).await else { return };
            let (state, seen) = watch::channel(State::Flows);
            shared.links.lock().unwrap().push(Link { proxy, state });
            relay(client, stream, seen).await;
        });
    }
}

async fn relay(client: TcpStream, proxy: TcpStream, state: watch::Receiver<State>) {
    let _ = (client.set_nodelay(true), proxy.set_nodelay(true));
    let (mut client_in, mut client_out) = client.into_split();
    let (mut proxy_in, mut proxy_out) = proxy.into_split();
    let mut ends = state.clone();
    let ended = async {
        // Whoever could end it is gone with the balancer.
        let _ = ends.wait_for(|state| matches!(state, State::Cut | State::Abandoned)).await;
    };
    tokio::select! {
        biased;
        () = ended => {}
        () = pump(&mut client_in, &mut proxy_out, None) => {}
        () = pump(&mut proxy_in, &mut client_out, Some(state)) => {}
    }
    if *ends.borrow() == State::Abandoned {
        drop((client_in, client_out));
        // Until the proxy ends it.
        let mut nowhere = vec![0; 64 << 10];
        while proxy_in.read(&mut nowhere).await.is_ok_and(|count| count > 0) {}
    }
}

async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut held: Option<watch::Receiver<State>>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if let Some(held) = &mut held
            && held.wait_for(|state| *state == State::Flows).await.is_err()
        {
            return;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
