use tokenkeep_core::ports::Kind;
use tracing::Instrument;

use super::{Answer, Call, Layer, Layered, Pending, outcome};

/// A store whose every call is a span.
pub type Traced = Layered<Tracing>;

/// Opens a debug span named `store` around each call: the operation, the kind of record and how it ended. Tenants,
/// ids and labels stay out: they name people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tracing;

impl Layer for Tracing {
    fn call<'a, T: Answer + 'a>(&'a self, call: Call, future: Pending<'a, T>) -> Pending<'a, T> {
        let span = tracing::debug_span!(
            "store",
            store.operation = call.operation,
            store.kind = call.kind.map(Kind::as_str),
            store.outcome = tracing::field::Empty,
        );
        let recorded = span.clone();
        Box::pin(
            async move {
                let result = future.await;
                recorded.record("store.outcome", outcome(&result));
                result
            }
            .instrument(span),
        )
    }
}
