//! From text to expression, with RocketMQ's grammar:
//!
//! ```text
//! or         := and ( OR and )*
//! and        := equality ( AND equality )*
//! equality   := comparison ( ( "=" | "<>" ) comparison | IS [NOT] NULL )*
//! comparison := unary ( ( ">" | ">=" | "<" | "<=" ) unary
//!                     | [NOT] ( CONTAINS | STARTSWITH | ENDSWITH ) text
//!                     | [NOT] BETWEEN unary AND unary
//!                     | [NOT] IN "(" text ( "," text )* ")" )*
//! unary      := ( "+" | "-" | NOT ) unary | primary
//! primary    := literal | name | "(" or ")"
//! ```
//!
//! NOT binds tighter than a comparison. An expression ends where no rule goes on, whatever follows: `a = 1 b` is `a = 1`.

use std::cmp::Ordering;

use super::eval::{Expression, Literal, Order, Place, compare};
use super::lexer::{Lexer, Token};
use super::{Fault, NESTING_MAX, PROPERTIES_MAX, SqlError, number};

/// What an expression's text says.
#[derive(Debug)]
pub struct Parsed {
    pub root: Expression,
    /// The properties it names, each once.
    pub names: Vec<Box<[u8]>>,
    /// How many literals and properties it compares or searches.
    pub operands: u32,
}

pub fn parse(text: &str) -> Result<Parsed, SqlError> {
    let mut lexer = Lexer::new(text);
    let (at, token) = lexer.token()?;
    let mut parser = Parser { lexer, token, at, depth: 0, names: Vec::new(), operands: 0 };
    let root = parser.or()?;
    let root = parser.boolean(at, root)?;
    Ok(Parsed { root, names: parser.names, operands: parser.operands })
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token looked at, and the byte where it begins.
    token: Token<'a>,
    at: usize,
    depth: u32,
    names: Vec<Box<[u8]>>,
    operands: u32,
}

/// Most characters of an expression that a remark repeats.
const REPEATED_MAX: usize = 40;

fn shortened(text: &str) -> String {
    match text.char_indices().nth(REPEATED_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

type Operand = Result<Expression, SqlError>;

impl<'a> Parser<'a> {
    fn advance(&mut self) -> Result<(), SqlError> {
        (self.at, self.token) = self.lexer.token()?;
        Ok(())
    }

    /// Passes over the token if it is this one.
    fn takes(&mut self, token: Token<'static>) -> Result<bool, SqlError> {
        let is_this = self.token == token;
        if is_this {
            self.advance()?;
        }
        Ok(is_this)
    }

    fn need(&mut self, token: Token<'static>, wanted: &'static str) -> Result<(), SqlError> {
        if self.takes(token)? { Ok(()) } else { Err(self.unexpected(wanted)) }
    }

    fn unexpected(&self, wanted: &'static str) -> SqlError {
        let found = match self.token {
            Token::End => "the end".to_owned(),
            _ => shortened(self.lexer.read_since(self.at)),
        };
        self.lexer.error(self.at, Fault::Unexpected { wanted, found })
    }

    fn error<T>(&self, byte: usize, fault: Fault) -> Result<T, SqlError> {
        Err(self.lexer.error(byte, fault))
    }

    /// One level of nesting more.
    fn deeper(&mut self) -> Result<(), SqlError> {
        self.depth += 1;
        if NESTING_MAX < self.depth { self.error(self.at, Fault::TooDeep) } else { Ok(()) }
    }

    /// What AND, OR, NOT and the whole expression are made of. A property counts, but only a Boolean one would be true,
    /// and properties are text.
    fn boolean(&self, start: usize, expression: Expression) -> Operand {
        match expression {
            Expression::Property(_) => Ok(Expression::BooleanOf(Box::new(expression))),
            _ if expression.is_boolean() => Ok(expression),
            _ => self.error(start, Fault::NotBoolean(expression.kind())),
        }
    }

    fn or(&mut self) -> Operand {
        self.joined(Token::Or, Self::and, Expression::Or)
    }

    fn and(&mut self) -> Operand {
        self.joined(Token::And, Self::equality, Expression::And)
    }

    /// Operands with a word between them; a single one stands for itself.
    fn joined(
        &mut self,
        word: Token<'static>,
        operand: fn(&mut Self) -> Operand,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Operand {
        let start = self.at;
        let first = operand(self)?;
        if self.token != word {
            return Ok(first);
        }
        let mut operands = vec![self.boolean(start, first)?];
        while self.takes(word)? {
            let start = self.at;
            let next = operand(self)?;
            operands.push(self.boolean(start, next)?);
        }
        Ok(join(operands))
    }

    fn equality(&mut self) -> Operand {
        let start = self.at;
        let mut left = self.comparison()?;
        let mut is_chained = false;
        while matches!(self.token, Token::Equal | Token::NotEqual | Token::Is) {
            if is_chained {
                // Stays counted: every further operator of a chain is one level above the one before.
                self.deeper()?;
            }
            is_chained = true;
            left = match self.token {
                Token::Is => self.is_null(left)?,
                operator => self.equal(start, left, operator == Token::NotEqual)?,
            };
        }
        Ok(left)
    }

    fn is_null(&mut self, value: Expression) -> Operand {
        self.advance()?;
        let negated = self.takes(Token::Not)?;
        self.need(Token::Null, if negated { "NULL" } else { "NULL or NOT NULL" })?;
        Ok(Expression::IsNull { negated, value: Box::new(value) })
    }

    fn equal(&mut self, left_start: usize, left: Expression, negated: bool) -> Operand {
        use Expression::Constant;
        use Literal::{Boolean, Null};
        self.advance()?;
        let right_start = self.at;
        let right = self.comparison()?;
        match (&left, &right) {
            (Constant(Null), _) => self.error(left_start, Fault::ComparedNull),
            (_, Constant(Null)) => self.error(right_start, Fault::ComparedNull),
            (Constant(Boolean(_)), Constant(Boolean(_))) => Ok(()),
            (Constant(Boolean(_)), Constant(_)) => self.error(right_start, Fault::ComparedBoolean),
            _ => Ok(()),
        }?;
        Ok(Expression::Equal { negated, sides: Box::new((left, right)) })
    }

    fn comparison(&mut self) -> Operand {
        let start = self.at;
        let mut left = self.unary()?;
        let mut is_chained = false;
        loop {
            let order = match self.token {
                Token::Less => Some(Order::Less),
                Token::LessOrEqual => Some(Order::LessOrEqual),
                Token::Greater => Some(Order::Greater),
                Token::GreaterOrEqual => Some(Order::GreaterOrEqual),
                Token::Not | Token::Between | Token::In => None,
                Token::Contains | Token::StartsWith | Token::EndsWith => None,
                _ => return Ok(left),
            };
            if is_chained {
                self.deeper()?;
            }
            is_chained = true;
            left = match order {
                Some(order) => self.ordered(start, left, order)?,
                None => self.predicate(start, left)?,
            };
        }
    }

    fn ordered(&mut self, left_start: usize, left: Expression, order: Order) -> Operand {
        self.advance()?;
        let right_start = self.at;
        let right = self.unary()?;
        self.check_ordered(left_start, &left)?;
        self.check_ordered(right_start, &right)?;
        Ok(Expression::Ordered { order, sides: Box::new((left, right)) })
    }

    /// Texts and truth values have no order; a property may hold a number.
    fn check_ordered(&self, start: usize, side: &Expression) -> Result<(), SqlError> {
        if side.is_boolean() || matches!(side, Expression::Constant(Literal::Text(_))) {
            return self.error(start, Fault::NotComparable(side.kind()));
        }
        Ok(())
    }

    fn predicate(&mut self, start: usize, value: Expression) -> Operand {
        let negated = self.takes(Token::Not)?;
        let place = match self.token {
            Token::Between => return self.between(start, value, negated),
            Token::In => return self.is_in(start, value, negated),
            Token::Contains => Place::Anywhere,
            Token::StartsWith => Place::Start,
            Token::EndsWith => Place::End,
            _ => return Err(self.unexpected("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH")),
        };
        self.advance()?;
        let wanted = self.text()?;
        Ok(Expression::Search { negated, place, value: Box::new(value), wanted })
    }

    fn between(&mut self, start: usize, value: Expression, negated: bool) -> Operand {
        self.advance()?;
        let low_start = self.at;
        let low = self.unary()?;
        self.need(Token::And, "AND")?;
        let high_start = self.at;
        let high = self.unary()?;
        self.check_ordered(start, &value)?;
        self.check_ordered(low_start, &low)?;
        self.check_ordered(high_start, &high)?;
        if !negated
            && let (Expression::Constant(low), Expression::Constant(high)) = (&low, &high)
            && compare(high.value(), low.value()) == Ok(Ordering::Less)
        {
            return self.error(low_start, Fault::BoundsReversed);
        }
        Ok(Expression::Between { negated, parts: Box::new((value, low, high)) })
    }

    fn is_in(&mut self, start: usize, value: Expression, negated: bool) -> Operand {
        self.advance()?;
        self.need(Token::Open, "(")?;
        let mut wanted = vec![self.text()?];
        while self.takes(Token::Comma)? {
            wanted.push(self.text()?);
        }
        self.need(Token::Close, ", or )")?;
        let Expression::Property(property) = value else {
            return self.error(start, Fault::InWithoutProperty(value.kind()));
        };
        wanted.sort_unstable();
        Ok(Expression::In { negated, property, wanted: wanted.into() })
    }

    fn unary(&mut self) -> Operand {
        match self.token {
            Token::Plus => self.nested(Self::unary),
            Token::Minus => Ok(Expression::Negative(Box::new(self.nested(Self::unary)?))),
            Token::Not => Ok(Expression::Not(Box::new(self.nested(Self::boolean_unary)?))),
            _ => self.primary(),
        }
    }

    fn boolean_unary(&mut self) -> Operand {
        let start = self.at;
        let operand = self.unary()?;
        self.boolean(start, operand)
    }

    /// Passes over the token and reads what it applies to, one level deeper.
    fn nested(&mut self, inner: fn(&mut Self) -> Operand) -> Operand {
        self.deeper()?;
        self.advance()?;
        let expression = inner(self)?;
        self.depth -= 1;
        Ok(expression)
    }

    fn primary(&mut self) -> Operand {
        self.operands += 1;
        let literal = match self.token {
            Token::Open => {
                let inner = self.nested(Self::or)?;
                self.need(Token::Close, ")")?;
                return Ok(inner);
            }
            Token::Name(name) => return self.property(name),
            Token::Text(_) => return Ok(Expression::Constant(Literal::Text(self.text()?))),
            Token::Integer(digits) => self.integer(digits)?,
            Token::Float(digits) => self.float(digits)?,
            Token::True => Literal::Boolean(true),
            Token::False => Literal::Boolean(false),
            Token::Null => Literal::Null,
            _ => return Err(self.unexpected("a property, a literal, (, NOT, + or -")),
        };
        self.advance()?;
        Ok(Expression::Constant(literal))
    }

    fn property(&mut self, name: &str) -> Operand {
        let known = self.names.iter().position(|known| **known == *name.as_bytes());
        let property = known.unwrap_or(self.names.len());
        if known.is_none() {
            if PROPERTIES_MAX <= property {
                return self.error(self.at, Fault::TooManyProperties);
            }
            self.names.push(name.as_bytes().into());
        }
        self.advance()?;
        Ok(Expression::Property(property))
    }

    fn integer(&self, digits: &str) -> Result<Literal, SqlError> {
        let Some(long) = number::long(digits.as_bytes()) else {
            return self.error(self.at, Fault::Number(shortened(digits)));
        };
        Ok(i32::try_from(long).map_or(Literal::Long(long), Literal::Int))
    }

    /// RocketMQ takes no number that a double rounds to infinity or to 0, and so no 0.0.
    fn float(&self, digits: &str) -> Result<Literal, SqlError> {
        match number::double(digits.as_bytes()) {
            Some(double) if double.is_finite() && double > 0.0 => Ok(Literal::Double(double)),
            _ => self.error(self.at, Fault::Number(shortened(digits))),
        }
    }

    fn text(&mut self) -> Result<Box<[u8]>, SqlError> {
        let Token::Text(text) = self.token else {
            return Err(self.unexpected("a text in quotes"));
        };
        self.advance()?;
        Ok(text.replace("''", "'").into_bytes().into())
    }
}
