//! Produce requests whose values are under way to the store, in the order they came.
//!
//! They are polled with whatever the connection waits for, so uploads overlap each other and the
//! reading of the next request. Invariant: they are given out in the order they were added.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use protocol_ext::header::Head;
use protocol_ext::wire::WireError;

use crate::budget::Room;
use crate::fault;
use crate::filters::offload::{Offload, Produced};
use crate::limits::STORING_MAX;

/// A request whose values are stored, or could not be.
pub struct Stored {
    /// Its head.
    pub head: Head,
    /// The frame as it came.
    pub frame: Bytes,
    /// What became of it.
    pub produced: Result<Produced, WireError>,
    /// Room that the frame takes.
    _room: Option<Room>,
}

type Upload<'a> = Pin<Box<dyn Future<Output = Stored> + Send + 'a>>;

enum Entry<'a> {
    Running(Upload<'a>),
    Done(Stored),
}

/// The requests.
#[derive(Default)]
pub struct Storing<'a>(VecDeque<Entry<'a>>);

impl<'a> Storing<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether another one may be added.
    pub fn has_room(&self) -> bool {
        let max = if fault::on("uploads-one-by-one") { 1 } else { STORING_MAX };
        self.0.len() < max
    }

    /// Adds a request; its uploads, if any, begin when something is waited for.
    pub fn add(
        &mut self,
        offload: Option<&'a Offload>,
        head: Head,
        frame: Bytes,
        mut room: Option<Room>,
    ) {
        self.0.push_back(Entry::Running(Box::pin(async move {
            let produced = match offload {
                Some(offload) => {
                    // The store is waited for, and only so long.
                    room.iter_mut().for_each(|room| room.awaits_peer(false));
                    let produced = offload.produce(head, &frame).await;
                    room.iter_mut().for_each(|room| room.awaits_peer(true));
                    produced
                }
                None => Ok(Produced::default()),
            };
            Stored { head, frame, produced, _room: room }
        })));
    }

    /// The oldest request, once its values are stored. Waits for ever if there is none.
    pub async fn next(&mut self) -> Stored {
        poll_fn(|cx| {
            self.poll(cx);
            self.take_ready().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Does other work meanwhile.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.poll(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        for entry in &mut self.0 {
            if let Entry::Running(upload) = entry
                && let Poll::Ready(stored) = upload.as_mut().poll(cx)
            {
                *entry = Entry::Done(stored);
            }
        }
    }

    fn take_ready(&mut self) -> Option<Stored> {
        let first = if fault::on("uploads-reordered") {
            self.0.iter().position(|entry| matches!(entry, Entry::Done(_)))?
        } else {
            0
        };
        match self.0.get(first) {
            Some(Entry::Done(_)) => match self.0.remove(first) {
                Some(Entry::Done(stored)) => Some(stored),
                Some(Entry::Running(_)) | None => None,
            },
            Some(Entry::Running(_)) | None => None,
        }
    }
}
