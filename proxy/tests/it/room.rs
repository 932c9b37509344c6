//! Room of the byte budget that questions about virtual topics, and what is answered here, take.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, request_frame};
use crate::harness::proxy::Setup;
use crate::harness::requests::{fetch, name};
use crate::harness::{Checked, Faults, ensure};

/// Questions of one client that reads no answer; sockets take some of these, not all.
const QUESTIONS: usize = 60;
/// Partitions that no topic has: nobody is asked.
const PARTITIONS: usize = 15_000;

/// Long answers that are made here take their turn and have room.
pub async fn long_answers_take_room(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, faults).virtual_topic().start().await;
    let mut client = Client::connect_with_buffer(proxy.port, 4096).await?;
    let partition = ListOffsetsPartition::default().with_partition_index(-1).with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(name("v"));
    let topic = topic.with_partitions(vec![partition; PARTITIONS]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into());
    let frame = request_frame(2, 7, 5, &request.with_topics(vec![topic]));
    let all: Bytes = frame.iter().copied().cycle().take(frame.len() * QUESTIONS).collect();
    let mut sending = tokio::task::JoinSet::new();
    sending.spawn(async move {
        // It ends with the test, or when all is taken.
        let sent = client.send_raw(&all).await;
        std::future::pending::<()>().await;
        (client, sent)
    });
    let counted = "firebreak_requests_total{api=\"ListOffsets\",class=\"full\"}";
    let (mut last, mut same) = (0.0, 0);
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = proxy.metric(counted).await?;
        same = if now > 0.0 && now <= last { same + 1 } else { 0 };
        last = now;
    }
    ensure!(last < 40.0, "{last} answers are held for a client that reads none");
    let held = proxy.metric("firebreak_buffered_bytes{what=\"answers\"}").await?;
    ensure!(held > 0.0, "the answers that are held have no room");
    Ok(())
}

#[tokio::test]
async fn long_answers_made_here_take_their_turn_and_have_room() -> Checked {
    long_answers_take_room(None).await
}

/// A question that is padded to megabytes is not read: it would hold room while it waits.
pub async fn long_questions_are_refused(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, faults).virtual_topic().start().await;
    let mut client = Client::connect(proxy.port).await?;
    let mut request = fetch(12, "v", &[(0, 0)], 1000);
    request.unknown_tagged_fields.insert(99, Bytes::from(vec![0; 5 << 20]));
    let frame = request_frame(1, 12, 5, &request);
    // What behind its head it does not take.
    let _ = client.send_raw(&frame).await;
    ensure!(client.receive().await.is_err(), "a padded question was answered");
    let refused = "firebreak_errors_total{blame=\"client\",kind=\"frame_length\"}";
    proxy.metric_becomes(refused, 1.0).await
}

#[tokio::test]
async fn a_question_padded_to_megabytes_is_refused() -> Checked {
    long_questions_are_refused(None).await
}
