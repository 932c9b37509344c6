//! Free ports, none handed out twice in one run, all below the range the kernel takes for clients.

use std::net::TcpListener;
use std::sync::Mutex;

/// The first of `count` consecutive ports that are free on all of `hosts`.
pub fn free(hosts: &[&str], count: u16) -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap();
    let seed = u16::try_from(std::process::id() % 1_000).unwrap() * 10;
    let mut first = next.unwrap_or(FIRST + seed);
    for _ in FIRST..END {
        if first + count >= END {
            first = FIRST;
        }
        let end = first + count;
        match (first..end)
            .find(|port| hosts.iter().any(|host| TcpListener::bind((*host, *port)).is_err()))
        {
            None => {
                *next = Some(end);
                return first;
            }
            Some(taken) => first = taken + 1,
        }
    }
    panic!("no {count} consecutive free ports");
}

const FIRST: u16 = 11_000;
const END: u16 = 32_000;
