//! What every store is held to, whoever wrote it.
//!
//! A case is an async function that is given an empty store and says what is wrong with it. [`run_all`] runs them
//! one after the other; [`conformance!`](crate::conformance!) makes each a test of its own:
//!
//! ```ignore
//! async fn fixture() -> Fixture {
//!     Fixture::new(Arc::new(MyStore::empty().await))
//! }
//! tokenkeep_store::conformance!(fixture);
//! ```
//!
//! Nothing here sleeps or asks for the time: times are values, and a store judges none by itself. That the suite can
//! fail is proven with [`Faulty`], a store with one fault on purpose.

pub mod cases;
mod faulty;
mod help;
mod lossy;
#[cfg(test)]
mod tests;

use std::{any::Any, fmt, sync::Arc};

pub use faulty::{Fault, Faulty};
pub use lossy::{Breakable, LosesReplies};
use tokenkeep_core::ports::{BoxFuture, Store, StoreError};

/// A store for one case: empty, and nobody else's.
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// How to make it unavailable; without it, the cases that need it are skipped.
    pub outage: Option<Outage>,
    #[expect(dead_code, reason = "only its end matters")]
    guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Fixture {
    /// A store that cannot be broken.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, outage: None, guard: None }
    }

    /// With a way to make it unavailable.
    pub fn with_outage(self, outage: Outage) -> Self {
        Self { outage: Some(outage), ..self }
    }

    /// With something that must live as long: a directory, a container.
    pub fn keeping(self, guard: impl Any + Send + Sync) -> Self {
        Self { guard: Some(Box::new(guard)), ..self }
    }

    /// With `wrap` around the store.
    pub fn map(self, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self { store: wrap(self.store), ..self }
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Makes a store unavailable, and available again with all it held.
pub struct Outage {
    /// Begins it; when the future is done, the store answers nothing.
    pub begin: Hook,
    /// Ends it; when the future is done, the store answers again.
    pub end: Hook,
}

/// Something that can be done several times.
pub type Hook = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// How a case ended.
pub type Outcome = Result<(), Stop>;

/// Why a case went no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It needs something the fixture does not offer.
    Skipped(&'static str),
    /// The store does not keep the contract.
    Failed(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Skipped(why) => write!(f, "skipped: {why}"),
            Stop::Failed(what) => f.write_str(what),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Failed(error.to_string())
    }
}

/// One thing the contract demands.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The function's name.
    pub name: &'static str,
    /// The function.
    pub run: fn(Fixture) -> BoxFuture<'static, Outcome>,
}

/// Every case.
pub const CASES: &[Case] = crate::conformance!(@each [table]);

/// How all cases ended.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By name, in the order of [`CASES`].
    pub outcomes: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// The cases the store did not pass, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.outcomes.iter().filter_map(|(name, outcome)| match outcome {
            Err(Stop::Failed(what)) => Some((*name, what.as_str())),
            Ok(()) | Err(Stop::Skipped(_)) => None,
        })
    }
}

/// Runs every case, each with a fixture of its own.
pub async fn run_all<F: Future<Output = Fixture>>(mut factory: impl FnMut() -> F) -> Report {
    let mut report = Report::default();
    for case in CASES {
        report.outcomes.push((case.name, (case.run)(factory().await).await));
    }
    report
}

/// What the case that must catch `fault` says of an honest store that was made dishonest; panics if it says nothing.
pub async fn verdict(fault: Fault, fixture: Fixture) -> String {
    let case = CASES.iter().find(|case| case.name == fault.caught_by()).expect("it names a case");
    match (case.run)(fixture.map(|store| Arc::new(Faulty::new(store, fault)))).await {
        Err(Stop::Failed(what)) => what,
        other => panic!("{} did not catch {fault:?}: {other:?}", case.name),
    }
}

/// Makes every case a test: `conformance!(fixture)`, where `fixture` is an `async fn() -> Fixture`. The crate that
/// says so needs tokio with its macros and its multi-threaded runtime.
#[macro_export]
macro_rules! conformance {
    // The one list of cases; `$then` is one of the rules below.
    (@each [$($then:tt)*]) => {
        $crate::conformance! { @$($then)*;
            crud::nothing_is_read_as_none
            crud::what_is_put_is_read
            crud::put_replaces_everything
            crud::put_absent_needs_absence
            crud::put_needs_the_version
            crud::delete_needs_the_version
            crud::versions_are_never_reused
            crud::kinds_and_tenants_are_apart
            crud::it_describes_itself_and_answers
            tombstones::a_tombstone_is_read_as_deleted
            tombstones::a_tombstone_is_in_no_list_but_two
            tombstones::a_tombstone_counts_as_absent
            tombstones::a_tombstone_can_be_replaced_by_its_version
            tombstones::a_tombstone_is_swept_in_time
            races::one_of_32_replacements_wins
            races::one_of_32_creations_wins
            races::one_of_32_writes_and_deletes_wins
            races::no_increment_is_lost
            lists::labels_move_with_the_record
            lists::labels_are_compared_as_they_are
            lists::tenants_do_not_see_each_other
            lists::every_page_goes_on_where_the_last_ended
            lists::paging_is_steady_while_others_come_and_go
            lists::a_foreign_cursor_ends_the_list
            lists::changed_since_shows_what_changed
            lists::expires_between_is_half_open
            lists::due_before_includes_its_end
            lists::sealed_by_goes_by_the_key
            lists::count_agrees_with_list
            claims::the_earliest_are_claimed_first
            claims::a_claim_leaves_the_version_alone
            claims::a_claim_ends_when_it_said
            claims::nothing_is_claimed_twice
            claims::claims_and_writes_do_not_undo_each_other
            sweeping::sweep_goes_by_the_time_it_is_told
            sweeping::sweep_takes_every_kind_and_tenant
            sweeping::the_expired_is_there_until_swept
            values::odd_ids_are_kept_apart
            values::values_of_any_size_are_kept
            values::times_are_kept_to_the_microsecond
            faults::an_outage_is_not_absence
            faults::a_lost_reply_is_found_by_reading
            faults::lost_replies_lose_and_repeat_nothing
        }
    };
    (@table; $($module:ident::$case:ident)*) => {
        &[$($crate::conformance::Case {
            name: stringify!($case),
            run: |fixture| Box::pin($crate::conformance::cases::$module::$case(fixture)),
        }),*]
    };
    (@tests $factory:expr; $($module:ident::$case:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            match $crate::conformance::cases::$module::$case($factory().await).await {
                Err($crate::conformance::Stop::Failed(what)) => panic!("{what}"),
                Err($crate::conformance::Stop::Skipped(why)) => println!("skipped: {why}"),
                Ok(()) => {}
            }
        })*
    };
    ($factory:expr) => {
        $crate::conformance! { @each [tests $factory] }
    };
}
