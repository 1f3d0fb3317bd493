//! The token endpoint: every grant's request, and what the reply *means*.
//!
//! [`parse_token_response`] is written for a caller that has just spent a refresh token which may not be spent
//! twice. So a failure says first of all whether the provider acted: everything but [`TokenFailure::NoOutcome`] is
//! definitive.

mod failure;
mod request;
mod response;

pub use failure::{NoOutcome, TokenFailure};
pub use request::{Grant, RequestContext, TokenRequest, build_long_lived_swap, build_token_request};
pub(crate) use request::{basic, client_request, set_headers, set_scope};
pub use response::{CodeReply, TokenReply, parse_code_response, parse_token_response};
pub(crate) use response::{is_token, judge, within_reason};
