//! The routes of the token service for BlueStakes tickets that this one replaces, so that its callers need no change:
//! `/tokens/...` and `/tickets/store-credentials/{company_id}`. docs/compat.md is for their users.
//!
//! A company is the connection `{provider}/{company_id}/_default`, and each route is one engine call: [`tokens`] looks
//! after tokens, [`credentials`] takes user names and passwords ([`given`]: from where; [`outcome`]: what is answered).
//! Bodies are as that service documents them, member by member; what it never answered (a key that is unknown or may
//! not, a name that is none) is a problem as everywhere else.

mod company;
pub(crate) mod credentials;
mod given;
mod outcome;
mod settings;
pub(crate) mod tokens;

pub use settings::{Companies, Compat};
