//! Questions to all cores at once, and changes on all of them, for requests about the whole broker. Rare paths only.

use std::sync::Arc;

use rmq_engine::{AppendError, LogPosition};
use rustc_hash::FxHashMap;

use crate::broker::{After, Broker};
use crate::letter::{Answer, Change, Letter, Question};

type Continuation = Box<dyn FnOnce(&mut Broker, Vec<Answer>)>;

struct Gather {
    answers: Vec<Option<Answer>>,
    missing: usize,
    then: Continuation,
}

/// The questions one core has asked and not all answers are in for.
#[derive(Default)]
pub struct Gathers {
    open: FxHashMap<u64, Gather>,
    next: u64,
}

/// Asks every core (this one too) and runs `then` with the answers in core order.
pub fn gather<T: Send + 'static>(
    broker: &mut Broker,
    question: impl Fn(&mut Broker) -> T + Send + Sync + 'static,
    then: impl FnOnce(&mut Broker, Vec<T>) + 'static,
) {
    let number = open(broker, then);
    let question: Question = Arc::new(move |broker: &mut Broker| Box::new(question(broker)) as Answer);
    broker.broadcast(|| Letter::Question { number, question: question.clone() });
    let own = question(broker);
    on_answer(broker, broker.core, number, own);
}

/// Makes a change in the log of every core (this one too) and runs `then` with the outcomes in core order, when each
/// is durable or refused.
pub fn change(
    broker: &mut Broker,
    change: impl Fn(&mut Broker) -> Result<LogPosition, AppendError> + Send + Sync + 'static,
    then: impl FnOnce(&mut Broker, Vec<Result<(), AppendError>>) + 'static,
) {
    let number = open(broker, then);
    let change: Change = Arc::new(change);
    broker.broadcast(|| Letter::Change { number, change: change.clone() });
    on_change(broker, broker.core, number, &change);
}

fn open<T: Send + 'static>(broker: &mut Broker, then: impl FnOnce(&mut Broker, Vec<T>) + 'static) -> u64 {
    let number = broker.gathers.next;
    broker.gathers.next += 1;
    let then: Continuation = Box::new(move |broker, answers| {
        let answers = answers.into_iter().filter_map(|answer| answer.downcast::<T>().ok()).map(|answer| *answer);
        then(broker, answers.collect());
    });
    let answers = (0..broker.core_count).map(|_| None).collect();
    broker.gathers.open.insert(number, Gather { answers, missing: broker.core_count, then });
    number
}

pub fn on_change(broker: &mut Broker, from: usize, number: u64, change: &Change) {
    match change(broker) {
        Ok(position) => broker.after(position, After::Changed { asker: from, number }),
        Err(error) => answer_change(broker, from, number, Err(error)),
    }
}

pub fn answer_change(broker: &mut Broker, asker: usize, number: u64, made: Result<(), AppendError>) {
    if asker == broker.core {
        on_answer(broker, asker, number, Box::new(made));
    } else {
        broker.send_letter(asker, Letter::Answer { number, answer: Box::new(made) });
    }
}

pub fn on_question(broker: &mut Broker, from: usize, number: u64, question: &Question) {
    let answer = question(broker);
    broker.send_letter(from, Letter::Answer { number, answer });
}

pub fn on_answer(broker: &mut Broker, from: usize, number: u64, answer: Answer) {
    let Some(gather) = broker.gathers.open.get_mut(&number) else { return };
    gather.missing -= usize::from(gather.answers[from].replace(answer).is_none());
    if gather.missing > 0 {
        return;
    }
    if let Some(gather) = broker.gathers.open.remove(&number) {
        (gather.then)(broker, gather.answers.into_iter().flatten().collect());
    }
}
