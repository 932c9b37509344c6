//! SIGHUP: what can change changes, the rest is told, and no connection is dropped.

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::{Checked, ensure, until};

#[tokio::test]
async fn limits_change_for_open_and_new_connections_and_the_rest_is_told() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("connections_max = 9").start().await;
    let mut first = Client::connect(proxy.port).await?;
    first.metadata(12).await?;
    proxy.reload(|toml| {
        toml.replace("connections_max = 9", "connections_max = 1\nbuffered_bytes_max = 999999999")
    });
    until("the reload", async || (proxy.logged(" reloaded ") > 0).then_some(())).await?;
    proxy.says("reload: changed key=limits.connections_max from=9 to=1", 1).await?;
    let fixed = "not changed key=limits.buffered_bytes_max";
    proxy.says(fixed, 1).await?;
    proxy.says("changed=1 need_restart=1", 1).await?;
    let shown = proxy.admin("/config").await?.1;
    ensure!(shown.contains("\"connections_max\":1,"), "in force: {shown}");
    ensure!(!shown.contains("999999999"), "in force: {shown}");
    ensure!(Client::is_turned_away(proxy.port).await?, "one too many was served");
    first.metadata(12).await?;
    proxy.reload(|toml| {
        toml.replace("connections_max = 1\n", "connections_max = 9\nidle_ms = 2000\n")
    });
    until("the reload", async || (proxy.logged(" reloaded ") > 1).then_some(())).await?;
    ensure!(first.receive_to_end().await?.is_empty(), "bytes from nowhere");
    Client::connect(proxy.port).await?.metadata(12).await?;
    Ok(())
}

#[tokio::test]
async fn a_configuration_with_a_problem_changes_nothing() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("connections_max = 9").start().await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    proxy.reload(|toml| {
        toml.replace("connections_max = 9", "connections_max = 0\nconnect_ms = -1\nidle_ms = 50")
    });
    until("the refusal", async || (proxy.logged("reload refused") > 0).then_some(())).await?;
    for key in ["limits.connections_max", "limits.connect_ms"] {
        proxy.says(&format!("reload key={key} problem="), 1).await?;
    }
    ensure!(proxy.admin("/config").await?.1.contains("\"connections_max\":9,"), "it changed");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    client.metadata(12).await?;
    Ok(())
}
