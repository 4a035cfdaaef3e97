//! Typed headers: one struct per command, built from one field list.
//!
//! A missing required field or a number that is none gives [`HeaderError`]; the reference answers
//! both with SYSTEM_ERROR and the error's text as remark.
#![forbid(unsafe_code)]

use crate::reply::ExtWriter;
use crate::text::Text;

pub mod group;
pub mod namesrv;
pub mod offset;
pub mod pop;
pub mod pull;
pub mod send;
mod send_glance;
pub mod topic;
pub mod transaction;

/// A header that cannot be typed. Its display is the remark of the SYSTEM_ERROR reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("the custom field <{field}> is null")]
    Missing { field: &'static str },
    #[error("the custom field <{field}> is not a number: {value}")]
    Malformed { field: &'static str, value: String },
}

impl HeaderError {
    #[cold]
    pub(crate) fn malformed(field: &'static str, value: &Text<'_>) -> Self {
        Self::Malformed { field, value: value.to_cow().chars().take(64).collect() }
    }
}

/// A type an ext field can have.
pub(crate) trait FieldValue<'a>: Sized {
    fn parse(text: Text<'a>) -> Result<Self, Text<'a>>;
    fn write(&self, key: &'static str, ext: &mut ExtWriter<'_>);
}

impl<'a> FieldValue<'a> for Text<'a> {
    #[inline]
    fn parse(text: Text<'a>) -> Result<Self, Text<'a>> {
        Ok(text)
    }
    fn write(&self, key: &'static str, ext: &mut ExtWriter<'_>) {
        ext.text(key, &self.to_cow());
    }
}

impl<'a> FieldValue<'a> for i32 {
    #[inline]
    fn parse(text: Text<'a>) -> Result<Self, Text<'a>> {
        text.parse_i32().ok_or(text)
    }
    fn write(&self, key: &'static str, ext: &mut ExtWriter<'_>) {
        ext.int(key, (*self).into());
    }
}

impl<'a> FieldValue<'a> for i64 {
    #[inline]
    fn parse(text: Text<'a>) -> Result<Self, Text<'a>> {
        text.parse_i64().ok_or(text)
    }
    fn write(&self, key: &'static str, ext: &mut ExtWriter<'_>) {
        ext.int(key, *self);
    }
}

impl<'a> FieldValue<'a> for bool {
    #[inline]
    fn parse(text: Text<'a>) -> Result<Self, Text<'a>> {
        Ok(text.parse_bool())
    }
    fn write(&self, key: &'static str, ext: &mut ExtWriter<'_>) {
        ext.bool(key, *self);
    }
}

/// Declares typed headers. Each field is `name: kind type = "ext key";`, where kind is
///
/// | kind | missing | not parsable | field type |
/// |---|---|---|---|
/// | `required` | error | error | `T` |
/// | `optional` | `None` | `None` | `Option<T>` |
/// | `strict` | `None` | error | `Option<T>` |
/// | `default` | the value after the key | the same | `T` |
///
/// Decoding is one pass over the ext fields, the last duplicate wins. Encoding writes the keys in
/// the order of the list; absent options are not written.
macro_rules! headers {
    ($(
        $(#[$meta:meta])*
        $name:ident $(<$life:lifetime>)? {
            $($(#[$field_meta:meta])* $field:ident : $kind:ident $type:ty = $key:literal $(, $default:expr)?;)*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $($(#[$field_meta])* pub $field: $crate::header::headers!(@type $kind $type),)*
        }

        impl $(<$life>)? $name $(<$life>)? {
            pub fn decode(frame: &$crate::frame::Frame<$($life)?>) -> Result<Self, $crate::header::HeaderError> {
                $(let mut $field: Option<$type> = None;)*
                for (key, value) in frame.ext.iter() {
                    match key.as_plain() {
                        $(Some($key) => {
                            $field = match <$type as $crate::header::FieldValue<'_>>::parse(value) {
                                Ok(value) => Some(value),
                                Err(_value) => $crate::header::headers!(@malformed $kind $key _value),
                            };
                        })*
                        _ => {}
                    }
                }
                Ok(Self { $($field: $crate::header::headers!(@finish $kind $field $key $($default)?),)* })
            }

            /// Writes the fields as ext fields.
            pub fn encode(&self, ext: &mut $crate::reply::ExtWriter<'_>) {
                $($crate::header::headers!(@encode $kind self.$field, $key, ext);)*
            }
        }
    )*};

    (@type required $type:ty) => { $type };
    (@type default $type:ty) => { $type };
    (@type optional $type:ty) => { Option<$type> };
    (@type strict $type:ty) => { Option<$type> };

    (@malformed required $key:literal $value:ident) => {
        return Err($crate::header::HeaderError::malformed($key, &$value))
    };
    (@malformed strict $key:literal $value:ident) => {
        return Err($crate::header::HeaderError::malformed($key, &$value))
    };
    (@malformed $kind:ident $key:literal $value:ident) => { None };

    (@finish required $field:ident $key:literal) => {
        $field.ok_or($crate::header::HeaderError::Missing { field: $key })?
    };
    (@finish default $field:ident $key:literal $default:expr) => { $field.unwrap_or($default) };
    (@finish $kind:ident $field:ident $key:literal) => { $field };

    (@encode required $value:expr, $key:literal, $ext:ident) => {
        $crate::header::FieldValue::write(&$value, $key, $ext)
    };
    (@encode default $value:expr, $key:literal, $ext:ident) => {
        $crate::header::FieldValue::write(&$value, $key, $ext)
    };
    (@encode $kind:ident $value:expr, $key:literal, $ext:ident) => {
        if let Some(value) = &$value {
            $crate::header::FieldValue::write(value, $key, $ext)
        }
    };
}
pub(crate) use headers;
