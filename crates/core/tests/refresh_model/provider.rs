//! A provider that remembers every refresh token it ever issued.

use std::{collections::BTreeMap, time::Duration};

use tokenkeep_core::{Fingerprint, Rotation, provider::Successor};

pub const NONE: Rotation = Rotation::None;
pub const OVERLAP: Rotation = Rotation::Overlap;
pub const PREDECESSOR: Rotation = Rotation::Predecessor;
pub const STRICT: Rotation = Rotation::Strict;
pub const WINDOW: Duration = Duration::from_secs(60);
pub const GRACE_SAME: Rotation = Rotation::Grace { window: WINDOW, successor: Successor::Same };
pub const GRACE_NEW: Rotation = Rotation::Grace { window: WINDOW, successor: Successor::New };

pub type Token = u32;
pub type Family = u32;

/// What a token's fingerprint is in the model.
pub fn fingerprint(token: Token) -> Fingerprint {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&token.to_be_bytes());
    Fingerprint(bytes)
}

#[derive(Debug, Default)]
struct Line {
    /// Every token issued, oldest first, with the true time of its first spend.
    issued: Vec<(Token, Option<Duration>)>,
    revoked: bool,
}

#[derive(Debug)]
pub struct Provider {
    rotation: Rotation,
    lines: BTreeMap<Family, Line>,
    next: Token,
    /// Which tokens it ever refused.
    pub refused: Vec<Token>,
}

impl Provider {
    pub fn new(rotation: Rotation) -> Self {
        Self { rotation, lines: BTreeMap::new(), next: 1, refused: vec![] }
    }

    /// A user consents: a new family begins.
    pub fn consent(&mut self) -> Token {
        let token = self.issue();
        self.lines.insert(token, Line { issued: vec![(token, None)], revoked: false });
        token
    }

    fn issue(&mut self) -> Token {
        self.next += 1;
        self.next - 1
    }

    pub fn family(&self, token: Token) -> Option<Family> {
        self.lines.iter().find(|(_, line)| line.issued.iter().any(|(t, _)| *t == token)).map(|(f, _)| *f)
    }

    /// Whether a spend of it would be answered with tokens at `now`.
    pub fn is_live(&self, token: Token, now: Duration) -> bool {
        self.family(token).is_some_and(|family| self.accepts(&self.lines[&family], token, now))
    }

    fn accepts(&self, line: &Line, token: Token, now: Duration) -> bool {
        let Some(position) = line.issued.iter().position(|(t, _)| *t == token) else { return false };
        let newest = position + 1 == line.issued.len();
        let spent = line.issued[position].1;
        !line.revoked
            && match self.rotation {
                Rotation::None | Rotation::Overlap => true,
                // The old one stays good until the new one is first used.
                Rotation::Predecessor => line.issued[position + 1..].iter().all(|(_, spent)| spent.is_none()),
                Rotation::Grace { window, successor: Successor::Same } => {
                    let successor_unused = line.issued[position + 1..].iter().all(|(_, spent)| spent.is_none());
                    newest || (successor_unused && spent.is_some_and(|at| now <= at + window))
                }
                Rotation::Grace { window, successor: Successor::New } => spent.is_none_or(|at| now <= at + window),
                Rotation::Strict => newest,
            }
    }

    /// Spends `token` at true time `now`: the refresh token of the reply, or `None` for `invalid_grant`.
    pub fn spend(&mut self, token: Token, now: Duration) -> Option<Token> {
        let family = self.family(token)?;
        let accepted = self.accepts(&self.lines[&family], token, now);
        if !accepted {
            self.refused.push(token);
            if !matches!(self.rotation, Rotation::None | Rotation::Overlap)
                && let Some(line) = self.lines.get_mut(&family)
            {
                line.revoked = true;
            }
            return None;
        }
        let next = match self.rotation {
            Rotation::None => return Some(token),
            Rotation::Grace { successor: Successor::Same, .. } => {
                let issued = &self.lines[&family].issued;
                let newest = issued.last().map(|(t, _)| *t);
                if newest == Some(token) { self.issue() } else { return newest }
            }
            _ => self.issue(),
        };
        if let Some(line) = self.lines.get_mut(&family) {
            for (issued, spent) in &mut line.issued {
                if *issued == token {
                    spent.get_or_insert(now);
                }
            }
            line.issued.push((next, None));
        }
        Some(next)
    }
}
