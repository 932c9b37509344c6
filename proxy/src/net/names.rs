//! Addresses of hosts, asked of the system anew for every connection, so that a host that moved is
//! found. Invariant: connections that want the same host at the same time share one question.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use crate::fault;

/// What the system said, in its order of preference.
type Found = Result<Arc<[IpAddr]>, Arc<io::Error>>;
type Question = BoxFuture<'static, Found>;

/// The last question about each host.
#[derive(Debug, Default)]
pub struct Names(Mutex<HashMap<String, Shared<Question>>>);

impl Names {
    /// All addresses of `host`, families taking turns (RFC 8305, section 4): a family that leads
    /// nowhere costs one head start and not one for each of its addresses.
    pub async fn of(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let found = self.question(host).await;
        let found = found.map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        Ok(taking_turns(&found))
    }

    fn question(&self, host: &str) -> Shared<Question> {
        let mut asked = self.0.lock();
        // One that nobody waits for any more may have been answered long ago.
        let runs = |question: &Shared<Question>| {
            question.peek().is_none() && question.strong_count() > Some(1)
        };
        match asked.get(host) {
            Some(question) if runs(question) || fault::on("names-kept") => question.clone(),
            _ => {
                let question = ask(host.to_owned()).boxed().shared();
                asked.insert(host.to_owned(), question.clone());
                question
            }
        }
    }
}

async fn ask(host: String) -> Found {
    let found = match fault::names(&host) {
        Some(found) => found,
        None => look_up(&host).await?,
    };
    Ok(found.into())
}

async fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    #[cfg(feature = "sim")]
    if turmoil::in_simulation() {
        return super::sim::look_up(host).await;
    }
    // The port is of no account.
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|to| to.ip()).collect())
}

/// The same addresses, those of the first one's family and the others by turns.
fn taking_turns(found: &[IpAddr]) -> Vec<IpAddr> {
    let first = found.first().is_some_and(IpAddr::is_ipv6);
    let (own, other): (Vec<_>, Vec<_>) = found.iter().partition(|ip| ip.is_ipv6() == first);
    let mut other = other.into_iter();
    let mut all: Vec<IpAddr> =
        own.into_iter().flat_map(|ip| [Some(ip), other.next()]).flatten().collect();
    all.extend(other);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split(' ').map(|ip| ip.parse().expect("an address")).collect()
    }

    #[test]
    fn families_take_turns_and_the_order_within_one_stays() {
        for (found, wanted) in [
            ("::1 ::2 ::3 10.0.0.1 10.0.0.2", "::1 10.0.0.1 ::2 10.0.0.2 ::3"),
            ("10.0.0.2 ::1 ::2 ::3", "10.0.0.2 ::1 ::2 ::3"),
            ("10.0.0.3 10.0.0.1 10.0.0.2", "10.0.0.3 10.0.0.1 10.0.0.2"),
        ] {
            assert_eq!(taking_turns(&ips(found)), ips(wanted));
        }
        assert!(taking_turns(&[]).is_empty());
    }

    #[tokio::test]
    async fn an_address_is_its_own_name_and_localhost_has_one() {
        let names = Names::default();
        for address in ["127.0.0.9", "::1"] {
            assert_eq!(names.of(address).await.expect("an address"), ips(address));
        }
        let local = names.of("localhost").await.expect("every machine has it");
        assert!(!local.is_empty() && local.iter().all(IpAddr::is_loopback), "{local:?}");
        assert!(names.of("no-such-host.invalid").await.is_err());
    }

    #[tokio::test]
    async fn a_question_is_shared_while_it_runs_and_asked_anew_after_that() {
        let names = Names::default();
        let first = names.question("localhost");
        assert!(first.ptr_eq(&names.question("localhost")), "two questions at once");
        first.clone().await.expect("an answer");
        let second = names.question("localhost");
        assert!(!first.ptr_eq(&second), "an old answer is given out");
        let given_up = second.downgrade().expect("not answered yet");
        drop(second);
        let _third = names.question("localhost");
        assert!(given_up.upgrade().is_none(), "a question that was given up goes on");
    }
}
