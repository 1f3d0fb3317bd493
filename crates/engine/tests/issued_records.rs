//! What the issuing side keeps comes back from its records as it went in.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use jiff::Timestamp;
use tokenkeep_core::{
    Client, ClientId, ClientOrigin, ClientSecretHash, Grant, GrantId, Incarnation, Interaction, InteractionId,
    SigningKey, SigningKeys, Voided,
    authorization_request::ProofHash,
    client::ManagementHash,
    grant::{Code, Family, GrantSeed, GrantStage, LiveToken, Revoked, User},
    id::Ulid,
    interaction::InteractionStage,
    session::{Session, SessionToken, Successor, Terms},
    signing_keys::KeyPhase,
    voided::VoidedId,
};
use tokenkeep_engine::records::Aggregate;
use tokenkeep_oauth::issuer::{
    authorize::CodeChallenge,
    client::parse_client_metadata,
    jws::{Algorithm, TokenKey},
    resource::Resource,
    scope::ScopeSet,
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What is written is read, and written again the same.
fn round_trip<T: Aggregate>(value: &T) -> T {
    let bytes = value.encode();
    let read = T::decode(&bytes).unwrap();
    assert_eq!(*read.encode(), *bytes);
    assert!(T::decode(&bytes[1..]).is_err());
    read
}

fn challenge() -> CodeChallenge {
    CodeChallenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").unwrap()
}

fn grant(stage: GrantStage) -> Grant {
    Grant {
        id: GrantId(Ulid(7)),
        client: ClientId::new("https://app.example/client.json").unwrap(),
        subject: "github|42".parse().unwrap(),
        user: User { name: Some("alice \"a\"".into()), email: Some("alice@example.com".into()) },
        scope: ScopeSet::parse("read write").unwrap(),
        resource: Resource::parse("https://mcp.example.com/mcp").unwrap(),
        connection: Some("github/_default/github|42".parse().unwrap()),
        exchangers: [ClientId::new("mcp-server").unwrap()].into(),
        seed: GrantSeed::new([9; 32]),
        created_at: NOW,
        stage,
        live: vec![LiveToken { jti: "j".into(), expires_at: NOW }],
        session: None,
    }
}

#[test]
fn grants() {
    let code = Code { redirect_uri: "http://localhost/cb?a=\"".into(), challenge: challenge(), expires_at: NOW };
    let stages = [
        GrantStage::Coded(code),
        GrantStage::Active(Family { newest: u64::MAX, rotated_at: NOW, expires_at: NOW }),
        GrantStage::Revoked { reason: Revoked::RefreshTokenReplayed, at: NOW },
    ];
    for stage in stages {
        let before = grant(stage);
        let read = round_trip(&before);
        assert_eq!(format!("{read:?}"), format!("{before:?}"));
        assert_eq!(read.seed.expose(), before.seed.expose());
        assert!(!format!("{read:?}").contains("9, 9"), "the seed is not printed");
    }
}

#[test]
fn sessions() {
    let token =
        |upstream_expires_at| SessionToken { jti: "j\"".into(), issued_at: NOW, expires_at: NOW, upstream_expires_at };
    let successor = |of: &str, dies| Successor { of: of.into(), token: token(dies), until: NOW };
    for ttl in [None, Some(Duration::from_mins(5))] {
        let session = Session {
            terms: Terms { ttl, coordinated: ttl.is_none() },
            incarnation: Incarnation(Ulid(5)),
            successors: vec![successor("i", None), successor("#1", Some(NOW))],
        };
        let family = GrantStage::Active(Family { newest: 0, rotated_at: NOW, expires_at: NOW });
        let before = Grant { session: Some(session), ..grant(family) };
        assert_eq!(round_trip(&before).session, before.session);
    }
}

#[test]
fn interactions() {
    let stages = [
        InteractionStage::Asked,
        InteractionStage::SigningIn {
            integration: "github".parse().unwrap(),
            state: ProofHash([1; 32]),
            pkce_verifier: Some("v\"".into()),
            nonce: None,
            browser: ProofHash([2; 32]),
        },
        InteractionStage::Exchanging,
        InteractionStage::Granted(GrantId(Ulid(8))),
        InteractionStage::Denied,
    ];
    for stage in stages {
        let before = Interaction {
            id: InteractionId(Ulid(1)),
            client: ClientId::new("client_a").unwrap(),
            redirect_uri: "com.example.app:/cb".into(),
            state: Some("x".into()),
            scope: ScopeSet::default(),
            resource: Resource::parse("http://localhost:3000").unwrap(),
            exchangers: [ClientId::new("mcp-server").unwrap()].into(),
            challenge: challenge(),
            created_at: NOW,
            expires_at: NOW,
            stage,
        };
        assert_eq!(format!("{:?}", round_trip(&before)), format!("{before:?}"));
    }
}

#[test]
fn clients() {
    let body = br#"{"client_name":"A","redirect_uris":["http://localhost/cb"],"scope":"b a",
        "token_endpoint_auth_method":"private_key_jwt","jwks":{"keys":[{"kty":"OKP","crv":"Ed25519",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k"}]}}"#;
    let metadata = parse_client_metadata(body).unwrap();
    let secrets =
        [None, Some(ClientSecretHash::Keyed([3; 32])), Some(ClientSecretHash::Argon2id("$argon2id$x".into()))];
    let origins = [
        ClientOrigin::Api,
        ClientOrigin::Config,
        ClientOrigin::Registered { management: Some(ManagementHash([4; 32])) },
        ClientOrigin::Registered { management: None },
    ];
    for (secret, origin) in secrets.into_iter().cycle().zip(origins) {
        let before = Client {
            id: ClientId::new("client_a").unwrap(),
            metadata: metadata.clone(),
            secret,
            origin,
            resources: Some([Resource::parse("https://a.example").unwrap()].into()),
            created_at: NOW,
            used_at: Some(NOW),
        };
        let read = round_trip(&before);
        assert_eq!((&read.metadata, &read.origin), (&before.metadata, &before.origin));
        assert_eq!(Aggregate::expires_at(&read), before.expires_at());
    }
}

#[test]
fn signing_keys_and_what_is_voided() {
    let stored = TokenKey::generate(Algorithm::Es256, &[0; 32]).unwrap();
    let key = |phase| SigningKey {
        kid: TokenKey::from_stored(Algorithm::Es256, &stored).unwrap().kid().to_owned(),
        algorithm: Algorithm::Es256,
        resource: None,
        stored: stored.clone(),
        created_at: NOW,
        phase,
    };
    let before =
        SigningKeys { keys: [KeyPhase::Next, KeyPhase::Active, KeyPhase::Retiring { until: NOW }].map(key).into() };
    let read = round_trip(&before);
    assert_eq!(format!("{read:?}"), format!("{before:?}"));
    assert!(TokenKey::from_stored(Algorithm::Es256, &read.keys[0].stored).is_ok());

    for (id, issued_until) in
        [(VoidedId::access_token("jti"), None), (VoidedId::tokens_of(&"job".parse().unwrap()), Some(NOW))]
    {
        let voided = Voided { id, expires_at: NOW, issued_until };
        assert_eq!(round_trip(&voided), voided);
    }
}

#[test]
fn a_rotation_announces_the_next_key_and_keeps_the_old_one_until_its_tokens_are_dead() {
    use std::time::Duration;
    let key = |kid: &str| SigningKey {
        kid: kid.into(),
        algorithm: Algorithm::EdDsa,
        resource: None,
        stored: Vec::new().into(),
        created_at: NOW,
        phase: KeyPhase::Next,
    };
    let phases = |keys: &SigningKeys| keys.keys.iter().map(|k| (k.kid.clone(), k.phase)).collect::<Vec<_>>();
    let hour = Duration::from_hours(1);
    let keys = SigningKeys::default().begin(key("a"), key("b"));
    assert_eq!(keys.active(Algorithm::EdDsa, None).unwrap().kid, "a");
    assert!(keys.active(Algorithm::Es256, None).is_none());
    let keys = keys.rotate(key("c"), hour, NOW);
    let until = tokenkeep_core::time::after(NOW, hour);
    assert_eq!(
        phases(&keys),
        [("a".into(), KeyPhase::Retiring { until }), ("b".into(), KeyPhase::Active), ("c".into(), KeyPhase::Next)]
    );
    let keys = keys.without_dead(until);
    assert_eq!(phases(&keys).len(), 2, "what it signed is dead");
}
