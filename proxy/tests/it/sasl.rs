//! SASL: what passes through, what ends at the proxy, and as whom brokers see clients.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::fake_broker::Fault;
use protocol_ext::sasl::scram::{ClientAsks, ITERATIONS_MIN, Keys};
use protocol_ext::sasl::{Mechanism, plain};

use crate::harness::broker::Brokers;
use crate::harness::certs::write;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::single;
use crate::harness::requests::produce;
use crate::harness::s3::{Fault::Slow, Kind, S3};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};

pub const PASSWORD: &str = "wonder,land=7";
const OWN_PASSWORD: &str = "the proxy's own secret";

async fn handshake(client: &mut Client, version: i16, mechanism: Mechanism) -> Checked {
    let name = StrBytes::from_static_str(mechanism.name());
    let request = SaslHandshakeRequest::default().with_mechanism(name);
    let answer: SaslHandshakeResponse = client.call(17, version, &request).await?;
    ensure_eq!(answer.error_code, 0, "error of SaslHandshake");
    Ok(())
}

async fn authenticate(
    client: &mut Client,
    version: i16,
    token: Vec<u8>,
) -> Checked<SaslAuthenticateResponse> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(token.into());
    client.call(36, version, &request).await
}

/// Logs in and gives the lifetime told; the error code if it fails.
pub async fn log_in(
    client: &mut Client,
    mechanism: Mechanism,
    user: &str,
    password: &str,
) -> Checked<Result<i64, i16>> {
    handshake(client, 1, mechanism).await?;
    if mechanism == Mechanism::Plain {
        let answer = authenticate(client, 1, plain(user, password)).await?;
        return Ok(match answer.error_code {
            0 => Ok(answer.session_lifetime_ms),
            code => Err(code),
        });
    }
    let (token, asks) = ClientAsks::first(mechanism, user, "its nonce");
    let answer = authenticate(client, 2, token).await?;
    if answer.error_code != 0 {
        return Ok(Err(answer.error_code));
    }
    let proves = asks.read(&answer.auth_bytes).map_err(failure)?;
    let salted = proves.salted(password);
    let (token, waits) = proves.prove(&salted);
    let answer = authenticate(client, 2, token).await?;
    if answer.error_code != 0 {
        return Ok(Err(answer.error_code));
    }
    waits.verify(&answer.auth_bytes).map_err(failure)?;
    Ok(Ok(answer.session_lifetime_ms))
}

/// Brokers that want a login, and a proxy that knows its own.
pub async fn brokers() -> Brokers {
    let brokers = Brokers::start(2).await;
    let user = |name: &str, password: &str| (name.to_owned(), password.to_owned());
    brokers.cluster().users =
        vec![user("firebreak", OWN_PASSWORD), user("alice", PASSWORD), user("bob", "b")];
    brokers
}

pub fn cluster(folder: &Folder, mechanism: Mechanism) -> String {
    let file = write(folder.path(), "own", &format!("{OWN_PASSWORD}\n"));
    format!(
        "sasl = {{ mechanism = \"{mechanism}\", username = \"firebreak\", \
         password_file = {file:?} }}"
    )
}

/// The line of `[listen]`: alice has a password, carol keys made of the same one.
pub fn listen(folder: &Folder, more: &str) -> String {
    let keys = Keys::derive(Mechanism::ScramSha256, PASSWORD, b"salt", ITERATIONS_MIN);
    let carol =
        if more.contains("client") { String::new() } else { format!("carol:{}", keys.text()) };
    let file = write(folder.path(), "users", &format!("alice:{PASSWORD}\nbob:x\n{carol}\n"));
    format!(
        "sasl = {{ mechanisms = [\"PLAIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-512\"], \
         users_file = {file:?}{more} }}"
    )
}

async fn ending(faults: Faults, brokers: &Brokers, more: &str) -> (Folder, Proxy) {
    let folder = Folder::new();
    let setup = Setup::new(brokers, faults).listen(&listen(&folder, more));
    let setup = setup.cluster(&cluster(&folder, Mechanism::ScramSha512));
    let proxy = setup.start().await;
    (folder, proxy)
}

async fn closed(proxy: &Proxy, kind: &str, times: f64) -> Checked {
    let metric = format!("firebreak_errors_total{{blame=\"client\",kind=\"{kind}\"}}");
    proxy.metric_becomes(&metric, times).await
}

#[tokio::test]
async fn sasl_passes_through_and_is_renewed_where_it_does_not_end_here() -> Checked {
    let (brokers, folder) = (brokers().await, Folder::new());
    let setup = Setup::new(&brokers, None).cluster(&cluster(&folder, Mechanism::Plain));
    let proxy = setup.start().await;
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
        brokers.cluster().lifetime = Duration::from_secs(77);
        let mut client = Client::connect(proxy.port).await?;
        let lifetime = log_in(&mut client, mechanism, "alice", PASSWORD).await?;
        ensure_eq!(lifetime, Ok(77_000), "lifetime told");
        client.metadata(12).await?;
        ensure_eq!(log_in(&mut client, mechanism, "alice", PASSWORD).await?, Ok(77_000), "again");
        client.metadata(12).await?;
        let mut other = Client::connect(proxy.port).await?;
        let refused = log_in(&mut other, mechanism, "alice", "another").await?;
        ensure_eq!(refused, Err(58), "a wrong password");
    }
    let logins = brokers.cluster().logins.iter().filter(|user| *user == "alice").count();
    ensure_eq!(logins, 6, "logins of alice at the brokers");
    Ok(())
}

#[tokio::test]
async fn a_handshake_that_raw_tokens_follow_is_shown_and_closed_where_sasl_passes_through()
-> Checked {
    version_0_of_handshakes_is_shown(None).await
}

/// librdkafka looks for version 0 and uses version 1; who uses version 0 is closed.
pub async fn version_0_of_handshakes_is_shown(faults: Faults) -> Checked {
    let brokers = brokers().await;
    let folder = Folder::new();
    let setup = Setup::new(&brokers, faults).cluster(&cluster(&folder, Mechanism::Plain));
    let proxy = setup.start().await;
    let mut client = Client::connect(proxy.port).await?;
    let offered: ApiVersionsResponse = client.call(18, 0, &ApiVersionsRequest::default()).await?;
    let row = offered.api_keys.iter().find(|row| row.api_key == 17);
    ensure_eq!(row.map(|row| (row.min_version, row.max_version)), Some((0, 1)), "versions told");
    let name = StrBytes::from_static_str("PLAIN");
    client.send(17, 0, &SaslHandshakeRequest::default().with_mechanism(name)).await?;
    ensure!(!client.receive().await?.is_empty(), "no answer to SaslHandshake version 0");
    client.send_raw(b"\0\0\0\x0d\0alice\0secret").await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer to a token without a head");
    closed(&proxy, "not_offered", 1.0).await
}

#[tokio::test]
async fn clients_prove_themselves_to_the_proxy_and_brokers_see_the_proxy() -> Checked {
    passwords_are_checked(None).await
}

/// Every mechanism lets the right password in, and no other.
pub async fn passwords_are_checked(faults: Faults) -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = ending(faults, &brokers, "").await;
    let before = brokers.cluster().logins.len();
    let good = [
        (Mechanism::Plain, "alice"),
        (Mechanism::ScramSha256, "alice"),
        (Mechanism::ScramSha512, "alice"),
        (Mechanism::Plain, "carol"),
        (Mechanism::ScramSha256, "carol"),
    ];
    for (mechanism, user) in good {
        let mut client = Client::connect(proxy.port).await?;
        let offered: ApiVersionsResponse =
            client.call(18, 3, &ApiVersionsRequest::default()).await?;
        ensure!(offered.api_keys.iter().any(|row| row.api_key == 36), "no SaslAuthenticate told");
        let logged = log_in(&mut client, mechanism, user, PASSWORD).await?;
        ensure_eq!(logged, Ok(0), "login of {user} by {mechanism}");
        ensure_eq!(client.metadata(12).await?.brokers.len(), 2, "brokers told");
    }
    let logins = brokers.cluster().logins.split_off(before);
    ensure!(logins.iter().all(|user| user == "firebreak"), "brokers saw {logins:?}");
    ensure!(logins.len() >= good.len(), "{} logins at brokers", logins.len());
    let open = brokers.counts(0).open.load(Ordering::Relaxed);
    let bad = [
        (Mechanism::Plain, "alice", "other"),
        (Mechanism::Plain, "eve", PASSWORD),
        (Mechanism::ScramSha256, "alice", "other"),
        (Mechanism::ScramSha512, "eve", PASSWORD),
        (Mechanism::ScramSha512, "carol", PASSWORD),
    ];
    for (n, (mechanism, user, password)) in (1..).zip(bad) {
        let mut client = Client::connect(proxy.port).await?;
        let logged = log_in(&mut client, mechanism, user, password).await?;
        ensure_eq!(logged, Err(58), "login of {user} with {password} by {mechanism}");
        ensure!(client.receive_to_end().await?.is_empty(), "bytes behind a refusal");
        closed(&proxy, "authentication", f64::from(n)).await?;
    }
    ensure!(brokers.counts(0).open.load(Ordering::Relaxed) <= open, "a wrong one held a broker");
    until("lines", async || (proxy.logged("authentication: ") == 5).then_some(())).await
}

#[tokio::test]
async fn raw_tokens_follow_a_handshake_of_version_0_where_sasl_ends_here() -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = ending(None, &brokers, "").await;
    let mut client = Client::connect(proxy.port).await?;
    handshake(&mut client, 0, Mechanism::Plain).await?;
    let token = plain("alice", PASSWORD);
    let length = u32::try_from(token.len()).map_err(failure)?;
    client.send_raw(&[&length.to_be_bytes()[..], &token].concat()).await?;
    ensure_eq!(client.receive().await?, Bytes::new(), "the answer of PLAIN");
    ensure_eq!(client.metadata(12).await?.brokers.len(), 2, "brokers told");
    Ok(())
}

#[tokio::test]
async fn brokers_see_each_client_as_itself_where_its_password_is_known() -> Checked {
    brokers_see_clients(None).await
}

/// A client's name and password are taken to its broker; one that the broker refuses is let go.
pub async fn brokers_see_clients(faults: Faults) -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = ending(faults, &brokers, ", brokers_see = \"client\"").await;
    let before = brokers.cluster().logins.len();
    for (n, mechanism) in [Mechanism::Plain, Mechanism::ScramSha256].into_iter().enumerate() {
        let mut client = Client::connect(proxy.node(1)).await?;
        ensure_eq!(log_in(&mut client, mechanism, "alice", PASSWORD).await?, Ok(0), "login");
        client.metadata(12).await?;
        let logins = brokers.cluster().logins[before..].iter().filter(|u| *u == "alice").count();
        ensure_eq!(logins, n + 1, "logins of alice at brokers");
    }
    // The broker knows bob by another password.
    let mut client = Client::connect(proxy.port).await?;
    handshake(&mut client, 1, Mechanism::Plain).await?;
    let request = SaslAuthenticateRequest::default().with_auth_bytes(plain("bob", "x").into());
    client.send(36, 1, &request).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer though the broker refused");
    let metric = "firebreak_errors_total{blame=\"upstream\",kind=\"unreachable\"}";
    proxy.metric_becomes(metric, 1.0).await
}

#[tokio::test]
async fn a_request_before_the_proof_is_closed_with_a_clear_line() -> Checked {
    requests_before_the_proof_are_closed(None).await
}

/// Nothing but the exchange itself is served before it, and only in small frames.
pub async fn requests_before_the_proof_are_closed(faults: Faults) -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = ending(faults, &brokers, "").await;
    let open = brokers.counts(0).open.load(Ordering::Relaxed);
    let mut client = Client::connect(proxy.port).await?;
    client.send(3, 12, &crate::harness::requests::metadata(12)).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer before the proof");
    closed(&proxy, "unproven", 1.0).await?;
    let line = "request for Metadata (api key 3) before authentication";
    until("a line", async || (proxy.logged(line) == 1).then_some(())).await?;
    let mut large = Client::connect(proxy.port).await?;
    large.send_raw(&[0, 1, 0, 1, 0, 36, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff]).await?;
    let closed_at_once = closed(&proxy, "frame_length", 1.0).await;
    ensure!(closed_at_once.is_ok(), "a long frame before the proof was waited for");
    let now = brokers.counts(0).open.load(Ordering::Relaxed);
    ensure!(now <= open, "connections at the broker: {now}");
    Ok(())
}

#[tokio::test]
async fn who_is_silent_or_does_not_finish_has_the_time_of_a_handshake() -> Checked {
    logins_have_a_time(None).await
}

/// Silence, half an exchange, and a broker that lets nobody in all end in time.
pub async fn logins_have_a_time(faults: Faults) -> Checked {
    let (brokers, folder) = (brokers().await, Folder::new());
    let setup = Setup::new(&brokers, faults).listen(&listen(&folder, ""));
    let setup = setup.cluster(&cluster(&folder, Mechanism::ScramSha512)).refresh_ms(60_000);
    let proxy = setup.limit("handshake_ms = 3000").start().await;
    let mut silent = Client::connect(proxy.port).await?;
    let mut half = Client::connect(proxy.port).await?;
    handshake(&mut half, 1, Mechanism::Plain).await?;
    ensure!(silent.receive_to_end().await?.is_empty(), "an answer to silence");
    ensure!(half.receive_to_end().await?.is_empty(), "an answer to half an exchange");
    closed(&proxy, "slow_handshake", 2.0).await?;
    brokers.cluster().script(17, Fault::Never);
    // A door that leads to one broker only.
    let mut stuck = Client::connect(proxy.node(1)).await?;
    handshake(&mut stuck, 1, Mechanism::Plain).await?;
    let request =
        SaslAuthenticateRequest::default().with_auth_bytes(plain("alice", PASSWORD).into());
    stuck.send(36, 1, &request).await?;
    closed(&proxy, "slow_handshake", 3.0).await?;
    ensure!(stuck.receive_to_end().await?.is_empty(), "an answer though no broker let it in");
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(log_in(&mut client, Mechanism::Plain, "alice", PASSWORD).await?, Ok(0), "login");
    Ok(())
}

#[tokio::test]
async fn a_refused_renewal_is_told_behind_the_answers_that_are_owed() -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = ending(None, &brokers, "").await;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(log_in(&mut client, Mechanism::Plain, "alice", PASSWORD).await?, Ok(0), "login");
    brokers.cluster().script(10, Fault::Delay(Duration::from_millis(700)));
    let find = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("g"));
    let asked = client.send(10, 3, &find).await?;
    let name = StrBytes::from_static_str("PLAIN");
    let begun = client.send(17, 1, &SaslHandshakeRequest::default().with_mechanism(name)).await?;
    let request =
        SaslAuthenticateRequest::default().with_auth_bytes(plain("alice", "other").into());
    let refused = client.send(36, 1, &request).await?;
    let _: FindCoordinatorResponse = answer(&client.receive().await?, 3, asked)?;
    let _: SaslHandshakeResponse = answer(&client.receive().await?, 1, begun)?;
    let told: SaslAuthenticateResponse = answer(&client.receive().await?, 1, refused)?;
    ensure_eq!(told.error_code, 58, "error of the renewal");
    ensure!(client.receive_to_end().await?.is_empty(), "bytes behind a refusal");
    closed(&proxy, "authentication", 1.0).await
}

#[tokio::test]
async fn a_session_ends_also_while_values_are_under_way_to_the_store() -> Checked {
    sessions_end_behind_uploads(None).await
}

/// A request that comes behind an upload comes too late like any other.
pub async fn sessions_end_behind_uploads(faults: Faults) -> Checked {
    let (brokers, folder, s3) = (brokers().await, Folder::new(), S3::start().await);
    brokers.cluster().add_topic("t", 1);
    let setup = Setup::new(&brokers, faults).listen(&listen(&folder, ", session_ms = 2000"));
    let setup = setup.cluster(&cluster(&folder, Mechanism::Plain)).offload_s3(&s3, 10_000);
    let proxy = setup.start().await;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(log_in(&mut client, Mechanism::Plain, "alice", PASSWORD).await?, Ok(2000), "login");
    s3.script(Kind::Put, &[Slow(Duration::from_millis(3500)), Slow(Duration::ZERO)]);
    let large = |n| produce(9, -1, "t", &[(0, single(noise(n, 30_000)))]);
    client.send(0, 9, &large(1)).await?;
    until("the upload", async || (s3.count(Kind::Put) == 1).then_some(())).await?;
    tokio::time::sleep(Duration::from_millis(2200)).await;
    client.send(0, 9, &large(2)).await?;
    closed(&proxy, "session_over", 1.0).await?;
    ensure_eq!(s3.count(Kind::Put), 1, "uploads of a session that is over");
    Ok(())
}

#[tokio::test]
async fn a_session_that_is_not_renewed_ends_and_a_renewed_one_goes_on() -> Checked {
    sessions_end(None).await
}

/// A client is told how long its session is, renews it with the broker's behind it, or is closed.
pub async fn sessions_end(faults: Faults) -> Checked {
    let brokers = brokers().await;
    brokers.cluster().lifetime = Duration::from_secs(600);
    let (_folder, proxy) = ending(faults, &brokers, ", session_ms = 5000").await;
    let mut idle = Client::connect(proxy.port).await?;
    let told = log_in(&mut idle, Mechanism::ScramSha256, "alice", PASSWORD).await?;
    ensure_eq!(told, Ok(5000), "lifetime told");
    let mut busy = Client::connect(proxy.port).await?;
    log_in(&mut busy, Mechanism::Plain, "alice", PASSWORD).await?.map_err(failure)?;
    let before = brokers.cluster().logins.len();
    for n in 0..4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let told = log_in(&mut busy, Mechanism::Plain, "alice", PASSWORD).await?;
        ensure_eq!(told, Ok(5000), "lifetime told when renewed {n}");
        ensure_eq!(busy.metadata(12).await?.brokers.len(), 2, "brokers told");
    }
    let logins = brokers.cluster().logins.len() - before;
    ensure!(logins >= 4, "the broker's session was renewed {logins} times");
    idle.send(3, 12, &crate::harness::requests::metadata(12)).await?;
    ensure!(idle.receive_to_end().await?.is_empty(), "an answer behind the end of a session");
    closed(&proxy, "session_over", 1.0).await?;
    let told = log_in(&mut busy, Mechanism::Plain, "bob", "x").await?;
    ensure_eq!(told, Err(58), "a session that becomes another's");
    ensure!(busy.receive_to_end().await?.is_empty(), "bytes behind a refusal");
    Ok(())
}

#[tokio::test]
async fn users_and_passwords_are_renewed_from_their_files() -> Checked {
    let brokers = brokers().await;
    let (folder, proxy) = ending(None, &brokers, "").await;
    write(folder.path(), "users", "dave:new\n");
    proxy.metric_becomes("firebreak_file_reloads_total{result=\"ok\"}", 1.0).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(log_in(&mut client, Mechanism::ScramSha512, "dave", "new").await?, Ok(0), "dave");
    let mut client = Client::connect(proxy.port).await?;
    let gone = log_in(&mut client, Mechanism::ScramSha512, "alice", PASSWORD).await?;
    ensure_eq!(gone, Err(58), "alice is gone");
    brokers.cluster().users[0].1 = "another".to_owned();
    write(folder.path(), "own", "another\n");
    proxy.metric_becomes("firebreak_file_reloads_total{result=\"ok\"}", 2.0).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(log_in(&mut client, Mechanism::ScramSha512, "dave", "new").await?, Ok(0), "dave");
    client.metadata(12).await?;
    Ok(())
}

#[tokio::test]
async fn no_secret_is_shown_anywhere() -> Checked {
    secrets_stay_secret(None).await
}

/// Neither the log nor any page of the admin port has a password.
pub async fn secrets_stay_secret(faults: Faults) -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = ending(faults, &brokers, "").await;
    for password in [PASSWORD, "guess"] {
        let mut client = Client::connect(proxy.port).await?;
        // Only what is shown of it counts here.
        let _ = log_in(&mut client, Mechanism::Plain, "alice", password).await?;
    }
    closed(&proxy, "authentication", 1.0).await?;
    let mut shown = proxy.log();
    for page in ["/config", "/status", "/metrics", "/readyz"] {
        shown.push_str(&proxy.admin(page).await?.1);
    }
    ensure!(shown.contains("***"), "no secret is masked: {shown}");
    for secret in [PASSWORD, OWN_PASSWORD, "guess"] {
        ensure!(!shown.contains(secret), "{secret:?} is shown");
    }
    Ok(())
}

/// Who is ended before it has read anything is reset, also where SASL ends at the proxy.
pub async fn clients_that_read_nothing_are_reset(faults: Faults) -> Checked {
    let (brokers, folder) = (brokers().await, Folder::new());
    let setup = || {
        let setup = Setup::new(&brokers, faults).listen(&listen(&folder, ""));
        setup.cluster(&cluster(&folder, Mechanism::ScramSha512))
    };
    let nowhere = setup().bootstrap(&["127.0.0.1:1".to_owned()]).limit("connect_ms = 300");
    let proxy = nowhere.not_ready().start().await;
    until("a listener", async || (proxy.logged("started") > 0).then_some(())).await?;
    let mut client = Client::connect(proxy.port).await?;
    client.send(18, 0, &ApiVersionsRequest::default()).await?;
    ensure!(client.is_reset().await?, "without a broker it was closed in good order");

    let proxy = setup().limit("unproven_max = 1").start().await;
    let mut first = Client::connect(proxy.port).await?;
    let _: ApiVersionsResponse = first.call(18, 0, &ApiVersionsRequest::default()).await?;
    let reset = Client::is_turned_away(proxy.port).await?;
    ensure!(reset, "in a full house it was closed in good order");

    let proxy = setup().start().await;
    let mut silent = Client::connect(proxy.port).await?;
    let open = "firebreak_connections{side=\"client\"}";
    proxy.metric_becomes(open, 1.0).await?;
    proxy.terminate();
    ensure!(silent.is_reset().await?, "by a drain it was closed in good order");
    Ok(())
}

#[tokio::test]
async fn clients_that_are_ended_before_they_read_anything_are_reset() -> Checked {
    clients_that_read_nothing_are_reset(None).await
}
