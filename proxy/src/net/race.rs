//! Attempts at the same end, of which some may be dead: each gets a head start over the next.
//!
//! The first that succeeds wins and the others are dropped. Invariant: an attempt that hangs delays
//! the next one by the head start and no more; one that fails does not delay it at all.

use std::io;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::fault;
use crate::limits::HEAD_START;

/// What the winner gives, or the last error. A wrong password is wrong everywhere:
/// `PermissionDenied` ends the race.
pub async fn race<T>(attempts: Vec<BoxFuture<'_, io::Result<T>>>) -> io::Result<T> {
    let mut waiting = attempts.into_iter();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no address to try");
    loop {
        running.extend(waiting.next());
        let more = waiting.len() > 0 && !fault::on("attempts-one-by-one");
        let ended = tokio::select! {
            biased;
            ended = running.next() => ended,
            () = tokio::time::sleep(HEAD_START), if more => continue,
        };
        match ended {
            Some(Ok(won)) => return Ok(won),
            Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(error);
            }
            Some(Err(error)) => last = error,
            None => return Err(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    /// Ends after so many milliseconds, with its number or an error of this kind.
    async fn attempt(n: usize, ms: u64, fails: Option<io::ErrorKind>) -> io::Result<usize> {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        fails.map_or(Ok(n), |kind| Err(kind.into()))
    }

    /// Who wins, and after how many milliseconds.
    async fn won(attempts: &[(u64, Option<io::ErrorKind>)]) -> (io::Result<usize>, u128) {
        let begin = tokio::time::Instant::now();
        let attempts = attempts.iter().enumerate();
        let attempts = attempts.map(|(n, (ms, fails))| attempt(n, *ms, *fails).boxed());
        let end = race(attempts.collect()).await;
        (end, begin.elapsed().as_millis())
    }

    const NEVER: (u64, Option<io::ErrorKind>) = (1 << 40, None);
    const REFUSED: Option<io::ErrorKind> = Some(io::ErrorKind::ConnectionRefused);
    const DENIED: Option<io::ErrorKind> = Some(io::ErrorKind::PermissionDenied);

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_costs_one_head_start() {
        let (end, ms) = won(&[NEVER, (10, None)]).await;
        assert_eq!((end.expect("a winner"), ms), (1, 260));
        let (end, ms) = won(&[NEVER, NEVER, NEVER, (10, None)]).await;
        assert_eq!((end.expect("a winner"), ms), (3, 760));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_attempt_may_still_win() {
        let (end, ms) = won(&[(300, None), (100, None)]).await;
        assert_eq!((end.expect("a winner"), ms), (0, 300));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_fails_costs_nothing() {
        let (end, ms) = won(&[(0, REFUSED), (5, REFUSED), (10, None)]).await;
        assert_eq!((end.expect("a winner"), ms), (2, 15));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_is_told_once_all_have_failed() {
        let (end, ms) = won(&[(400, REFUSED), (1, Some(io::ErrorKind::TimedOut))]).await;
        assert_eq!(
            (end.expect_err("no winner").kind(), ms),
            (io::ErrorKind::ConnectionRefused, 400)
        );
        let (end, _) = won(&[]).await;
        assert_eq!(end.expect_err("nobody").kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_ends_the_race() {
        let (end, ms) = won(&[(5, DENIED), (100, None)]).await;
        assert_eq!((end.expect_err("denied").kind(), ms), (io::ErrorKind::PermissionDenied, 5));
    }
}
