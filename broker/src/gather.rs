//! Questions to all cores at once, for requests about the whole broker. Rare paths only.

use rustc_hash::FxHashMap;

use crate::broker::Broker;
use crate::letter::{Answer, Letter, Question};

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
    let number = broker.gathers.next;
    broker.gathers.next += 1;
    let then: Continuation = Box::new(move |broker, answers| {
        let answers = answers.into_iter().filter_map(|answer| answer.downcast::<T>().ok()).map(|answer| *answer);
        then(broker, answers.collect());
    });
    let answers = (0..broker.core_count).map(|_| None).collect();
    broker.gathers.open.insert(number, Gather { answers, missing: broker.core_count, then });
    let question: Question = std::sync::Arc::new(move |broker: &mut Broker| Box::new(question(broker)) as Answer);
    broker.broadcast(|| Letter::Question { number, question: question.clone() });
    let own = question(broker);
    on_answer(broker, broker.core, number, own);
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
