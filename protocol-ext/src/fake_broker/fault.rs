//! What can go wrong with one answer, and what the socket shell does for it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// A scripted fault; it concerns one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes late.
    Delay(Duration),
    /// So many bytes of the answer come, the rest once the shell releases it.
    HoldAfter(usize),
    /// The answer comes late, and then only so many bytes of it until the shell releases it.
    DelayThenHold(Duration, usize),
    /// The answer comes in pieces that end at these positions, with a pause between them.
    Pieces(Vec<usize>),
    /// So many bytes of the answer come, then the broker closes.
    CloseAfter(usize),
    /// The answer comes behind the next one.
    AfterNext,
    /// The answer has another correlation id.
    WrongCorrelation,
    /// The answer is followed by bytes that nobody asked for.
    Unasked(Bytes),
    /// The answer's length is this.
    Length(i32),
    /// The answer is cut to so many bytes, length included, and its length says so.
    Truncated(usize),
    /// The answer never comes.
    Never,
    /// This frame, correlation id of the request put in, comes instead of the answer.
    Instead(Bytes),
}

/// One thing for the socket shell to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write these bytes.
    Send(Bytes),
    /// Wait so long.
    Wait(Duration),
    /// Wait until the test releases the broker.
    Held,
    /// Close the connection.
    Close,
}

/// Pause between pieces: long enough for a reader to see them one by one.
const PIECE_PAUSE: Duration = Duration::from_millis(1);

/// The steps for `answer`, a frame with its length, under a fault. `held` keeps an answer that
/// waits for the next one.
pub(super) fn steps(fault: Option<Fault>, answer: Bytes, held: &mut Option<Bytes>) -> Vec<Step> {
    let mut steps = match fault {
        None => vec![Step::Send(answer)],
        Some(Fault::Delay(time)) => vec![Step::Wait(time), Step::Send(answer)],
        Some(Fault::HoldAfter(n)) => {
            let n = n.min(answer.len());
            vec![Step::Send(answer.slice(..n)), Step::Held, Step::Send(answer.slice(n..))]
        }
        Some(Fault::DelayThenHold(time, n)) => {
            let n = n.min(answer.len());
            vec![
                Step::Wait(time),
                Step::Send(answer.slice(..n)),
                Step::Held,
                Step::Send(answer.slice(n..)),
            ]
        }
        Some(Fault::Pieces(ends)) => pieces(&answer, &ends),
        Some(Fault::CloseAfter(n)) => {
            vec![Step::Send(answer.slice(..n.min(answer.len()))), Step::Close]
        }
        Some(Fault::AfterNext) => {
            *held = Some(answer);
            return Vec::new();
        }
        Some(Fault::WrongCorrelation) => {
            let mut wrong = BytesMut::from(&answer[..]);
            wrong[4] ^= 0x55;
            vec![Step::Send(wrong.freeze())]
        }
        Some(Fault::Unasked(bytes)) => vec![Step::Send(answer), Step::Send(bytes)],
        Some(Fault::Length(length)) => vec![Step::Send(with_length(&answer, length))],
        Some(Fault::Truncated(n)) => {
            let n = n.clamp(8, answer.len());
            let length = i32::try_from(n - 4).unwrap_or(i32::MAX);
            vec![Step::Send(with_length(&answer.slice(..n), length))]
        }
        Some(Fault::Never) => Vec::new(),
        Some(Fault::Instead(frame)) => vec![Step::Send(with_correlation(&frame, &answer))],
    };
    if let Some(late) = held.take() {
        steps.push(Step::Send(late));
    }
    steps
}

fn pieces(answer: &Bytes, ends: &[usize]) -> Vec<Step> {
    let mut steps = Vec::with_capacity(ends.len() * 2 + 1);
    let mut at = 0;
    for end in ends.iter().copied().chain([answer.len()]) {
        let end = end.clamp(at, answer.len());
        if end > at {
            steps.extend([Step::Send(answer.slice(at..end)), Step::Wait(PIECE_PAUSE)]);
        }
        at = end;
    }
    steps
}

fn with_length(answer: &Bytes, length: i32) -> Bytes {
    let mut out = BytesMut::from(&answer[..]);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

fn with_correlation(frame: &Bytes, answer: &Bytes) -> Bytes {
    let mut out = BytesMut::from(&frame[..]);
    if out.len() >= 8 {
        out[4..8].copy_from_slice(&answer[4..8]);
    }
    out.freeze()
}
