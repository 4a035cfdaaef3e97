//! SQL92 filters: the language consumers select messages with, by the messages' properties.
//!
//! An expression is compiled once per subscription ([`Sql::compile`]) and asked for every record a fetch looks at
//! ([`Sql::selects`]), on the record's own bytes and without allocation. What it accepts and what it selects is what
//! RocketMQ's own classes do: `sql92.jsonl` holds their answers and a test compares every one.

mod compiled;
mod eval;
mod lexer;
mod number;
mod parser;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rmq_engine::PropertyFilter;
use rmq_net::message::properties;
use thiserror::Error;

pub use compiled::{CompiledFilters, FILTERS_BYTES_MAX};
use eval::{Failed, Value};
use parser::Parsed;

/// Longest expression, bytes. RocketMQ has no bound; a list of 2,000 identifiers fits in this one, and what is
/// compiled from it stays below 1 MiB.
pub const EXPRESSION_BYTES_MAX: usize = 32 * 1024;
/// What a byte of an expression takes in memory at most, while it is compiled and after.
const COMPILED_BYTES_PER_BYTE: usize = 32;
/// How deep parentheses, signs and NOT may nest, counting every further operator of a chain like `a = b = c` too:
/// reading and evaluating recurse. RocketMQ goes on until its stack overflows, and then refuses too.
pub const NESTING_MAX: u32 = 100;
/// How many different properties an expression may name: their values lie on the stack while it is evaluated.
pub const PROPERTIES_MAX: usize = 64;

/// Why an expression is refused, and where: `at` counts its characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid SQL92 expression, character {at}: {fault}")]
pub struct SqlError {
    pub at: usize,
    pub fault: Fault,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    #[error("the expression has {size_bytes} bytes, more than {EXPRESSION_BYTES_MAX}")]
    TooLong { size_bytes: usize },
    #[error("nested more than {NESTING_MAX} deep")]
    TooDeep,
    #[error("this is property number {}, one more than an expression may name", PROPERTIES_MAX + 1)]
    TooManyProperties,
    #[error("[{0}] begins nothing of the language")]
    Character(char),
    #[error("the text that begins here does not end")]
    OpenText,
    #[error("the comment that begins here does not end")]
    OpenComment,
    #[error("{wanted} is expected, not {found}")]
    Unexpected { wanted: &'static str, found: String },
    #[error("the number {0} is out of range")]
    Number(String),
    #[error("{0} is neither true nor false")]
    NotBoolean(&'static str),
    #[error("{0} cannot be compared with this operator")]
    NotComparable(&'static str),
    #[error("NULL cannot be compared, use IS NULL or IS NOT NULL")]
    ComparedNull,
    #[error("TRUE and FALSE cannot be compared with a literal of another type")]
    ComparedBoolean,
    #[error("BETWEEN needs its smaller bound first")]
    BoundsReversed,
    #[error("IN is for properties, not for {0}")]
    InWithoutProperty(&'static str),
}

/// A compiled expression.
#[derive(Debug)]
pub struct Sql {
    parsed: Parsed,
}

impl Sql {
    pub fn compile(text: &str) -> Result<Self, SqlError> {
        if EXPRESSION_BYTES_MAX < text.len() {
            return Err(SqlError { at: 1, fault: Fault::TooLong { size_bytes: text.len() } });
        }
        Ok(Self { parsed: parser::parse(text)? })
    }

    fn evaluate<'v>(&'v self, properties: &'v [u8]) -> Result<Value<'v>, Failed> {
        let Parsed { root, names, .. } = &self.parsed;
        let mut values = [None; PROPERTIES_MAX];
        // A pair with the name of an earlier one replaces it.
        for (key, value) in properties::iter(properties) {
            if let Some(index) = names.iter().position(|name| **name == *key) {
                values[index] = Some(value);
            }
        }
        root.evaluate(&values)
    }

    /// To be shared by the readers of a subscription.
    pub fn compile_shared(text: &str) -> Result<Arc<Self>, SqlError> {
        Self::compile(text).map(Arc::new)
    }
}

impl PropertyFilter for Sql {
    /// Only TRUE selects: not NULL, and not what cannot be evaluated, such as a text compared with a number.
    fn selects(&self, properties: &[u8]) -> bool {
        matches!(self.evaluate(properties), Ok(Value::Boolean(true)))
    }

    fn passes_over_properties(&self) -> u32 {
        self.parsed.operands
    }
}
