//! An opaque exchange costs at most two heap allocations in the proxy, counted.
//!
//! The proxy runs in this process under a counting allocator; client and broker are threads with
//! fixed buffers, so what is counted is the proxy's (and its runtime's) alone.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use firebreak::config::{Config, raw::Flags};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{ApiVersionsResponse, BrokerId, MetadataResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WARM_UP: usize = 1_000;
const EXCHANGES: usize = 20_000;
const HEARTBEAT: i16 = 12;

/// A frame of the largest size used here.
type Frame = [u8; 1024];

#[test]
fn an_opaque_exchange_takes_at_most_two_allocations() {
    let broker = TcpListener::bind("127.0.0.1:0").expect("a port");
    let broker_address = broker.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in broker.incoming().flatten() {
            thread::spawn(move || serve(stream, broker_address));
        }
    });
    let bootstrap = start_proxy(broker_address);
    let mut client = connect(bootstrap);
    let mut request = BytesMut::new();
    request.put_i32(32);
    request.put_i16(HEARTBEAT);
    request.put_i16(0);
    request.put_i32(7);
    request.put_bytes(0, 24);
    let mut answer: Frame = [0; 1024];
    let mut exchange = |times: usize| {
        for _ in 0..times {
            client.write_all(&request).expect("sent");
            let n = read_frame(&mut client, &mut answer).expect("answered");
            assert_eq!(answer[..4], 7_i32.to_be_bytes(), "the answer of {n} bytes is another's");
        }
    };
    exchange(WARM_UP);
    let before = ALLOCATOR.stats();
    exchange(EXCHANGES);
    let change = ALLOCATOR.stats() - before;
    let allocations = change.allocations + change.reallocations;
    println!("{allocations} allocations in {EXCHANGES} exchanges");
    assert!(allocations <= 2 * EXCHANGES, "{allocations} allocations in {EXCHANGES} exchanges");
}

fn start_proxy(broker: SocketAddr) -> SocketAddr {
    // Ports are drawn, below those of outgoing connections, until a range is free.
    for _ in 0..20 {
        let port = 12_000 + u16::try_from(firebreak::random::below(18_000)).expect("a port");
        let (listen, end) = (SocketAddr::new(broker.ip(), port), port + 3);
        let flags = Flags {
            upstream: Some(broker.to_string()),
            listen: Some(listen.to_string()),
            ports: Some(format!("{}-{}", listen.port() + 1, end - 1)),
            admin: Some(SocketAddr::new(listen.ip(), end)),
            ..Flags::default()
        };
        let config = Config::parse("", &flags).expect("valid");
        let load = Box::new(move || Config::parse("", &flags));
        let proxy = thread::spawn(move || {
            let of_clients = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let of_clients = of_clients.expect("a runtime");
            let here = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let run = firebreak::run::run(config, load, of_clients.handle());
            here.expect("a runtime").block_on(run)
        });
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(20));
            if proxy.is_finished() {
                break;
            }
            // Another process may listen there, and ours is about to end for it.
            if TcpStream::connect(listen).is_ok() {
                thread::sleep(Duration::from_millis(200));
                if !proxy.is_finished() {
                    return listen;
                }
            }
        }
        println!("another try: {:?}", proxy.join());
    }
    panic!("the proxy does not start");
}

/// Connects once the proxy knows its broker.
fn connect(bootstrap: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(bootstrap).expect("connected");
    client.set_nodelay(true).expect("set");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    client
}

fn read_frame(stream: &mut TcpStream, frame: &mut Frame) -> std::io::Result<usize> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let n = usize::try_from(u32::from_be_bytes(length)).expect("a length");
    stream.read_exact(&mut frame[..n])?;
    Ok(n)
}

/// A broker that knows what the proxy asks and answers a heartbeat without allocating.
fn serve(mut stream: TcpStream, address: SocketAddr) {
    let mut frame: Frame = [0; 1024];
    while read_frame(&mut stream, &mut frame).is_ok() {
        let key = i16::from_be_bytes([frame[0], frame[1]]);
        let version = i16::from_be_bytes([frame[2], frame[3]]);
        let sent = match key {
            HEARTBEAT => {
                let mut answer = [0; 10];
                answer[3] = 6;
                answer[4..8].copy_from_slice(&frame[4..8]);
                stream.write_all(&answer)
            }
            _ => stream.write_all(&control_answer(key, version, &frame[4..8], address)),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn control_answer(key: i16, version: i16, correlation: &[u8], address: SocketAddr) -> BytesMut {
    let mut answer = BytesMut::new();
    answer.put_i32(0);
    answer.put_slice(correlation);
    if key == 18 {
        let row = ApiVersion::default().with_api_key(3).with_min_version(0).with_max_version(12);
        let rows = ApiVersionsResponse::default().with_api_keys(vec![row]);
        rows.encode(&mut answer, version).expect("encoded");
    } else {
        answer.put_u8(0);
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(i32::from(address.port()));
        let brokers = MetadataResponse::default().with_brokers(vec![broker]);
        brokers.encode(&mut answer, version).expect("encoded");
    }
    let length = u32::try_from(answer.len() - 4).expect("short");
    answer[..4].copy_from_slice(&length.to_be_bytes());
    answer
}
