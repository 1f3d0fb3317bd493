use std::{fmt, str::FromStr};

use clap::ValueEnum;

/// Where a process is killed or frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// Before the connection to the provider is opened.
    BeforeConnect,
    /// Connected; the intent is not written yet.
    BeforeClaim,
    /// The intent is committed; its answer has not come back.
    AfterClaim,
    /// Everything is ready; not a byte is out.
    BeforeSend,
    /// The provider has the request, and has not acted (a matter of the provider's gate).
    Arrived,
    /// The provider has acted; the reply is not sent (a matter of the provider's gate).
    Processed,
    /// The reply is in memory; nothing of it is durable.
    AfterReply,
    /// The reply is in the journal; the record does not have it.
    Journaled,
    /// The record has it; the answer has not come back.
    Committed,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Step; 9] = [
        Step::BeforeConnect,
        Step::BeforeClaim,
        Step::AfterClaim,
        Step::BeforeSend,
        Step::Arrived,
        Step::Processed,
        Step::AfterReply,
        Step::Journaled,
        Step::Committed,
    ];

    /// Whether the harness holds it at the provider, rather than the child within itself.
    pub fn at_provider(self) -> bool {
        matches!(self, Step::Arrived | Step::Processed)
    }

    /// Whether the provider has rotated by then.
    pub fn provider_acted(self) -> bool {
        matches!(self, Step::Processed | Step::AfterReply | Step::Journaled | Step::Committed)
    }

    /// Whether the reply is durable by then.
    pub fn durable(self) -> bool {
        matches!(self, Step::Journaled | Step::Committed)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("?", |v| v.get_name()))
    }
}

impl FromStr for Step {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        ValueEnum::from_str(text, false)
    }
}
