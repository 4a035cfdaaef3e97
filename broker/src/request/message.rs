//! VIEW_MESSAGE_BY_ID (33): the record at a physical offset.

use rmq_engine::{PhysicalOffset, ReadRecord};
use rmq_net::codes::response;
use rmq_net::header::offset::ViewMessageHeader;

use crate::broker::{Body, Broker, Handled, Outcome, Refusal};
use crate::letter::{ReplyAddress, Request};
use crate::request::Job;

pub struct View {
    to: ReplyAddress,
    at: PhysicalOffset,
}

pub fn view(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = ViewMessageHeader::decode(&request.frame)?;
    let at = locate(broker, header.offset)?;
    let owner = usize::from(at.shard());
    if owner != broker.core {
        return broker.forward(owner, request, request.origin);
    }
    resume(broker, View { to: request.reply_address(), at });
    Ok(Handled::Taken)
}

/// A physical offset from the wire, if it can be one of this broker's.
pub fn locate(broker: &Broker, offset: i64) -> Result<PhysicalOffset, Refusal> {
    PhysicalOffset::from_wire(offset)
        .filter(|at| usize::from(at.shard()) < broker.core_count)
        .ok_or_else(|| not_found(offset))
}

#[cold]
pub fn not_found(offset: i64) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, format!("can not find message by the offset, {offset}"))
}

pub fn resume(broker: &mut Broker, view: View) {
    let ticket = broker.new_ticket();
    match broker.shard.read_record(view.at, ticket) {
        ReadRecord::Found(slice) => broker.reply(view.to, response::SUCCESS, Body::Slices(vec![slice]), |_| ()),
        ReadRecord::NotFound => broker.refuse_later(view.to, &not_found(view.at.to_wire())),
        ReadRecord::Failed(error) => broker.refuse_later(view.to, &super::read_failed(&error)),
        ReadRecord::Pending => broker.keep_job(ticket, Job::View(view)),
    }
}
