//! Lenient values into Rust types, with fastjson's conversions: text for numbers and booleans,
//! numbers for text, null members as absent ones, objects as map keys.
#![forbid(unsafe_code)]

use super::lenient::{JsonError, Value};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// Why a body is not what its request needs. Its display fits a remark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("body: {0}")]
    Shape(String),
}

impl serde::de::Error for BodyError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Shape(message.to_string())
    }
}

/// Parses and converts; bytes that are not UTF-8 read as replacement characters.
pub(crate) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    T::deserialize(Value::parse(&String::from_utf8_lossy(bytes))?)
}

impl Value {
    /// Whole numbers and numeric text; fractions are cut off as in a Java cast.
    fn whole(&self) -> Result<i64, BodyError> {
        let text = match self {
            Self::Number(text) | Self::Text(text) => text.as_str(),
            Self::Bool(value) => return Ok((*value).into()),
            _ => return Err(BodyError::custom("a number is expected")),
        };
        if text.is_empty() {
            return Ok(0);
        }
        match text.parse() {
            Ok(whole) => Ok(whole),
            Err(_) => match text.parse::<f64>() {
                Ok(number) if number.abs() < 9.0e18 => Ok(number as i64),
                _ => {
                    Err(BodyError::Shape(format!("not a whole number: {}", text.chars().take(40).collect::<String>())))
                }
            },
        }
    }
}

macro_rules! whole_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BodyError> {
            visitor.visit_i64(self.whole()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = BodyError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BodyError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Number(text) => match text.parse::<i64>() {
                Ok(whole) => visitor.visit_i64(whole),
                Err(_) => visitor.visit_f64(text.parse().map_err(BodyError::custom)?),
            },
            Self::Text(text) => visitor.visit_string(text),
            Self::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter())),
            Self::Object(members) => {
                let members = members.into_iter().filter(|(_, value)| *value != Self::Null);
                visitor.visit_map(MapDeserializer::new(members))
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BodyError> {
        match self {
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Text(text) => visitor.visit_bool(text.eq_ignore_ascii_case("true") || text == "1"),
            Self::Number(text) => visitor.visit_bool(text == "1"),
            _ => Err(BodyError::custom("a boolean is expected")),
        }
    }

    whole_numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BodyError> {
        match self {
            Self::Number(text) | Self::Text(text) => visitor.visit_f64(text.parse().map_err(BodyError::custom)?),
            _ => Err(BodyError::custom("a number is expected")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BodyError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BodyError> {
        match self.into_text() {
            Some(text) => visitor.visit_string(text),
            None => Err(BodyError::custom("a text is expected")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BodyError> {
        match self {
            Self::Null => visitor.visit_none(),
            present => visitor.visit_some(present),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, BodyError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BodyError> {
        match self {
            object @ Self::Object(_) => object.deserialize_any(visitor),
            _ => Err(BodyError::custom("an object is expected")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BodyError> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 char bytes byte_buf unit unit_struct seq tuple tuple_struct enum
        identifier ignored_any
    }
}

impl IntoDeserializer<'_, BodyError> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
