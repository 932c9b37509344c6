//! What the process knows of a connection: enough to ask it to drain.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Shared by a connection and the process.
#[derive(Debug, Default)]
pub struct Handle {
    draining: AtomicBool,
    wake: Notify,
}

impl Handle {
    /// Asks the connection to stop reading, answer what is in flight and close.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Whether it was asked to.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Resolves once it was asked to.
    pub async fn drained(&self) {
        while !self.is_draining() {
            self.wake.notified().await;
        }
    }
}
