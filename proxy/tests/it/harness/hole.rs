//! A loopback address that takes no connection and refuses none, as a machine that is gone.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// More connections than a listener with the shortest queue holds.
const FILLERS_MAX: usize = 16;
/// A connection on loopback that takes longer is not taken.
const TAKEN_WITHIN: Duration = Duration::from_millis(300);

/// A listener whose queue is full for as long as it lives.
#[derive(Debug)]
pub struct Hole {
    _listener: Socket,
    _fillers: Vec<Socket>,
}

impl Hole {
    /// Takes an address; with port 0 any port of it, which is given.
    pub fn at(address: SocketAddr) -> (Self, SocketAddr) {
        let open = || Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
        let listener = open().expect("a socket");
        listener.bind(&address.into()).expect("a loopback port");
        listener.listen(0).expect("a listener");
        let address = listener.local_addr().expect("bound").as_socket().expect("an address");
        let mut fillers = Vec::new();
        for _ in 0..FILLERS_MAX {
            let filler = open().expect("a socket");
            let taken = filler.connect_timeout(&address.into(), TAKEN_WITHIN).is_ok();
            fillers.push(filler);
            if !taken {
                return (Self { _listener: listener, _fillers: fillers }, address);
            }
        }
        panic!("{address} takes {FILLERS_MAX} connections that nobody accepts");
    }
}
