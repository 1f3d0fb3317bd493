//! This machine's own clocks and randomness: the one place that asks for them. Everything else holds a
//! [`Clock`] and an [`Entropy`], so that tests can say what time it is and what chance brings.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokenkeep_core::{
    Boot, Now,
    ports::{BoxFuture, Clock, Entropy},
};

/// The machine's clocks. Sleeping needs a tokio runtime with its timer on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The clock that goes on while the machine is suspended: what it read before a pause can be compared with what it
/// reads after. On Linux that is `CLOCK_BOOTTIME`; the other systems' monotonic clock behaves like it or is the
/// closest they have.
#[cfg(target_os = "linux")]
const BOOT_CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const BOOT_CLOCK: ClockId = ClockId::Monotonic;

/// How long one nap lasts at most. The runtime's timer stands still while the machine is suspended and the boot clock
/// does not; this is how late a sleeper may notice.
const NAP: Duration = Duration::from_secs(5);

fn boot() -> Boot {
    let at = clock_gettime(BOOT_CLOCK);
    // Neither field of a boot clock is ever negative.
    Boot(Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0)))
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
        let wall = Timestamp::now();
        Now { wall, boot: boot() }
    }

    fn sleep_until(&self, until: Boot) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            loop {
                let left = until.since(boot());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(NAP)).await;
            }
        })
    }
}

/// The cryptographic library's random generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        #[expect(clippy::disallowed_methods, reason = "the one place that draws random bytes")]
        let filled = aws_lc_rs::rand::fill(bytes);
        filled.expect("aws-lc seeds itself from the kernel, and aborts by itself where that fails");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_does_not_go_back() {
        let before = SystemClock.now();
        let after = SystemClock.now();
        assert!(after.boot >= before.boot);
        assert!(before.boot > Boot::default());
    }

    #[tokio::test]
    async fn a_sleep_ends_no_sooner_than_the_boot_clock_says() {
        let until = SystemClock.now().boot + Duration::from_millis(3);
        SystemClock.sleep_until(until).await;
        assert!(SystemClock.now().boot >= until);
        SystemClock.sleep_until(Boot::default()).await;
    }

    #[test]
    fn two_draws_differ() {
        assert_ne!(SystemEntropy.bytes32(), SystemEntropy.bytes32());
    }
}
