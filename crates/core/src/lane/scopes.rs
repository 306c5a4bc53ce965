//! One value per instrumentation scope, so that spans are grouped by comparing pointers.

use crate::record::Scope;
use opentelemetry::InstrumentationScope;
use std::sync::Arc;

/// Scopes remembered at most; beyond it the memory begins anew. A program has one per instrumented
/// library, but nothing keeps it from making them up.
const REMEMBERED: usize = 128;

/// The scopes that the spans of the SDK carry, each converted once.
#[derive(Default)]
pub(crate) struct Scopes {
    known: Vec<(InstrumentationScope, Arc<Scope>)>,
    /// The one asked for last: spans of one library come in runs.
    last: usize,
}

impl Scopes {
    /// The value that stands for `scope`.
    pub(crate) fn of(&mut self, scope: &InstrumentationScope) -> &Arc<Scope> {
        let is = |(known, _): &(InstrumentationScope, _)| same(known, scope);
        if !self.known.get(self.last).is_some_and(is) {
            self.last = self.known.iter().position(is).unwrap_or_else(|| {
                if self.known.len() >= REMEMBERED {
                    self.known.clear();
                }
                self.known
                    .push((scope.clone(), Arc::new(Scope::from(scope))));
                self.known.len() - 1
            });
        }
        &self.known[self.last].1
    }
}

/// Equality of scopes without allocating: their own `==` sorts copies of the attributes, per span.
fn same(a: &InstrumentationScope, b: &InstrumentationScope) -> bool {
    a.name() == b.name()
        && a.version() == b.version()
        && a.schema_url() == b.schema_url()
        && a.attributes().eq(b.attributes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(name: String) -> InstrumentationScope {
        InstrumentationScope::builder(name)
            .with_version("1")
            .build()
    }

    #[test]
    fn equal_scopes_are_one_value_and_different_ones_are_not() {
        let mut scopes = Scopes::default();
        let a = scopes.of(&scope("a".into())).clone();
        let b = scopes.of(&scope("b".into())).clone();
        assert!(Arc::ptr_eq(&a, scopes.of(&scope("a".into()))));
        assert!(Arc::ptr_eq(&b, scopes.of(&scope("b".into()))));
        assert_eq!((a.name.as_str(), b.name.as_str()), ("a", "b"));
        let other = InstrumentationScope::builder("a").with_version("2").build();
        assert_eq!(scopes.of(&other).version.as_deref(), Some("2"));
    }

    #[test]
    fn made_up_scopes_do_not_pile_up() {
        let mut scopes = Scopes::default();
        for i in 0..10 * REMEMBERED {
            assert_eq!(scopes.of(&scope(i.to_string())).name, i.to_string());
        }
        assert!(scopes.known.len() <= REMEMBERED);
    }
}
