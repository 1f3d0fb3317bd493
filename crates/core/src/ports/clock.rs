use std::{fmt::Debug, time::Duration};

use ulid::Ulid;

use super::BoxFuture;
use crate::{Boot, Now};

/// Where time comes from.
pub trait Clock: Debug + Send + Sync {
    /// Both clocks, read together.
    fn now(&self) -> Now;
    /// Completes once the boot clock shows `until`.
    fn sleep_until(&self, until: Boot) -> BoxFuture<'static, ()>;
    /// Completes after `wait`.
    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now().boot + wait)
    }
}

/// Where randomness comes from. It must be fit for keys.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// 32 fresh bytes.
    fn bytes32(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.fill(&mut bytes);
        bytes
    }

    /// A fresh ULID.
    fn ulid(&self, now: Now) -> Ulid {
        let mut random = [0; 16];
        self.fill(&mut random);
        let millis = u64::try_from(now.wall.as_millisecond()).unwrap_or(0);
        Ulid::from_parts(millis, u128::from_be_bytes(random))
    }
}
