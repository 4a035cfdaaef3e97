//! Expressions that pulls bring along, compiled once and not with every pull.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{COMPILED_BYTES_PER_BYTE, Sql, SqlError};

/// Most expressions kept, as many as RocketMQ keeps.
const EXPRESSIONS_MAX: usize = 100;
/// Most bytes of expressions kept.
const EXPRESSIONS_BYTES_MAX: usize = 128 * 1024;
/// Bytes a core holds for them at most.
pub const FILTERS_BYTES_MAX: u64 = (EXPRESSIONS_BYTES_MAX * COMPILED_BYTES_PER_BYTE) as u64;

/// What came of the last expressions, by their text; the oldest goes first.
#[derive(Debug, Default)]
pub struct CompiledFilters {
    by_text: FxHashMap<Arc<str>, Result<Arc<Sql>, SqlError>>,
    by_age: VecDeque<Arc<str>>,
    bytes: usize,
}

impl CompiledFilters {
    pub fn get_or_compile(&mut self, text: &str) -> Result<Arc<Sql>, SqlError> {
        if let Some(known) = self.by_text.get(text) {
            return known.clone();
        }
        let compiled = Sql::compile_shared(text);
        if text.len() <= EXPRESSIONS_BYTES_MAX {
            let key: Arc<str> = text.into();
            self.by_text.insert(Arc::clone(&key), compiled.clone());
            self.by_age.push_back(key);
            self.bytes += text.len();
        }
        while EXPRESSIONS_MAX < self.by_age.len() || EXPRESSIONS_BYTES_MAX < self.bytes {
            let Some(oldest) = self.by_age.pop_front() else { break };
            self.by_text.remove(&oldest);
            self.bytes -= oldest.len();
        }
        compiled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_compiled_once_and_the_oldest_are_forgotten() {
        let mut filters = CompiledFilters::default();
        let first = filters.get_or_compile("a = 0").expect("valid");
        assert!(Arc::ptr_eq(&first, &filters.get_or_compile("a = 0").expect("valid")));
        assert!(filters.get_or_compile("a =").is_err() && filters.get_or_compile("a =").is_err());
        for number in 0..EXPRESSIONS_MAX {
            filters.get_or_compile(&format!("b = {number}")).expect("valid");
        }
        assert_eq!((filters.by_text.len(), filters.by_age.len()), (EXPRESSIONS_MAX, EXPRESSIONS_MAX));
        assert!(!Arc::ptr_eq(&first, &filters.get_or_compile("a = 0").expect("valid")));

        let blanks = " ".repeat(EXPRESSIONS_BYTES_MAX / 8);
        for number in 0..20 {
            let long = format!("{}b = {number}", &blanks[10..]);
            filters.get_or_compile(&long).expect("valid");
        }
        let kept: usize = filters.by_text.keys().map(|text| text.len()).sum();
        assert!(kept == filters.bytes && kept <= EXPRESSIONS_BYTES_MAX, "{kept}");
        filters.get_or_compile(&" ".repeat(2 * EXPRESSIONS_BYTES_MAX)).expect_err("too long, and not kept");
        assert_eq!(filters.by_text.keys().map(|text| text.len()).sum::<usize>(), kept);
    }
}
