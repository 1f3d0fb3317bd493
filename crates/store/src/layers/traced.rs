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

#[cfg(all(test, feature = "memory"))]
mod tests {
    use std::{
        fmt::{Debug, Write},
        sync::{Arc, Mutex},
    };

    use tokenkeep_core::{
        Tenant,
        ports::{Kind, RecordKey, Store},
    };
    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        span::{Attributes, Id, Record},
    };

    use super::*;
    use crate::Memory;

    /// All fields of all spans, in the order they are recorded.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<String>>);

    impl Visit for Seen {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            let mut seen = self.0.lock().expect("no test thread panics while it holds this");
            let _ = write!(seen, "{field}={value:?} ");
        }
    }

    impl Subscriber for Seen {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            span.record(&mut self.clone());
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, values: &Record<'_>) {
            values.record(&mut self.clone());
        }
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[tokio::test]
    async fn a_span_tells_what_and_how_but_not_whose() {
        let seen = Seen::default();
        let store = Traced::around(Arc::new(Memory::new()), Tracing);
        let key = RecordKey { tenant: Tenant::new("acme").unwrap(), kind: Kind::Connection, id: "alice".into() };
        let guard = tracing::subscriber::set_default(seen.clone());
        store.get(&key).await.unwrap();
        drop(guard);
        let seen = seen.0.lock().unwrap().clone();
        assert_eq!(seen, r#"store.operation="get" store.kind="connection" store.outcome="absent" "#);
    }
}
