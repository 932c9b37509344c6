//! The proxy on a host of the simulated network: the library from start to drain, as the binary
//! runs it, without signals and admin port.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use firebreak::accept;
use firebreak::config::Config;
use firebreak::config::raw::Flags;
use firebreak::metrics::Side;
use firebreak::run::Serving;

use crate::brokers;
use crate::connection::{BOOTSTRAP, FIRST, PROXY};
use crate::records::REGION;
use crate::world::World;

/// Time for the answers in flight.
pub const DRAIN: Duration = Duration::from_secs(8);
/// Values longer than this go to the store.
pub const THRESHOLD_BYTES: usize = 2000;
/// Time after which brokers are asked again who they are.
pub const REFRESH: Duration = Duration::from_millis(1500);

/// Time in which what was cut off is gone.
pub const CUT: Duration = Duration::from_millis(1);

/// What is on in a simulation.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// Large values go to a store.
    pub offload: bool,
    /// One topic is virtual.
    pub routed: bool,
}

impl Features {
    /// Those of a seed.
    pub fn of(seed: u64) -> Self {
        Self { offload: seed & 1 != 0, routed: seed & 2 != 0 }
    }
}

/// File of a key that signs references; the same one in every run.
fn key_file() -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sim.key");
    if !path.exists() {
        let new = path.with_extension(format!("{:?}", std::thread::current().id()));
        std::fs::write(&new, "9f2c41d7b06e83a5c1d94e7f20b8635a").expect("a file");
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).expect("a mode");
        std::fs::rename(&new, &path).expect("a name");
    }
    path
}

/// Bounds of a simulation full of trouble.
pub const LIMITS: &str = "frame_bytes_max = 1000000\nbuffered_bytes_max = 4000000\n\
     first_request_ms = 5000\nframe_progress_ms = 3000\nidle_ms = 6000";

/// The configuration of a simulation.
pub fn config(features: Features, limits: &str) -> Config {
    let bootstrap: Vec<String> =
        (0..brokers::HOSTS).map(|n| format!("{}:{}", brokers::host(n), brokers::PORT)).collect();
    let last = i32::from(FIRST) + brokers::IDS - 1;
    let mut text = format!(
        "[listen]\nbootstrap = \"0.0.0.0:{BOOTSTRAP}\"\nadvertise = \"{PROXY}\"\n\
         ports = \"{FIRST}-{last}\"\n[[cluster]]\nname = \"main\"\nbootstrap = {bootstrap:?}\n\
         [limits]\n{limits}\nconnect_ms = 1000\ndrain_ms = {}\nrefresh_ms = {}\n",
        DRAIN.as_millis(),
        REFRESH.as_millis(),
    );
    if features.offload {
        text += &format!(
            "[store]\nkind = \"memory\"\nkey_file = {:?}\ncache_bytes = 0\n[[offload]]\n\
             topics = [\"big-*\"]\nthreshold_bytes = {THRESHOLD_BYTES}\n",
            key_file()
        );
    }
    if features.routed {
        let header = String::from_utf8_lossy(REGION);
        text += &format!(
            "[[virtual_topic]]\nname = \"fires\"\npartitions = 2\n\
             region = {{ header = {header:?} }}\n[[region]]\nname = \"norcal\"\n"
        );
    }
    Config::parse(&text, &Flags::default()).expect("a sound configuration")
}

/// Serves until it is asked to drain.
pub async fn run(world: Rc<World>, config: Config) -> turmoil::Result {
    let doors = accept::bind(&config.listen).map_err(|(address, e)| format!("{address}: {e}"))?;
    let serving = Serving::start(&config, doors, &tokio::runtime::Handle::current())?;
    let plane = serving.plane.clone();
    *world.plane.borrow_mut() = Some(plane.clone());
    tokio::select! {
        biased;
        () = world.kill.notified() => {
            // What a runtime drops itself it drops in an order that no seed decides.
            serving.cut();
            tokio::time::sleep(CUT).await;
            return Ok(());
        }
        () = world.drain.notified() => {}
    }
    world.count("drains");
    let began = tokio::time::Instant::now();
    let limit = config.limits.drain;
    let aborted = tokio::select! {
        biased;
        () = world.kill.notified() => {
            serving.cut();
            tokio::time::sleep(CUT).await;
            return Ok(());
        }
        aborted = serving.drain(limit) => aborted,
    };
    let took = began.elapsed();
    if aborted > 0 || took > DRAIN {
        world.violate(format!("a drain took {took:?} and cut off {aborted} connections"));
    }
    // Guards of what was cut off fall a moment later.
    tokio::time::sleep(Duration::from_millis(50)).await;
    check_empty(&world, "after a drain");
    world.drained.set(Some(aborted));
    Ok(())
}

/// Nothing may be held for connections that are gone.
pub fn check_empty(world: &World, when: &str) {
    let Some(plane) = world.plane.borrow().clone() else { return };
    let restored =
        plane.offload.as_ref().map_or(0, |offload| offload.restored_room().taken_bytes());
    let held = [plane.requests.taken_bytes(), plane.responses.taken_bytes(), restored];
    let open = [Side::Client, Side::Broker].map(|side| plane.metrics.open_connections(side));
    if held != [0; 3] || open != [0; 2] {
        world.violate(format!(
            "{when} {held:?} bytes of requests, responses and values are held, and {open:?} \
             connections of clients and brokers counted"
        ));
    }
}
