//! What a grant hands out, takes back and refuses.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{
    ClientId, Grant, GrantId,
    grant::{
        CODE_LIFE, Code, GrantError, GrantSeed, GrantStage, LiveToken, MAX_LIVE, OVERLAP, Presented, Redemption,
        Revoked, User,
    },
    id::Ulid,
    time::after,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{authorize::CodeChallenge, resource::Resource, scope::ScopeSet},
};

const LIFE: Duration = Duration::from_hours(24 * 30);
const NOW: Timestamp = Timestamp::UNIX_EPOCH;
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn client() -> ClientId {
    ClientId::new("client_a").unwrap()
}

fn coded() -> Grant {
    Grant {
        id: GrantId(Ulid(7)),
        client: client(),
        subject: "github|42".parse().unwrap(),
        user: User::default(),
        scope: ScopeSet::parse("read write").unwrap(),
        resource: Resource::parse("https://mcp.example.com/mcp").unwrap(),
        connection: None,
        exchangers: BTreeSet::new(),
        seed: GrantSeed::new([9; 32]),
        created_at: NOW,
        stage: GrantStage::Coded(Code {
            redirect_uri: "https://app.example.com/cb".to_owned(),
            challenge: CodeChallenge::parse(CHALLENGE).unwrap(),
            expires_at: after(NOW, CODE_LIFE),
        }),
        live: Vec::new(),
        session: None,
    }
}

fn presented(grant: &Grant, n: u64) -> Presented {
    Presented::parse(&grant.token(n)).unwrap()
}

struct Try {
    client: ClientId,
    redirect_uri: Option<&'static str>,
    verifier: Option<Secret>,
    resource: Option<Resource>,
}

impl Default for Try {
    fn default() -> Self {
        Self {
            client: client(),
            redirect_uri: Some("https://app.example.com/cb"),
            verifier: Some(VERIFIER.into()),
            resource: None,
        }
    }
}

fn redeem(grant: &Grant, by: &Try, now: Timestamp) -> Result<Grant, GrantError> {
    let by = Redemption {
        client: &by.client,
        redirect_uri: by.redirect_uri,
        verifier: by.verifier.as_ref(),
        resource: by.resource.as_ref(),
    };
    grant.clone().redeem(&presented(grant, 0), by, Some(LIFE), now)
}

fn active() -> Grant {
    redeem(&coded(), &Try::default(), NOW).unwrap()
}

fn refresh(grant: &Grant, n: u64, now: Timestamp) -> Result<(Grant, u64), GrantError> {
    let refreshed = grant.clone().refresh(&presented(grant, n), &client(), LIFE, now)?;
    Ok((refreshed.grant, refreshed.number))
}

fn at(secs: u64) -> Timestamp {
    after(NOW, Duration::from_secs(secs))
}

#[test]
fn a_code_is_redeemed_once() {
    let grant = coded();
    let redeemed = redeem(&grant, &Try::default(), at(59)).unwrap();
    assert_eq!(redeem(&redeemed, &Try::default(), at(59)).unwrap_err(), GrantError::Replayed(Revoked::CodeReplayed));
    assert_eq!(redeem(&grant, &Try::default(), at(60)).unwrap_err(), GrantError::Expired);
    let revoked = redeemed.revoke(Revoked::Asked, NOW).unwrap();
    assert_eq!(redeem(&revoked, &Try::default(), NOW).unwrap_err(), GrantError::Revoked);
}

#[test]
fn every_check_of_a_code_counts() {
    let elsewhere = Resource::parse("https://other.example.com/").unwrap();
    let same = Resource::parse("https://mcp.example.com/mcp").unwrap();
    for (by, expected) in [
        (Try { client: ClientId::new("client_b").unwrap(), ..Try::default() }, Some(GrantError::WrongClient)),
        (
            Try { redirect_uri: Some("https://app.example.com/cb/"), ..Try::default() },
            Some(GrantError::WrongRedirectUri),
        ),
        (Try { verifier: None, ..Try::default() }, Some(GrantError::WrongVerifier)),
        (Try { verifier: Some("x".repeat(43).into()), ..Try::default() }, Some(GrantError::WrongVerifier)),
        (Try { verifier: Some(CHALLENGE.into()), ..Try::default() }, Some(GrantError::WrongVerifier)),
        (Try { resource: Some(elsewhere), ..Try::default() }, Some(GrantError::WrongResource)),
        (Try { redirect_uri: None, resource: Some(same), ..Try::default() }, None),
    ] {
        assert_eq!(redeem(&coded(), &by, NOW).err(), expected);
    }
}

#[test]
fn a_forged_token_moves_nothing() {
    let grant = active();
    let genuine = grant.token(1).expose_secret().to_owned();
    let (head, secret) = genuine.rsplit_once('.').unwrap();
    let mut other = secret.to_owned();
    other.replace_range(..1, if secret.starts_with('A') { "B" } else { "A" });
    for text in [format!("{head}.{other}"), genuine.replace(".1.", ".2."), genuine.replace(".1.", ".0.")] {
        let presented = Presented::parse(&text.as_str().into()).unwrap();
        assert_eq!(grant.clone().refresh(&presented, &client(), LIFE, NOW).unwrap_err(), GrantError::Forged, "{text}");
    }
    for bad in ["", "a.b.c", &genuine.replace(".1.", ".01."), &genuine.replace(".1.", ".+1."), &genuine[..60]] {
        assert!(Presented::parse(&bad.into()).is_none(), "{bad}");
    }
    let code = coded().token(0);
    let as_refresh_token = Presented::parse(&code).unwrap();
    assert_eq!(grant.refresh(&as_refresh_token, &client(), LIFE, NOW).unwrap_err(), GrantError::Forged);
}

#[test]
fn the_predecessor_leads_to_the_same_successor_until_that_is_used_and_a_little_longer() {
    let (grant, second) = refresh(&active(), 1, at(10)).unwrap();
    assert_eq!(second, 2);
    let four_days = 4 * 24 * 3600;
    let (again, same) = refresh(&grant, 1, at(four_days)).unwrap();
    assert_eq!((same, again.token(same).expose_secret()), (2, grant.token(2).expose_secret()));
    let (used, third) = refresh(&again, 2, at(four_days)).unwrap();
    assert_eq!(third, 3);
    let within = after(at(four_days), OVERLAP.saturating_sub(Duration::from_secs(1)));
    assert_eq!(refresh(&used, 1, within).unwrap().1, 2);
    assert_eq!(
        refresh(&used, 1, after(at(four_days), OVERLAP)).unwrap_err(),
        GrantError::Replayed(Revoked::RefreshTokenReplayed)
    );
    let (used, _) = refresh(&used, 3, at(four_days + 1)).unwrap();
    assert_eq!(refresh(&used, 1, at(four_days + 1)).unwrap_err(), GrantError::Replayed(Revoked::RefreshTokenReplayed));
}

#[test]
fn what_a_store_lost_is_gone_on_from() {
    let rolled_back = active();
    let (grant, number) = refresh(&rolled_back, 5, at(1)).unwrap();
    assert_eq!(number, 6);
    assert_eq!(refresh(&grant, 5, at(2)).unwrap().1, 6);
    assert_eq!(refresh(&coded(), 3, at(1)).unwrap().1, 4);
}

#[test]
fn refresh_tokens_are_their_clients_and_die_unused() {
    let grant = active();
    let other = ClientId::new("client_b").unwrap();
    let presented = presented(&grant, 1);
    assert_eq!(grant.clone().refresh(&presented, &other, LIFE, NOW).unwrap_err(), GrantError::WrongClient);
    assert_eq!(refresh(&grant, 1, after(NOW, LIFE)).unwrap_err(), GrantError::Expired);
    let (slid, _) = refresh(&grant, 1, at(1000)).unwrap();
    assert!(refresh(&slid, 2, after(NOW, LIFE)).is_ok());
}

#[test]
fn a_request_may_narrow_and_never_widen() {
    let grant = active();
    let read = ScopeSet::parse("read").unwrap();
    assert_eq!(grant.narrowed(Some(&read), None), Ok(read));
    assert_eq!(grant.narrowed(None, None), Ok(grant.scope.clone()));
    let wider = ScopeSet::parse("read admin").unwrap();
    assert_eq!(grant.narrowed(Some(&wider), None), Err(GrantError::WiderScope));
}

#[test]
fn live_tokens_are_bounded_and_go_with_the_grant() {
    let mut grant = active();
    let token = |n: usize| LiveToken { jti: format!("j{n}"), expires_at: at(3600) };
    for n in 0..=MAX_LIVE {
        grant = grant.remember(token(n), NOW);
    }
    assert_eq!(grant.live.len(), MAX_LIVE);
    assert!(!grant.has_live("j0", NOW) && grant.has_live("j1", NOW) && !grant.has_live("j1", at(3600)));
    let without = grant.forget("j1").unwrap();
    assert!(!without.has_live("j1", NOW) && without.forget("j1").is_none());
    let revoked = grant.revoke(Revoked::Asked, NOW).unwrap();
    assert!(!revoked.has_live("j2", NOW) && !revoked.is_live(NOW));
    assert!(revoked.revoke(Revoked::CodeReplayed, NOW).is_none());
}

proptest! {
    /// Whoever follows the rules is never locked out, however many replies are lost; two who use one family are told
    /// apart at the latest when both have gone on.
    #[test]
    fn lost_replies_lock_nobody_out(lost in proptest::collection::vec(any::<bool>(), 1..60)) {
        let (mut grant, mut has) = (active(), 1);
        for (step, lost) in lost.into_iter().enumerate() {
            let now = at(u64::try_from(step).unwrap() * 3600);
            let (next, number) = refresh(&grant, has, now).unwrap();
            grant = next;
            if !lost {
                has = number;
            }
        }
    }
}
