//! The sender's implementation language and the version we claim to be.
#![forbid(unsafe_code)]

/// Frame version of RocketMQ 5.5.0, the release this server replaces.
pub const SERVER_VERSION: i32 = 513;

/// Implementation language of a frame's sender. The discriminant is the wire number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Language {
    #[default]
    Java = 0,
    Cpp,
    Dotnet,
    Python,
    Delphi,
    Erlang,
    Ruby,
    /// Also every name or number we do not know.
    Other,
    Http,
    Go,
    Php,
    Oms,
    Rust,
    NodeJs,
}

impl Language {
    const ALL: [Self; 14] = [
        Self::Java,
        Self::Cpp,
        Self::Dotnet,
        Self::Python,
        Self::Delphi,
        Self::Erlang,
        Self::Ruby,
        Self::Other,
        Self::Http,
        Self::Go,
        Self::Php,
        Self::Oms,
        Self::Rust,
        Self::NodeJs,
    ];

    /// `None`: no such number.
    pub fn from_ordinal(ordinal: i64) -> Option<Self> {
        Self::ALL.get(usize::try_from(ordinal).ok()?).copied()
    }

    /// Any letter case; `None`: no such name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|language| language.name().eq_ignore_ascii_case(name))
    }

    /// The name in JSON headers and bodies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Java => "JAVA",
            Self::Cpp => "CPP",
            Self::Dotnet => "DOTNET",
            Self::Python => "PYTHON",
            Self::Delphi => "DELPHI",
            Self::Erlang => "ERLANG",
            Self::Ruby => "RUBY",
            Self::Other => "OTHER",
            Self::Http => "HTTP",
            Self::Go => "GO",
            Self::Php => "PHP",
            Self::Oms => "OMS",
            Self::Rust => "RUST",
            Self::NodeJs => "NODE_JS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (ordinal, language) in Language::ALL.into_iter().enumerate() {
            assert_eq!(language as usize, ordinal);
            assert_eq!(Language::from_ordinal(ordinal as i64), Some(language));
            assert_eq!(
                Language::from_name(&language.name().to_lowercase()),
                Some(language)
            );
        }
        assert_eq!(Language::from_ordinal(-1), None);
        assert_eq!(Language::from_ordinal(14), None);
    }
}
