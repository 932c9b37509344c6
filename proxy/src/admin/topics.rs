//! Virtual topics with days on the admin port: what segments they have, and rolls.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Admin, UNREAD};
use crate::placement::leader::{Command, Refused};
use crate::placement::table::Unplaced;
use crate::route::virtual_topics::Routed;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/topics", get(list))
        .route("/topics/{name}", get(describe))
        .route("/topics/{name}/roll", post(roll))
}

async fn list(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let topics = admin.plane.routed.iter().flat_map(|all| all.all());
    Json(topics.map(|topic| shown(&admin, topic)).collect())
}

async fn describe(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> impl IntoResponse {
    let topic = admin.plane.routed.as_ref().and_then(|all| all.by_name(&name));
    match topic {
        Some(topic) => (StatusCode::OK, Json(shown(&admin, topic))),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": "no virtual topic of this name" }))),
    }
}

fn shown(admin: &Admin, topic: &Routed) -> Value {
    let placement = admin.plane.routed.as_ref().map(|all| all.placements().now());
    let slots = topic.slots().iter().enumerate().map(|(slot, name)| {
        let chain = placement.as_ref().and_then(|placement| placement.chain(topic, slot));
        let segments = chain.iter().flat_map(|chain| chain.segments()).map(|segment| {
            json!({
                "number": segment.number,
                "topic": *segment.topic,
                "bases": segment.bases,
                "ends": segment.seal.as_ref().map(|seal| &seal.ends),
                "sealed_at_ms": segment.seal.as_ref().map(|seal| seal.at_ms),
            })
        });
        json!({
            "slot": name,
            "segments": segments.collect::<Vec<_>>(),
            "problem": problem(admin, topic, slot),
        })
    });
    json!({
        "name": *topic.name,
        "partitions": topic.logical(),
        "days": topic.days,
        "slots": slots.collect::<Vec<_>>(),
    })
}

/// Why a slot has no segments to use; `None`: it has some.
fn problem(admin: &Admin, topic: &Routed, slot: usize) -> Option<String> {
    let read = admin.placed.as_ref().filter(|_| topic.days)?.borrow();
    if !read.whole {
        return Some(UNREAD.to_owned());
    }
    read.table.chain(topic, slot).err().map(|why| why.to_string())
}

/// Whoever reaches the admin port may not roll topics, but where only this machine does.
async fn roll(State(admin): State<Arc<Admin>>, Path(topic): Path<String>) -> Response {
    if !admin.config.read().admin.ip().is_loopback() {
        let why = "rolls are taken where the admin port is on a loopback address only";
        return refused(StatusCode::FORBIDDEN, why);
    }
    // The leader would have to be waited for to say so.
    let routed = admin.plane.routed.as_ref().and_then(|all| all.by_name(&topic));
    if routed.is_none_or(|topic| !topic.days) {
        return refused(StatusCode::NOT_FOUND, NO_SUCH_TOPIC);
    }
    let (done, told) = oneshot::channel();
    if admin.commands.send(Command::Roll { topic, done }).await.is_err() {
        return later(NOBODY);
    }
    match told.await {
        Ok(Ok(segments)) => Json(json!({ "segments": segments })).into_response(),
        Ok(Err(Refused::Elsewhere(leader))) => {
            (StatusCode::MISDIRECTED_REQUEST, Json(json!({ "leader": leader }))).into_response()
        }
        Ok(Err(Refused::SameAddress)) => later(SAME_ADDRESS),
        Ok(Err(Refused::Unknown)) => refused(StatusCode::NOT_FOUND, NO_SUCH_TOPIC),
        Ok(Err(Refused::Failed(why))) => refused(StatusCode::INTERNAL_SERVER_ERROR, &why),
        Ok(Err(Refused::Layout)) => refused(StatusCode::CONFLICT, &Unplaced::Layout.to_string()),
        Ok(Err(Refused::Late(slots))) => {
            let slots = slots.join(", ");
            let why = format!("it goes on: no new segment yet in {slots}; the log says why");
            refused(StatusCode::GATEWAY_TIMEOUT, &why)
        }
        Ok(Err(Refused::Nobody)) | Err(_) => later(NOBODY),
    }
}

fn refused(code: StatusCode, why: &str) -> Response {
    (code, Json(json!({ "error": why }))).into_response()
}

/// Whoever asks may ask again soon.
fn later(why: &str) -> Response {
    let after = [(header::RETRY_AFTER, RETRY_AFTER_S)];
    let told = Json(json!({ "error": why }));
    (StatusCode::SERVICE_UNAVAILABLE, after, told).into_response()
}

const NO_SUCH_TOPIC: &str = "no virtual topic with days has this name";
const NOBODY: &str = "nobody leads now: ask again in some seconds";
const SAME_ADDRESS: &str = "this proxy does not lead, and the last leader in the placement log \
    has the same admin address: it was this proxy before a restart, so ask again in some seconds, \
    or it is one on another machine, so ask there";
/// Seconds in which a leader that is lost is followed by another one, as a rule.
const RETRY_AFTER_S: &str = "5";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_while_nobody_leads_is_told_when_to_ask_again() {
        let answer = later(NOBODY);
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let after = answer.headers().get(header::RETRY_AFTER);
        assert_eq!(after.map(|after| after.as_bytes()), Some(RETRY_AFTER_S.as_bytes()));
    }
}
