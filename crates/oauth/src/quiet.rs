//! How long a reply asks us to leave the provider alone: `Retry-After`, and the many spellings of rate limits.
//!
//! What comes of it errs towards waiting where calls were refused, and towards calling where they were not: a limit
//! that is used up counts only if it is known to be everything's, not that of one endpoint.

use std::time::Duration;

use http::{
    HeaderMap, StatusCode,
    header::{DATE, RETRY_AFTER},
};
use jiff::Timestamp;

/// The longest `Retry-After` believed.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// The longest quiet that is read from a reply that refused nothing: hours are what a daily quota asks for, or a number
/// that was misunderstood.
const MAX_UNASKED: Duration = Duration::from_hours(1);

/// Reads `Retry-After` (RFC 9110 10.2.3): seconds, also with a fraction (Shopify), an HTTP date, or a timestamp
/// (Zoom). A time that has passed is no wait at all; nothing above [`MAX_RETRY_AFTER`] is believed.
///
/// Dates are taken relative to the reply's own `Date`, so that the provider's clock need not agree with ours; without
/// one, to `now`.
pub fn parse_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER.as_str())?;
    let wait = match seconds(text) {
        Some(seconds) => seconds,
        None => until(date(text)?, headers, now),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// How long a reply of an API asks for quiet; `None` = it does not.
///
/// A refusal (429, 503, and GitHub's 403 with nothing remaining) says so with `Retry-After`, or with the time at which a
/// limit is reset. Any other reply does with a limit that nothing remains of:
///
/// | | |
/// |---|---|
/// | draft-ietf-httpapi-ratelimit-headers | `RateLimit: "name";r=0;t=30`, `RateLimit: limit=100, remaining=0, reset=30`, `RateLimit-Remaining` and `RateLimit-Reset` |
/// | GitHub, GitLab, Twitch, Reddit, Atlassian, ... | `[X-]RateLimit-Remaining` and `[X-]RateLimit-Reset`: seconds, a Unix time in seconds or milliseconds, or a timestamp |
/// | Discord | `X-RateLimit-Reset-After`, seconds with a fraction; its limits are single routes' |
/// | X, Okta | `X-Rate-Limit-Remaining` and `X-Rate-Limit-Reset`; their limits are single endpoints' |
/// | Linear | `X-RateLimit-Requests-Remaining` and `X-RateLimit-Requests-Reset`, milliseconds |
/// | HubSpot | `X-HubSpot-RateLimit-Remaining` and `X-HubSpot-RateLimit-Interval-Milliseconds` |
/// | Shopify | `X-Shopify-Shop-Api-Call-Limit: 40/40`, which drains by at least two a second |
pub fn parse_quiet(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let refused = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let used_up = || LIMITS.iter().filter_map(|limit| limit.used_up(headers, now)).chain(structured(headers)).max();
    let wait = match status {
        _ if refused => parse_retry_after(headers, now)
            .or_else(|| milliseconds(headers, "retry-after-ms"))
            .or_else(|| text(headers, "x-ratelimit-reset-after").and_then(seconds))
            .or_else(used_up)
            // That something is reset says when to come back, even if not what remains until then.
            .or_else(|| LIMITS.iter().filter_map(|limit| limit.reset(headers, now)).min())?
            .min(MAX_RETRY_AFTER),
        // Also what is merely not allowed: that says nothing of waiting.
        StatusCode::FORBIDDEN if headers.contains_key(RETRY_AFTER) => parse_retry_after(headers, now)?,
        StatusCode::FORBIDDEN => used_up()?.min(MAX_RETRY_AFTER),
        _ if !speaks_of_limits(headers) || is_of_one_endpoint(headers) => return None,
        _ => used_up().into_iter().chain(call_limit(headers)).max()?.min(MAX_UNASKED),
    };
    (!wait.is_zero()).then_some(wait)
}

/// Whether any of the names below may be there. Most replies have none of them, and each would be looked for.
fn speaks_of_limits(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("x-") || name.as_str().starts_with("ratelimit"))
}

/// A limit that is said in two headers.
struct Spelling {
    remaining: &'static str,
    reset: &'static str,
    unit: Unit,
}

/// What a reset's number means.
#[derive(Clone, Copy)]
enum Unit {
    /// Seconds from now, or a Unix time in seconds or milliseconds: they are of different sizes.
    Guessed,
    /// The length of the limit's window.
    Milliseconds,
}

const LIMITS: [Spelling; 5] = [
    Spelling { remaining: "ratelimit-remaining", reset: "ratelimit-reset", unit: Unit::Guessed },
    Spelling { remaining: "x-ratelimit-remaining", reset: "x-ratelimit-reset", unit: Unit::Guessed },
    Spelling { remaining: "x-rate-limit-remaining", reset: "x-rate-limit-reset", unit: Unit::Guessed },
    Spelling { remaining: "x-ratelimit-requests-remaining", reset: "x-ratelimit-requests-reset", unit: Unit::Guessed },
    Spelling {
        remaining: "x-hubspot-ratelimit-remaining",
        reset: "x-hubspot-ratelimit-interval-milliseconds",
        unit: Unit::Milliseconds,
    },
];

impl Spelling {
    /// When there is some again, if there is none.
    fn used_up(&self, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
        let remaining = number(text(headers, self.remaining)?)?;
        if remaining < 1.0 { self.reset(headers, now) } else { None }
    }

    fn reset(&self, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
        let text = text(headers, self.reset)?;
        match (number(text), self.unit) {
            (Some(number), Unit::Milliseconds) => duration(number / 1e3),
            (Some(number), Unit::Guessed) if number < EARLIEST_UNIX_TIME => duration(number),
            (Some(number), Unit::Guessed) => {
                let seconds = if number < EARLIEST_UNIX_TIME * 1e3 { number } else { number / 1e3 };
                let at = Timestamp::UNIX_EPOCH.checked_add(duration(seconds)?).ok()?;
                Some(until(at, headers, now))
            }
            (None, _) => Some(until(date(text)?, headers, now)),
        }
    }
}

/// A number below this is no Unix time of today in seconds (it is of 2001), and one a thousand times as large is none:
/// it is milliseconds.
const EARLIEST_UNIX_TIME: f64 = 1e9;

/// Whether the limits that a reply speaks of may be those of one endpoint, while others go on.
fn is_of_one_endpoint(headers: &HeaderMap) -> bool {
    let one = |name| headers.contains_key(name);
    let resource = text(headers, "x-ratelimit-resource");
    // Discord's routes; X's and Okta's endpoints; GitHub's search and the like.
    one("x-ratelimit-bucket") || one("x-rate-limit-remaining") || resource.is_some_and(|resource| resource != "core")
}

/// Shopify's bucket, if it is full.
fn call_limit(headers: &HeaderMap) -> Option<Duration> {
    let (used, of) = text(headers, "x-shopify-shop-api-call-limit")?.split_once('/')?;
    (number(used)? >= number(of)?).then_some(Duration::from_millis(500))
}

/// The longest wait of `RateLimit`, whose items are lists of parameters: `"name";r=0;t=30` or, as earlier drafts had
/// it, `limit=100, remaining=0, reset=30`.
fn structured(headers: &HeaderMap) -> Option<Duration> {
    let mut longest = None;
    for value in headers.get_all("ratelimit") {
        let Ok(value) = value.to_str() else { continue };
        // In the earlier form, all members are of one limit.
        let is_dictionary = split(value, ',').any(|member| member.starts_with("remaining="));
        let limits: Vec<Vec<&str>> = if is_dictionary {
            vec![split(value, ',').collect()]
        } else {
            split(value, ',').map(|limit| split(limit, ';').collect()).collect()
        };
        for limit in limits {
            let member = |names: [&str; 2]| {
                let mut members = limit.iter().filter_map(|member| member.split_once('='));
                members.find_map(|(name, value)| names.contains(&name.trim()).then(|| number(value)).flatten())
            };
            if member(["r", "remaining"]).is_some_and(|remaining| remaining < 1.0) {
                longest = longest.max(member(["t", "reset"]).and_then(duration));
            }
        }
    }
    longest
}

/// The pieces of `value` between separators that stand in no quoted string.
fn split(value: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let between = move |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    };
    value.split(between).map(str::trim)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

fn milliseconds(headers: &HeaderMap, name: &str) -> Option<Duration> {
    duration(number(text(headers, name)?)? / 1e3)
}

/// Seconds, if it is nothing else.
fn seconds(text: &str) -> Option<Duration> {
    duration(number(text)?)
}

/// A plain decimal number, alone or the first of a list.
fn number(text: &str) -> Option<f64> {
    let text = text.split([',', ';']).next().unwrap_or_default().trim();
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|_| plain)
}

fn duration(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// An HTTP date or an RFC 3339 timestamp.
fn date(text: &str) -> Option<Timestamp> {
    let http = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    http.or_else(|| text.parse().ok())
}

/// How long it is until `at`, by the clock of whoever wrote the reply if that is in it.
fn until(at: Timestamp, headers: &HeaderMap, now: Timestamp) -> Duration {
    let now = text(headers, DATE.as_str()).and_then(date).unwrap_or(now);
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-01T00:00:00Z.
    const NOW: i64 = 1_767_225_600;

    fn quiet(status: u16, lines: &[(&str, &str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::try_from(*name).expect("a name");
            headers.append(name, HeaderValue::try_from(*value).expect("a value"));
        }
        parse_quiet(
            StatusCode::from_u16(status).expect("a status"),
            &headers,
            Timestamp::from_second(NOW).expect("now"),
        )
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands beside `None`")]
    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        for (who, status, lines, wait) in [
            ("Slack, Microsoft, Notion, Xero", 429, vec![("Retry-After", "30")], seconds(30)),
            ("Xero", 429, vec![("Retry-After", "41"), ("X-Rate-Limit-Problem", "minute")], seconds(41)),
            ("a maintenance", 503, vec![("Retry-After", "120")], seconds(120)),
            ("RFC 9110", 503, vec![("Retry-After", "Thu, 01 Jan 2026 00:00:07 GMT")], seconds(7)),
            ("Zoom", 429, vec![("Retry-After", "2026-01-01T00:05:00Z")], seconds(300)),
            ("Shopify", 429, vec![("Retry-After", "2.0")], seconds(2)),
            (
                "Discord",
                429,
                vec![("X-RateLimit-Reset-After", "1.250"), ("X-RateLimit-Bucket", "abcd")],
                Some(Duration::from_millis(1250)),
            ),
            ("Azure", 429, vec![("retry-after-ms", "1500")], Some(Duration::from_millis(1500))),
            (
                "GitHub's primary limit",
                403,
                vec![
                    ("x-ratelimit-limit", "5000"),
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1767225660"),
                    ("x-ratelimit-resource", "search"),
                ],
                seconds(60),
            ),
            (
                "GitHub's secondary limit",
                403,
                vec![("retry-after", "60"), ("x-ratelimit-remaining", "12")],
                seconds(60),
            ),
            ("Intercom", 429, vec![("X-RateLimit-Reset", "1767225610")], seconds(10)),
            ("Okta", 429, vec![("X-Rate-Limit-Remaining", "0"), ("X-Rate-Limit-Reset", "1767225615")], seconds(15)),
            ("Atlassian", 429, vec![("X-RateLimit-Reset", "2026-01-01T00:01Z")], seconds(60)),
            (
                "Linear",
                429,
                vec![("X-RateLimit-Requests-Remaining", "0"), ("X-RateLimit-Requests-Reset", "1767225603500")],
                Some(Duration::from_millis(3500)),
            ),
            (
                "HubSpot",
                429,
                vec![
                    ("X-HubSpot-RateLimit-Remaining", "0"),
                    ("X-HubSpot-RateLimit-Interval-Milliseconds", "10000"),
                    ("X-HubSpot-RateLimit-Daily-Remaining", "248000"),
                ],
                seconds(10),
            ),
            ("a provider that says nothing", 429, vec![("X-RateLimit-Remaining", "0")], None),
            ("what is not allowed", 403, vec![("x-ratelimit-remaining", "12"), ("x-ratelimit-reset", "9")], None),
            ("what is over", 429, vec![("Retry-After", "Wed, 31 Dec 2025 23:00:00 GMT")], None),
            ("a year", 429, vec![("Retry-After", "31536000")], Some(MAX_RETRY_AFTER)),
        ] {
            assert_eq!(quiet(status, &lines), wait, "{who}");
        }
    }

    #[test]
    fn a_limit_that_is_used_up_asks_for_quiet_before_it_refuses() {
        for (who, lines, wait) in [
            (
                "GitHub",
                vec![
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1767227400"),
                    ("x-ratelimit-resource", "core"),
                ],
                seconds(1800),
            ),
            (
                "GitHub's search, which is not all",
                vec![
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1767225660"),
                    ("x-ratelimit-resource", "search"),
                ],
                None,
            ),
            ("GitLab", vec![("RateLimit-Remaining", "0"), ("RateLimit-Reset", "1767225620")], seconds(20)),
            ("Zendesk, Microsoft", vec![("ratelimit-remaining", "0"), ("ratelimit-reset", "41")], seconds(41)),
            ("Reddit", vec![("X-Ratelimit-Remaining", "0.0"), ("X-Ratelimit-Reset", "35")], seconds(35)),
            ("Reddit with some left", vec![("X-Ratelimit-Remaining", "598.0"), ("X-Ratelimit-Reset", "35")], None),
            (
                "Discord, one route of which is used up",
                vec![
                    ("X-RateLimit-Remaining", "0"),
                    ("X-RateLimit-Reset", "1767225601.5"),
                    ("X-RateLimit-Bucket", "abcd"),
                ],
                None,
            ),
            (
                "X, one endpoint of which is used up",
                vec![("x-rate-limit-remaining", "0"), ("x-rate-limit-reset", "1767226500")],
                None,
            ),
            ("Shopify", vec![("X-Shopify-Shop-Api-Call-Limit", "40/40")], Some(Duration::from_millis(500))),
            ("Shopify with room", vec![("X-Shopify-Shop-Api-Call-Limit", "39/40")], None),
            ("an early draft", vec![("RateLimit", "limit=100, remaining=0, reset=50")], seconds(50)),
            ("a late draft", vec![("RateLimit", r#""default";r=0;t=30"#)], seconds(30)),
            ("a late draft with some left", vec![("RateLimit", r#""default";r=1;t=30"#)], None),
            ("two limits", vec![("RateLimit", r#""a, r=0";r=9;t=99, "b;\"";r=0;t=7, "c";r=0;t=5"#)], seconds(7)),
            ("two lines", vec![("RateLimit", r#""a";r=0;t=3"#), ("RateLimit", r#""b";r=0;t=4"#)], seconds(4)),
            ("a draft between", vec![("RateLimit-Remaining", "0"), ("RateLimit-Reset", "9, 60;w=60")], seconds(9)),
            ("a quota of a day", vec![("RateLimit-Remaining", "0"), ("RateLimit-Reset", "80000")], Some(MAX_UNASKED)),
            ("a reset that is over", vec![("RateLimit-Remaining", "0"), ("RateLimit-Reset", "1767225600")], None),
            ("a Retry-After where nothing was refused", vec![("Retry-After", "30")], None),
            ("nothing", vec![], None),
        ] {
            assert_eq!(quiet(200, &lines), wait, "{who}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_over_there_does_not_matter() {
        let date = ("Date", "Thu, 01 Jan 2026 01:00:00 GMT");
        assert_eq!(quiet(429, &[date, ("Retry-After", "Thu, 01 Jan 2026 01:00:05 GMT")]), seconds(5));
        assert_eq!(quiet(200, &[date, ("RateLimit-Remaining", "0"), ("RateLimit-Reset", "1767229210")]), seconds(10));
        assert_eq!(quiet(429, &[date, ("Retry-After", "5")]), seconds(5), "a length needs no clock");
    }

    #[test]
    fn what_is_no_number_is_no_wait() {
        for nonsense in ["", " ", "-1", "+5", "NaN", "inf", "1e9", "0x10", "1.2.3", ".", "soon", "1 h", "\"5\""] {
            assert_eq!(quiet(429, &[("Retry-After", nonsense)]), None, "{nonsense:?}");
            assert_eq!(quiet(200, &[("RateLimit-Remaining", "0"), ("RateLimit-Reset", nonsense)]), None, "{nonsense}");
            assert_eq!(quiet(200, &[("RateLimit-Remaining", nonsense), ("RateLimit-Reset", "5")]), None, "{nonsense}");
        }
        assert_eq!(quiet(429, &[("Retry-After", &"9".repeat(400))]), Some(MAX_RETRY_AFTER));
    }

    const NAMES: [&str; 16] = [
        "retry-after",
        "retry-after-ms",
        "date",
        "ratelimit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-ratelimit-reset-after",
        "x-ratelimit-bucket",
        "x-ratelimit-resource",
        "x-rate-limit-remaining",
        "x-rate-limit-reset",
        "x-hubspot-ratelimit-remaining",
        "x-hubspot-ratelimit-interval-milliseconds",
        "x-shopify-shop-api-call-limit",
    ];

    fn value() -> impl Strategy<Value = Vec<u8>> {
        let bytes = proptest::collection::vec(prop_oneof![Just(b'\t'), 0x20_u8..0x7f, 0x80_u8..=0xff], 0..40);
        let like = "[0-9.,;=\"\\\\/ rtTZGM:a-f-]{0,40}".prop_map(String::into_bytes);
        prop_oneof![bytes, like, any::<u64>().prop_map(|n| n.to_string().into_bytes())]
    }

    proptest! {
        /// Whatever they hold, headers ask for nothing beyond what is believed, and crash nobody.
        #[test]
        fn no_header_asks_for_more_than_a_day(
            status in 100_u16..600,
            lines in proptest::collection::vec((proptest::sample::select(&NAMES[..]), value()), 0..8),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_bytes(&value).expect("visible"));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            let now = Timestamp::from_second(NOW).expect("now");
            let wait = parse_quiet(status, &headers, now);
            let most = if matches!(status.as_u16(), 403 | 429 | 503) { MAX_RETRY_AFTER } else { MAX_UNASKED };
            prop_assert!(wait.is_none_or(|wait| !wait.is_zero() && wait <= most), "{wait:?}");
            prop_assert!(parse_retry_after(&headers, now).is_none_or(|wait| wait <= MAX_RETRY_AFTER));
        }

        /// A reset comes to the same, however it is written.
        #[test]
        fn a_reset_is_the_same_in_every_unit(wait in 1_i64..3000) {
            let at = NOW + wait;
            let stamp = Timestamp::from_second(at).expect("a time").to_string();
            for reset in [wait.to_string(), at.to_string(), (at * 1000).to_string(), format!("{wait}.0"), stamp] {
                let lines = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset.as_str())];
                prop_assert_eq!(quiet(200, &lines), seconds(wait.unsigned_abs()), "{}", reset);
            }
        }
    }
}
