//! The first requests of a client that must prove who it is, where SASL ends at the proxy.
//!
//! ApiVersions, SaslHandshake, tokens -> broker connection as that user -> the last answer.
//! Invariant: before the last answer a client holds no broker, little memory and little time.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::header::Head;
use protocol_ext::sasl::{SaslError, messages};
use protocol_ext::wire::WireError;
use protocol_ext::{api, versions};

use super::frames::{check_protocol, framed, gather, length_at};
use super::handle::Handle;
use super::requests::{is_too_new, request_error};
use crate::buffer::Buffer;
use crate::data_plane::DataPlane;
use crate::error::ConnectionError;
use crate::fault;
use crate::limits::{
    AUTHENTICATION_DELAY, AUTHENTICATION_FRAME_BYTES_MAX, AUTHENTICATION_FRAMES_MAX,
};
use crate::route::addresses::Door;
use crate::sasl::{Dialogue, Sasl, Told, Who};
use crate::stream::chain::write_chain;
use crate::stream::{ReadHalf, WriteHalf};
use crate::upstream::access::Connected;

/// A client that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// Who it is.
    pub who: Who,
    /// Its broker connection.
    pub home: Connected,
    /// Time after which it must prove itself again; zero: never.
    pub lifetime: Duration,
}

/// One client that is being let in.
pub(super) struct Entrance<'a, 'b> {
    pub plane: &'a DataPlane,
    pub sasl: &'a Sasl,
    pub handle: &'a Handle,
    pub input: &'a mut Buffer,
    pub from: &'a mut ReadHalf<'b>,
    pub to: &'a mut WriteHalf<'b>,
    pub door: Door,
}

/// How the next token comes, and how its answer goes.
enum Frame {
    /// In SaslAuthenticate.
    Request(Head),
    /// By itself, since the handshake was of version 0.
    Raw,
}

/// The state between two frames.
#[derive(Default)]
struct Progress {
    dialogue: Dialogue,
    raw: bool,
}

impl Entrance<'_, '_> {
    /// Lets the client in; `None` if it leaves, or a drain begins before.
    pub async fn pass(&mut self, limit: Duration) -> Result<Option<Admitted>, ConnectionError> {
        let handle = self.handle;
        let entered = Box::pin(self.enter());
        tokio::select! {
            biased;
            entered = entered => entered,
            () = handle.drained() => Ok(None),
            () = tokio::time::sleep(limit), if !fault::on("login-unbounded") => {
                Err(ConnectionError::SlowHandshake(limit))
            }
        }
    }

    async fn enter(&mut self) -> Result<Option<Admitted>, ConnectionError> {
        let mut progress = Progress::default();
        for _ in 0..AUTHENTICATION_FRAMES_MAX {
            match Box::pin(self.step(&mut progress)).await? {
                Step::Left => return Ok(None),
                Step::On => {}
                Step::Welcome(frame, token, who) => {
                    return self.welcome(frame, token, who).await.map(Some);
                }
            }
        }
        Err(ConnectionError::Authentication("too many requests before the proof".to_owned()))
    }

    /// Connects to the broker, then tells the client that it is in.
    async fn welcome(
        &mut self,
        frame: Frame,
        token: Vec<u8>,
        who: Who,
    ) -> Result<Admitted, ConnectionError> {
        let node = super::behind(self.door);
        let unreachable = |error| ConnectionError::Unreachable { node, error };
        let connect = async {
            let login = self.sasl.login(&who)?;
            self.plane.directory.connect(self.door, &self.plane.limits, &login).await
        };
        let home: Connected = Box::pin(connect).await.map_err(unreachable)?;
        let lifetime = self.sasl.lifetime(home.lifetime);
        let told = if fault::on("lifetime-untold") { Duration::ZERO } else { lifetime };
        self.tell(&frame, token, told).await?;
        Ok(Admitted { who, home, lifetime })
    }

    /// Takes one frame and answers it.
    async fn step(&mut self, progress: &mut Progress) -> Result<Step, ConnectionError> {
        let Some(bytes) = self.frame().await? else { return Ok(Step::Left) };
        if progress.raw {
            return self.token(progress, Frame::Raw, &bytes).await;
        }
        let head = Head::parse(&bytes).map_err(|error| request_error(-1, error))?;
        let wrong = |error: WireError| request_error(head.api, error);
        let version_fits = match head.api {
            api::SASL_HANDSHAKE => (0..=1).contains(&head.version),
            api::SASL_AUTHENTICATE => (0..=2).contains(&head.version),
            _ => head.version >= 0,
        };
        match head.api {
            api::API_VERSIONS if version_fits => {
                let answer = self.versions(head).await?;
                self.answer(answer).await?;
                Ok(Step::On)
            }
            api::SASL_HANDSHAKE if version_fits => {
                let name = messages::handshake(head, &bytes).map_err(wrong)?;
                let chosen = self.sasl.choose(name);
                let code = if chosen.is_some() { 0 } else { messages::UNSUPPORTED_MECHANISM };
                let offered = self.sasl.mechanisms();
                let answer = messages::handshake_answer(head, code, &offered).map_err(wrong)?;
                self.answer(answer).await?;
                let Some(chosen) = chosen else {
                    let offered = offered.join(", ");
                    let name: String = name.chars().take(32).collect();
                    let why = format!("mechanism {name:?} is not offered, only: {offered}");
                    return Err(ConnectionError::Authentication(why));
                };
                progress.dialogue = chosen;
                progress.raw = head.version == 0;
                Ok(Step::On)
            }
            api::SASL_AUTHENTICATE if version_fits => {
                let token = messages::authenticate(head, &bytes).map_err(wrong)?;
                self.token(progress, Frame::Request(head), token).await
            }
            key => Err(ConnectionError::Unproven { name: api::name(key), api: key }),
        }
    }

    async fn token(
        &mut self,
        progress: &mut Progress,
        frame: Frame,
        token: &[u8],
    ) -> Result<Step, ConnectionError> {
        // Who guesses passwords waits, as with a broker; and how long the work took does not show.
        let delay = tokio::time::sleep(AUTHENTICATION_DELAY);
        match self.sasl.take(&mut progress.dialogue, token).await {
            Ok(Told::More(token)) => {
                self.tell(&frame, token, Duration::ZERO).await?;
                Ok(Step::On)
            }
            Ok(Told::Welcome(token, who)) => Ok(Step::Welcome(frame, token, who)),
            Err(error) => {
                delay.await;
                if let Frame::Request(head) = frame {
                    self.answer(refusal(head, error)?).await?;
                }
                Err(ConnectionError::Authentication(error.to_string()))
            }
        }
    }

    /// The versions that all brokers have, as they told them to the proxy.
    async fn versions(&self, head: Head) -> Result<Bytes, ConnectionError> {
        if is_too_new(head.version) {
            return Ok(versions::unsupported(head));
        }
        let offered = self.plane.directory.offered(&self.plane.limits).await;
        let offered = offered.ok_or_else(|| ConnectionError::Unreachable {
            node: super::behind(self.door),
            error: io::Error::new(io::ErrorKind::NotConnected, "no broker was reached yet"),
        })?;
        let allow = |key, min, max| self.plane.servable_range(key, min, max);
        let answer = versions::answer(&offered, head, allow);
        answer.map_err(|error| request_error(head.api, error))
    }

    /// The next frame; `None` at the end of the stream.
    async fn frame(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        let limit = AUTHENTICATION_FRAME_BYTES_MAX;
        let io = ConnectionError::ClientIo;
        while self.input.len() < 4 {
            if self.input.fill(self.from).await.map_err(io)? == 0 {
                return Ok(None);
            }
        }
        let length = length_at(self.input.bytes());
        let size = usize::try_from(length).ok();
        let size = size.filter(|n| *n <= limit || fault::on("early-frames-unbounded"));
        let Some(size) = size else {
            check_protocol(self.input.bytes())?;
            return Err(ConnectionError::FrameLength { length, limit });
        };
        self.input.consume(4);
        gather(self.input, self.from, size, |_| {}).await.map(Some).map_err(io)
    }

    async fn tell(
        &mut self,
        frame: &Frame,
        token: Vec<u8>,
        lifetime: Duration,
    ) -> Result<(), ConnectionError> {
        let token = Bytes::from(token);
        match frame {
            Frame::Raw => self.answer(token).await,
            Frame::Request(head) => {
                let answer = messages::token_answer(*head, token, lifetime);
                self.answer(answer.map_err(|error| request_error(head.api, error))?).await
            }
        }
    }

    async fn answer(&mut self, frame: Bytes) -> Result<(), ConnectionError> {
        let frame = framed(vec![frame]);
        let written = write_chain(self.to, &frame).await;
        self.handle.sent(frame.iter().map(Bytes::len).sum());
        written.map_err(ConnectionError::ClientIo)
    }
}

/// What came of a frame.
enum Step {
    /// The client left.
    Left,
    /// More must come.
    On,
    /// The client proved who it is; it waits for this token.
    Welcome(Frame, Vec<u8>, Who),
}

/// What a client is told whose proof failed.
pub(super) fn refusal(head: Head, error: SaslError) -> Result<Bytes, ConnectionError> {
    let why = format!("Authentication failed: {error}");
    let answer = messages::refusal(head, messages::FAILED, why);
    answer.map_err(|error| request_error(head.api, error))
}
