//! A compiled expression and its value for a message. The rules are those of RocketMQ's classes, unknown values and
//! conversions included; what throws there is [`Failed`] here.

use std::cmp::Ordering;

use super::number;

/// What cannot be evaluated: a text that is no number compared with one, for instance. The message is not selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// A value in an expression's text.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Boolean(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(Box<[u8]>),
}

/// A value while an expression is evaluated. Properties are texts; `Null` is also "unknown".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Where a text is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Start,
    Anywhere,
    End,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    Constant(Literal),
    /// Which of the expression's properties.
    Property(usize),
    Negative(Box<Expression>),
    Not(Box<Expression>),
    /// A property where a truth value is needed: a text is never true.
    BooleanOf(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Equal {
        negated: bool,
        sides: Box<(Expression, Expression)>,
    },
    Ordered {
        order: Order,
        sides: Box<(Expression, Expression)>,
    },
    /// Value, lower and upper bound.
    Between {
        negated: bool,
        parts: Box<(Expression, Expression, Expression)>,
    },
    IsNull {
        negated: bool,
        value: Box<Expression>,
    },
    /// `wanted` is sorted.
    In {
        negated: bool,
        property: usize,
        wanted: Box<[Box<[u8]>]>,
    },
    Search {
        negated: bool,
        place: Place,
        value: Box<Expression>,
        wanted: Box<[u8]>,
    },
}

impl Literal {
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(boolean) => Value::Boolean(*boolean),
            Self::Int(int) => Value::Int(*int),
            Self::Long(long) => Value::Long(*long),
            Self::Double(double) => Value::Double(*double),
            Self::Text(text) => Value::Text(text),
        }
    }
}

/// What a message has of the properties an expression names.
pub type Properties<'p, 'v> = &'p [Option<&'v [u8]>];

type Evaluated<'v> = Result<Value<'v>, Failed>;

impl Expression {
    /// Whether the grammar takes it for a truth value.
    pub fn is_boolean(&self) -> bool {
        match self {
            Self::Constant(literal) => matches!(literal, Literal::Null | Literal::Boolean(_)),
            Self::Property(_) | Self::Negative(_) => false,
            _ => true,
        }
    }

    /// How a remark calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Constant(Literal::Null) => "NULL",
            Self::Constant(Literal::Boolean(_)) => "a truth value",
            Self::Constant(Literal::Text(_)) => "a text",
            Self::Constant(_) => "a number",
            Self::Property(_) => "a property",
            Self::Negative(_) => "a value with a sign",
            _ => "a condition",
        }
    }

    /// The value for a message with these properties. Depth and cost are bounded by what the parser lets through.
    pub fn evaluate<'v>(&'v self, properties: Properties<'_, 'v>) -> Evaluated<'v> {
        match self {
            Self::Constant(literal) => Ok(literal.value()),
            Self::Property(property) => Ok(text_of(properties, *property)),
            Self::Negative(value) => Ok(negative(value.evaluate(properties)?)),
            Self::Not(value) => Ok(not(value.evaluate(properties)?)),
            Self::BooleanOf(value) => Ok(match value.evaluate(properties)? {
                Value::Null => Value::Null,
                value => Value::Boolean(value == Value::Boolean(true)),
            }),
            Self::And(operands) => joined(operands, properties, false),
            Self::Or(operands) => joined(operands, properties, true),
            Self::Equal { negated, sides } => {
                let is_equal = equal(sides.0.evaluate(properties)?, sides.1.evaluate(properties)?)?;
                Ok(if *negated { not(is_equal) } else { is_equal })
            }
            Self::Ordered { order, sides } => {
                let left = sides.0.evaluate(properties)?;
                ordered(*order, left, &sides.1, properties)
            }
            Self::Between { negated, parts } => between(*negated, parts, properties),
            Self::IsNull { negated, value } => {
                Ok(Value::Boolean((value.evaluate(properties)? == Value::Null) != *negated))
            }
            Self::In { negated, property, wanted } => Ok(match text_of(properties, *property) {
                Value::Text(text) => {
                    let is_in = wanted.binary_search_by(|candidate| (**candidate).cmp(text)).is_ok();
                    Value::Boolean(is_in != *negated)
                }
                _ => Value::Null,
            }),
            // Without a look at the value, which might fail.
            Self::Search { wanted, .. } if wanted.is_empty() => Ok(Value::Boolean(false)),
            Self::Search { negated, place, value, wanted } => {
                Ok(Value::Boolean(searched(*negated, *place, value.evaluate(properties)?, wanted)))
            }
        }
    }
}

fn text_of<'v>(properties: Properties<'_, 'v>, property: usize) -> Value<'v> {
    properties.get(property).copied().flatten().map_or(Value::Null, Value::Text)
}

fn not(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Boolean(boolean) => Value::Boolean(!boolean),
        other => other,
    }
}

/// Only literals are numbers, and they have no sign of their own: nothing overflows.
fn negative(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Int(int) => Value::Int(int.wrapping_neg()),
        Value::Long(long) => Value::Long(long.wrapping_neg()),
        Value::Double(double) => Value::Double(-double),
        Value::Null | Value::Boolean(_) | Value::Text(_) => Value::Null,
    }
}

/// AND is decided by the first false operand, OR by the first true one; what follows is not evaluated. An unknown
/// operand makes the rest unknown.
fn joined<'v>(operands: &'v [Expression], properties: Properties<'_, 'v>, decides: bool) -> Evaluated<'v> {
    let mut is_unknown = false;
    for operand in operands {
        match operand.evaluate(properties)? {
            Value::Boolean(boolean) if boolean == decides => return Ok(Value::Boolean(decides)),
            Value::Boolean(_) => {}
            _ => is_unknown = true,
        }
    }
    Ok(if is_unknown { Value::Null } else { Value::Boolean(!decides) })
}

/// Unknown only if the left side is; a known left side does not equal an unknown right one.
fn equal<'v>(left: Value<'_>, right: Value<'_>) -> Evaluated<'v> {
    match (left, right) {
        (Value::Null, Value::Null) => Ok(Value::Boolean(true)),
        (Value::Null, _) => Ok(Value::Null),
        (_, Value::Null) => Ok(Value::Boolean(false)),
        _ => Ok(Value::Boolean(compare(left, right)? == Ordering::Equal)),
    }
}

fn ordered<'v>(order: Order, left: Value<'v>, right: &'v Expression, properties: Properties<'_, 'v>) -> Evaluated<'v> {
    // An unknown left side decides before the right one is looked at, which might fail.
    if left == Value::Null {
        return Ok(Value::Null);
    }
    let right = right.evaluate(properties)?;
    let ordering = match (left, right) {
        (_, Value::Null) => return Ok(Value::Null),
        (Value::Text(left), Value::Text(right)) => {
            let doubles = (number::double(left).ok_or(Failed)?, number::double(right).ok_or(Failed)?);
            number::compare_doubles(doubles.0, doubles.1)
        }
        _ => compare(left, right)?,
    };
    Ok(Value::Boolean(match order {
        Order::Less => ordering.is_lt(),
        Order::LessOrEqual => ordering.is_le(),
        Order::Greater => ordering.is_gt(),
        Order::GreaterOrEqual => ordering.is_ge(),
    }))
}

/// `>= low AND <= high`, or `< low OR > high`.
fn between<'v>(
    negated: bool,
    (value, low, high): &'v (Expression, Expression, Expression),
    properties: Properties<'_, 'v>,
) -> Evaluated<'v> {
    let value = value.evaluate(properties)?;
    let (from, to) = if negated { (Order::Less, Order::Greater) } else { (Order::GreaterOrEqual, Order::LessOrEqual) };
    // The outcome of one bound that decides for both.
    let decides = Value::Boolean(negated);
    let lower = ordered(from, value, low, properties)?;
    if lower == decides {
        return Ok(decides);
    }
    let upper = ordered(to, value, high, properties)?;
    Ok(if upper == decides || lower != Value::Null { upper } else { Value::Null })
}

/// False, negated or not, for what is no text.
fn searched(negated: bool, place: Place, value: Value<'_>, wanted: &[u8]) -> bool {
    let Value::Text(text) = value else {
        return false;
    };
    let is_there = match place {
        Place::Start => text.starts_with(wanted),
        Place::Anywhere => memchr::memmem::find(text, wanted).is_some(),
        Place::End => text.ends_with(wanted),
    };
    is_there != negated
}

/// Two known values. Numbers are widened; a text is read as the type of the other side, whole numbers strictly. Where
/// that fails there is no answer, nor for a truth value on the left of a text (RocketMQ's cast fails there).
pub fn compare(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Failed> {
    use Value::{Boolean, Double, Int, Long, Null, Text};
    let doubles = |left: f64, right: f64| Ok(number::compare_doubles(left, right));
    match (left, right) {
        (Boolean(left), Boolean(right)) => Ok(left.cmp(&right)),
        (Boolean(_), Text(_)) => Err(Failed),
        (Text(left), Text(right)) => Ok(left.cmp(right)),
        (Text(left), Boolean(right)) => Ok(left.eq_ignore_ascii_case(b"true").cmp(&right)),
        (Int(left), Int(right)) => Ok(left.cmp(&right)),
        (Int(left), Long(right)) => Ok(i64::from(left).cmp(&right)),
        (Long(left), Int(right)) => Ok(left.cmp(&i64::from(right))),
        (Long(left), Long(right)) => Ok(left.cmp(&right)),
        (Double(left), Double(right)) => doubles(left, right),
        (Int(left), Double(right)) => doubles(f64::from(left), right),
        (Double(left), Int(right)) => doubles(left, f64::from(right)),
        (Long(left), Double(right)) => doubles(left as f64, right),
        (Double(left), Long(right)) => doubles(left, right as f64),
        (Text(left), Int(right)) => Ok(number::int(left).ok_or(Failed)?.cmp(&right)),
        (Int(left), Text(right)) => Ok(left.cmp(&number::int(right).ok_or(Failed)?)),
        (Text(left), Long(right)) => Ok(number::long(left).ok_or(Failed)?.cmp(&right)),
        (Long(left), Text(right)) => Ok(left.cmp(&number::long(right).ok_or(Failed)?)),
        (Text(left), Double(right)) => doubles(number::double(left).ok_or(Failed)?, right),
        (Double(left), Text(right)) => doubles(left, number::double(right).ok_or(Failed)?),
        // Types without a common one: RocketMQ takes the left side for the smaller.
        (Boolean(_) | Int(_) | Long(_) | Double(_), _) | (Null | Text(_), Null) | (Null, _) => Ok(Ordering::Less),
    }
}
