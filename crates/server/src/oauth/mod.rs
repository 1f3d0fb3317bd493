//! The OAuth endpoints that face browsers and providers: one file per endpoint.

pub(crate) mod callback;
