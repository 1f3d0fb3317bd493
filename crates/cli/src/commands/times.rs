//! Times as people say them.

use jiff::Timestamp;
use tokenkeep_core::ports::Clock as _;
use tokenkeep_engine::system::SystemClock;

/// `in 52 min`, `3 h ago`; `-` where there is none.
pub(super) fn relative(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| words(SystemClock.now().wall, at))
}

fn words(now: Timestamp, at: Timestamp) -> String {
    let seconds = at.as_second() - now.as_second();
    if seconds.abs() < 2 {
        return "now".to_owned();
    }
    let (count, unit) = match seconds.unsigned_abs() {
        n @ 0..120 => (n, "s"),
        n @ 120..7200 => (n / 60, "min"),
        n @ 7200..172_800 => (n / 3600, "h"),
        n => (n / 86_400, "days"),
    };
    if seconds >= 0 { format!("in {count} {unit}") } else { format!("{count} {unit} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_times_are_exact_and_far_ones_round() {
        let at = |seconds: i64| words(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap());
        assert_eq!(at(1), "now");
        assert_eq!(at(-30), "30 s ago");
        assert_eq!(at(119), "in 119 s");
        assert_eq!(at(3599), "in 59 min");
        assert_eq!(at(-7200), "2 h ago");
        assert_eq!(at(-864_000), "10 days ago");
    }
}
