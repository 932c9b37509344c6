//! Virtual topics with days on the admin port: what segments they have, and rolls.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
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
async fn roll(State(admin): State<Arc<Admin>>, Path(topic): Path<String>) -> impl IntoResponse {
    if !admin.config.read().admin.ip().is_loopback() {
        let why = "rolls are taken where the admin port is on a loopback address only";
        return (StatusCode::FORBIDDEN, Json(json!({ "error": why })));
    }
    // The leader would have to be waited for to say so.
    let routed = admin.plane.routed.as_ref().and_then(|all| all.by_name(&topic));
    if routed.is_none_or(|topic| !topic.days) {
        return (StatusCode::NOT_FOUND, Json(json!({ "error": NO_SUCH_TOPIC })));
    }
    let (done, told) = oneshot::channel();
    let nobody = (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "nobody leads now" })));
    if admin.commands.send(Command::Roll { topic, done }).await.is_err() {
        return nobody;
    }
    match told.await {
        Ok(Ok(segments)) => (StatusCode::OK, Json(json!({ "segments": segments }))),
        Ok(Err(Refused::Elsewhere(leader))) => {
            (StatusCode::MISDIRECTED_REQUEST, Json(json!({ "leader": leader })))
        }
        Ok(Err(Refused::Unknown)) => {
            (StatusCode::NOT_FOUND, Json(json!({ "error": NO_SUCH_TOPIC })))
        }
        Ok(Err(Refused::Failed(why))) => {
            (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": why })))
        }
        Ok(Err(Refused::Layout)) => {
            let why = Unplaced::Layout.to_string();
            (StatusCode::CONFLICT, Json(json!({ "error": why })))
        }
        Ok(Err(Refused::Late(slots))) => {
            let slots = slots.join(", ");
            let why = format!("it goes on: no new segment yet in {slots}; the log says why");
            (StatusCode::GATEWAY_TIMEOUT, Json(json!({ "error": why })))
        }
        Ok(Err(Refused::Nobody)) | Err(_) => nobody,
    }
}

const NO_SUCH_TOPIC: &str = "no virtual topic with days has this name";
