//! Tracked tasks: what is spawned here can be waited for and, at the end, cut off.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks with one end.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cut: Arc<CancellationToken>,
    on: Option<Handle>,
}

impl Tasks {
    /// A group whose tasks run on another runtime than the one that begins them.
    pub fn on(runtime: &Handle) -> Self {
        Self { on: Some(runtime.clone()), ..Self::default() }
    }

    /// Runs `task` until it ends, or is aborted by what this gives.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.begin(task).abort_handle()
    }

    /// Runs `task` on the runtime of whoever calls this, from anywhere: where there is none, as at
    /// the end of a process, it is left.
    pub fn spawn_here(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(here) = Handle::try_current() {
            self.tracker.spawn_on(task, &here);
        }
    }

    fn begin(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        match &self.on {
            Some(runtime) => self.tracker.spawn_on(task, runtime),
            None => self.tracker.spawn(task),
        }
    }

    /// Runs a job that never ends by itself; it stops when the group is cut off.
    pub fn spawn_until_cut(&self, job: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.begin(async move {
            tokio::select! {
                biased;
                () = job => {}
                () = cut.cancelled() => {}
            }
        });
    }

    /// Ends the jobs that never end by themselves.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits for all tasks, at most `limit`; false if some are left.
    pub async fn wait(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// Runs work that may keep a core busy for long without holding up other connections.
pub fn busy<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let many = matches!(Handle::current().runtime_flavor(), RuntimeFlavor::MultiThread);
    if many && bytes > BUSY_BYTES { tokio::task::block_in_place(work) } else { work() }
}

/// Work on more bytes than this leaves the core to others.
const BUSY_BYTES: usize = 256 * 1024;
