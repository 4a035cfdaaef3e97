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

/// Who waits for a core's answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    asker: usize,
    number: u64,
}

impl Asked {
    /// Answers on the core that was asked, at once or when the disk has said what is needed.
    pub fn answer<T: Send + 'static>(self, broker: &mut Broker, answer: T) {
        if self.asker == broker.core {
            on_answer(broker, self.asker, self.number, Box::new(answer));
        } else {
            broker.send_letter(self.asker, Letter::Answer { number: self.number, answer: Box::new(answer) });
        }
    }
}

/// Asks every core (this one too) and runs `then` with the answers in core order.
pub fn gather<T: Send + 'static>(
    broker: &mut Broker,
    question: impl Fn(&mut Broker) -> T + Send + Sync + 'static,
    then: impl FnOnce(&mut Broker, Vec<T>) + 'static,
) {
    let ask = move |broker: &mut Broker, asked: Asked| {
        let answer = question(broker);
        asked.answer(broker, answer);
    };
    gather_later(broker, ask, then);
}

/// As [`gather`], for questions that may need the disk: `ask` sees to it that [`Asked::answer`] is called once.
pub fn gather_later<T: Send + 'static>(
    broker: &mut Broker,
    ask: impl Fn(&mut Broker, Asked) + Send + Sync + 'static,
    then: impl FnOnce(&mut Broker, Vec<T>) + 'static,
) {
    let number = open(broker, broker.core_count, then);
    let question: Question = Arc::new(ask);
    broker.broadcast(|| Letter::Question { number, question: question.clone() });
    question(broker, Asked { asker: broker.core, number });
}

/// Asks one core only.
pub fn ask_core<T: Send + 'static>(
    broker: &mut Broker,
    core: usize,
    ask: impl Fn(&mut Broker, Asked) + Send + Sync + 'static,
    then: impl FnOnce(&mut Broker, T) + 'static,
) {
    let number = open(broker, 1, |broker: &mut Broker, answers: Vec<T>| {
        if let Some(answer) = answers.into_iter().next() {
            then(broker, answer);
        }
    });
    if core == broker.core {
        ask(broker, Asked { asker: core, number });
    } else {
        broker.send_letter(core, Letter::Question { number, question: Arc::new(ask) });
    }
}

/// Makes a change in the log of every core (this one too) and runs `then` with the outcomes in core order, when each
/// is durable or refused.
pub fn change(
    broker: &mut Broker,
    change: impl Fn(&mut Broker) -> Result<LogPosition, AppendError> + Send + Sync + 'static,
    then: impl FnOnce(&mut Broker, Vec<Result<(), AppendError>>) + 'static,
) {
    let number = open(broker, broker.core_count, then);
    let change: Change = Arc::new(change);
    broker.broadcast(|| Letter::Change { number, change: change.clone() });
    on_change(broker, broker.core, number, &change);
}

fn open<T: Send + 'static>(
    broker: &mut Broker,
    missing: usize,
    then: impl FnOnce(&mut Broker, Vec<T>) + 'static,
) -> u64 {
    let number = broker.gathers.next;
    broker.gathers.next += 1;
    let then: Continuation = Box::new(move |broker, answers| {
        let answers = answers.into_iter().filter_map(|answer| answer.downcast::<T>().ok()).map(|answer| *answer);
        then(broker, answers.collect());
    });
    let answers = (0..broker.core_count).map(|_| None).collect();
    broker.gathers.open.insert(number, Gather { answers, missing, then });
    number
}

pub fn on_change(broker: &mut Broker, from: usize, number: u64, change: &Change) {
    match change(broker) {
        Ok(position) => broker.after(position, After::Changed { asker: from, number }),
        Err(error) => answer_change(broker, from, number, Err(error)),
    }
}

pub fn answer_change(broker: &mut Broker, asker: usize, number: u64, made: Result<(), AppendError>) {
    Asked { asker, number }.answer(broker, made);
}

pub fn on_question(broker: &mut Broker, from: usize, number: u64, question: &Question) {
    question(broker, Asked { asker: from, number });
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
