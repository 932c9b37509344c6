//! A real redis-server on a port of its own, installed if it is not there, and a hand in it.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, FromRedisValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::certs::Authority;
use super::proxy::{Folder, free_block};
use super::{Checked, DEADLINE, failure, until, within};

/// Other processes draw ports too.
const STARTS_MAX: usize = 20;

/// The server; killed when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
    folder: Folder,
    password: Option<&'static str>,
    tls: bool,
}

impl Redis {
    /// Starts one that asks nobody who it is.
    pub async fn start() -> Checked<Self> {
        Self::started(None, None).await
    }

    /// Starts one that wants a password.
    pub async fn start_with_password(password: &'static str) -> Checked<Self> {
        Self::started(Some(password), None).await
    }

    /// Starts one that speaks TLS only.
    pub async fn start_in_tls(authority: &Authority) -> Checked<Self> {
        Self::started(None, Some(authority)).await
    }

    async fn started(
        password: Option<&'static str>,
        authority: Option<&Authority>,
    ) -> Checked<Self> {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        let mut folder = Folder::new();
        if let Some(authority) = authority {
            let own = authority.sign(&["127.0.0.1"]);
            for (name, text) in [("cert", own.cert), ("key", own.key), ("ca", authority.pem())] {
                std::fs::write(folder.path().join(name), text).expect("a file");
            }
        }
        let tls = authority.is_some();
        for _ in 0..STARTS_MAX {
            let port = free_block();
            let child = spawn(port, &folder, password, tls);
            let mut server = Self { child, port, folder, password, tls };
            if server.answers().await? {
                return Ok(server);
            }
            folder = std::mem::replace(&mut server.folder, Folder::new());
        }
        Err(failure("no free port for a redis-server"))
    }

    /// Waits for its first answer; false if it ended, since its port was taken.
    async fn answers(&mut self) -> Checked<bool> {
        let mut ended = false;
        until("an answer of redis-server", async || {
            ended = self.child.try_wait().expect("a child").is_some();
            let there = ended || self.is_there().await;
            there.then_some(())
        })
        .await?;
        Ok(!ended)
    }

    async fn is_there(&self) -> bool {
        match self.tls {
            true => TcpStream::connect(("127.0.0.1", self.port)).await.is_ok(),
            false => self.ask::<String>(&["PING"]).await.is_ok(),
        }
    }

    /// Where it is, as a configuration names it.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file with the authority of its certificate, where it speaks TLS.
    pub fn ca(&self) -> std::path::PathBuf {
        self.folder.path().join("ca")
    }

    /// Kills it (SIGKILL); what it held is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, on the same port.
    pub async fn again(&mut self) -> Checked {
        self.child = spawn(self.port, &self.folder, self.password, self.tls);
        match self.answers().await? {
            true => Ok(()),
            false => Err(failure("redis-server does not start again")),
        }
    }

    /// Has it stand still: its connections stay, and nothing is said on them.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Has it go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Asks it something.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Checked<T> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.ask_bytes(&words).await
    }

    /// The same with bytes.
    pub async fn ask_bytes<T: FromRedisValue>(&self, words: &[&[u8]]) -> Checked<T> {
        let mut command = ::redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        let mut connection = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        answer.map_err(failure)
    }

    async fn connection(&self) -> Checked<MultiplexedConnection> {
        let user = self.password.map_or_else(String::new, |password| format!(":{password}@"));
        let client = Client::open(format!("redis://{user}127.0.0.1:{}", self.port));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let client = client.map_err(failure)?;
        let connected = client.get_multiplexed_async_connection_with_config(&config);
        within("redis-server", connected).await?.map_err(failure)
    }

    /// Its keys, and what lies there, in the order of their last part.
    pub async fn all(&self) -> Checked<Vec<(String, Vec<u8>)>> {
        let mut keys: Vec<String> = self.ask(&["KEYS", "*"]).await?;
        let place = |key: &String| -> u64 {
            key.rsplit(':').next().and_then(|offset| offset.parse().ok()).unwrap_or(0)
        };
        keys.sort_by_key(place);
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            let value = self.ask(&["GET", &key]).await?;
            all.push((key, value));
        }
        Ok(all)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, folder: &Folder, password: Option<&str>, tls: bool) -> Child {
    let mut command = Command::new("redis-server");
    let port = port.to_string();
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
    command.arg(folder.path());
    let file = |name: &str| folder.path().join(name);
    if tls {
        command.args(["--port", "0", "--tls-auth-clients", "no", "--tls-port", &port]);
        command.arg("--tls-cert-file").arg(file("cert")).arg("--tls-key-file").arg(file("key"));
        command.arg("--tls-ca-cert-file").arg(file("ca"));
    } else {
        command.args(["--port", &port]);
    }
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server starts")
}

fn install() {
    if Command::new("redis-server").arg("--version").output().is_err() {
        let mut command = Command::new("apt-get");
        command.args(["install", "-y", "-qq", "--no-install-recommends", "redis-server"]);
        let done = command.status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "redis-server is missing and cannot be installed"
        );
    }
}

/// Stands between a proxy and its Redis and passes on what the proxy says a while later.
#[derive(Debug)]
pub struct Slow {
    /// Where it listens.
    pub port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Slow {
    /// Listens in front of a server.
    #[expect(clippy::disallowed_methods, reason = "it ends with its test")]
    pub async fn before(redis: &Redis, late: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = redis.port();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // Either side may go away.
                    let _ = pass(near, server, late).await;
                });
            }
        });
        Self { port, task }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(near: TcpStream, server: u16, late: Duration) -> std::io::Result<()> {
    let far = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let asks = async move {
        let mut bytes = vec![0; 1 << 20];
        loop {
            let n = near_read.read(&mut bytes).await?;
            if n == 0 {
                return Ok::<(), std::io::Error>(());
            }
            tokio::time::sleep(late).await;
            far_write.write_all(&bytes[..n]).await?;
        }
    };
    let answers = async move { tokio::io::copy(&mut far_read, &mut near_write).await };
    let both: std::io::Result<_> = tokio::try_join!(asks, answers);
    both.map(drop)
}

/// Stands between a proxy and its Redis, and ends amid an answer: once so many bytes of answers
/// were passed on its connections break off, and it takes no others.
#[derive(Debug)]
pub struct Cut {
    /// Where it listens.
    pub port: u16,
    task: tokio::task::JoinHandle<()>,
}

/// What it passes on of answers.
#[derive(Debug)]
struct Share {
    bytes: usize,
    passed: AtomicUsize,
    over: Notify,
}

impl Cut {
    /// Listens in front of a server.
    #[expect(clippy::disallowed_methods, reason = "it ends with its test")]
    pub async fn before(redis: &Redis, bytes: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = redis.port();
        let share = Share { bytes, passed: AtomicUsize::new(0), over: Notify::new() };
        let share = Arc::new(share);
        let task = tokio::spawn(async move {
            let mut links = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    () = share.over.notified() => return,
                    accepted = listener.accept() => {
                        let Ok((near, _)) = accepted else { return };
                        let share = share.clone();
                        links.spawn(async move {
                            // Either side may go away.
                            let _ = pass_in_part(near, server, &share).await;
                        });
                    }
                }
            }
        });
        Self { port, task }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes on all that is asked, and of the answers small pieces with pauses.
async fn pass_in_part(near: TcpStream, server: u16, share: &Share) -> std::io::Result<()> {
    const PIECE_BYTES: usize = 16 * 1024;
    let far = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let asks = async move { tokio::io::copy(&mut near_read, &mut far_write).await.map(drop) };
    let answers = async move {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let n = far_read.read(&mut piece).await?;
            let before = share.passed.fetch_add(n, Ordering::Relaxed);
            let left = share.bytes.saturating_sub(before).min(n);
            near_write.write_all(&piece[..left]).await?;
            if left < n {
                share.over.notify_one();
            }
            if left < n || n == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        biased;
        done = answers => done,
        done = asks => done,
    }
}
