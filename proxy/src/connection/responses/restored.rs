//! Answers that are held whole, since their records may refer to stored values.

use protocol_ext::schema::Message;

use super::{Responses, api, framed, response_error};
use crate::connection::queue::Exchange;
use crate::error::ConnectionError;
use crate::fault;
use crate::filters::offload::{NotRestored, Sharing, Wanted};

impl Responses<'_> {
    /// A response whose records may refer to stored values.
    pub(super) async fn restored(
        &mut self,
        message: &'static Message,
        exchange: &Exchange,
        n: usize,
        wanted: Wanted,
    ) -> Result<(), ConnectionError> {
        let limit = self.plane.limits.buffered_bytes_max / 2;
        let frame = self.whole(exchange, n, limit).await?;
        let Some(offload) = &self.plane.offload else {
            return Err(ConnectionError::Filter("no filter for a response".to_owned()));
        };
        let addresses = &*self.plane.directory;
        let layout = (message, exchange.version);
        let wanted = (wanted, &self.queue.reading);
        let restored = offload.restore(layout, &frame, wanted, addresses).await;
        let restored = restored.map_err(|error| response_error(exchange.api, error))?;
        let _values = restored.room;
        self.write(&framed(restored.frame)).await
    }

    /// The same for a share consumer. Where it cannot be given all that it acquired the connection
    /// closes: brokers then take back what was acquired on it, and count no delivery.
    pub(super) async fn shared(
        &mut self,
        exchange: &Exchange,
        n: usize,
        sharing: &Sharing,
    ) -> Result<(), ConnectionError> {
        let limit = self.plane.limits.buffered_bytes_max / 2;
        let frame = self.whole(exchange, n, limit).await?;
        let Some(offload) = &self.plane.offload else {
            return Err(ConnectionError::Filter("no filter for a response".to_owned()));
        };
        let addresses = &*self.plane.directory;
        let restored = offload.restore_shared(exchange.version, &frame, sharing, addresses).await;
        let restored = restored.map_err(|error| match error {
            NotRestored::Wire(error) => response_error(exchange.api, error),
            NotRestored::Nameless if !fault::on("nameless-is-ours") => {
                ConnectionError::Nameless(api::name(exchange.api))
            }
            NotRestored::Nameless | NotRestored::Store | NotRestored::Crowded => {
                ConnectionError::Filter(error.to_string())
            }
        })?;
        let _values = restored.room;
        self.write(&framed(restored.frame)).await
    }
}
