//! GET_ROUTEINFO_BY_TOPIC (105): what clients ask every 30 seconds for each of their topics.

use std::borrow::Cow;

use rmq_net::codes::response;
use rmq_net::text::Text;

use super::{Arrival, Outcome, Refusal, Reply};
use crate::json::RouteForm;
use crate::kv::ORDER_TOPIC_CONFIG;
use crate::route_body::Route;
use crate::server::NameServer;

/// The version number (4.9.4) from which clients understand standard JSON.
const STANDARD_JSON_VERSION_MIN: i32 = 401;

/// The finished bytes when there are any, else they are made now and kept.
pub fn query<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let field = arrival.frame.ext.get("topic");
    let topic = field.as_ref().map_or(Cow::Borrowed("null"), Text::to_cow); // Java's word for no name
    check_ready(server, arrival.now_ms)?;
    let form = form_of(arrival);
    if let Some(zone_name) = zone_of(arrival) {
        return Ok(Reply::body(build(server, &topic, form, Some(&zone_name))?));
    }
    let generation = server.routes.generation();
    if finished(server, &topic, form).is_none() {
        let body = build(server, &topic, form, None)?;
        if let Some(entry) = server.routes.topics.get_mut(&topic) {
            entry.bodies_mut().put(form, generation, body);
        }
    }
    let body = finished(server, &topic, form).ok_or_else(|| not_found(&topic))?;
    Ok(Reply { ext: Vec::new(), body: Cow::Borrowed(body) })
}

fn finished<'s>(server: &'s NameServer, topic: &str, form: RouteForm) -> Option<&'s [u8]> {
    let entry = server.routes.topics.get(topic)?;
    entry.bodies().get(form, server.routes.generation())
}

fn build(server: &NameServer, topic: &str, form: RouteForm, zone_name: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let routes = &server.routes;
    let entry = routes.topics.get(topic).ok_or_else(|| not_found(topic))?;
    let acting = server.config.support_acting_master;
    let route = Route::of(topic, entry, &routes.sets, &routes.live, acting);
    let mut route = route.ok_or_else(|| not_found(topic))?;
    if server.config.order_message_enable {
        route = route.with_order_topic_conf(server.kv.get(ORDER_TOPIC_CONFIG, topic));
    }
    if let Some(zone_name) = zone_name {
        route = route.in_zone(zone_name);
    }
    let mut body = Vec::new();
    route.write(&mut body, form);
    Ok(body)
}

/// After a start the table fills within one registration period; a name server told to wait does not
/// answer from a half-filled one.
fn check_ready(server: &NameServer, now_ms: i64) -> Result<(), Refusal> {
    let wait_ms = i64::from(server.config.wait_seconds_for_service) * 1000;
    if server.config.need_wait_for_service && now_ms < server.started_ms.saturating_add(wait_ms) {
        return Err(Refusal::system_error("name server not ready"));
    }
    Ok(())
}

fn form_of(arrival: &Arrival<'_>) -> RouteForm {
    if arrival.frame.version >= STANDARD_JSON_VERSION_MIN
        || arrival.optional_bool("acceptStandardJsonOnly") == Some(true)
    {
        RouteForm::Standard
    } else {
        RouteForm::Legacy
    }
}

/// The zone that the asker wants to stay in.
fn zone_of(arrival: &Arrival<'_>) -> Option<String> {
    if arrival.optional_bool("__ZONE_MODE") != Some(true) {
        return None;
    }
    let zone_name = arrival.optional("__ZONE_NAME")?;
    (!zone_name.trim().is_empty()).then_some(zone_name)
}

#[cold]
fn not_found(topic: &str) -> Refusal {
    Refusal {
        code: response::TOPIC_NOT_EXIST,
        remark: format!(
            "No topic route info in name server for the topic: {topic}\n\
             See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
        ),
    }
}
