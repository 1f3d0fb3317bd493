//! What users do.

use tokenkeep_core::{
    AccessToken, Incarnation,
    change::{self, NewRenewal, NewTokens},
    time::after,
};

use super::{LIFE, World, renewal};
use crate::store::Content;

impl World {
    pub(super) fn consent(&mut self) {
        let token = self.provider.consent();
        self.tell(|| format!("consent brings token {token}"));
        let renewal = NewRenewal::Replace(renewal(&self.setting, token));
        if self.change(renewal) {
            self.consented = Some(token);
        }
    }

    pub(super) fn put_access_only(&mut self) {
        if matches!(self.store.content(), Content::Live(_)) {
            self.change(NewRenewal::Keep);
        }
    }

    pub(super) fn change(&mut self, renewal: NewRenewal) -> bool {
        let now = self.instances.first().map(|i| i.now(self.time)).expect("there are instances");
        let new = NewTokens { access: Some(self.access(now.wall)), renewal, scope: None, display_name: None };
        let fresh = Incarnation(self.ulid());
        match change::replace(&self.id, &self.store.seen(), new, fresh, false, now.wall) {
            Ok(connection) => {
                self.store.change(Content::Live(Box::new(connection)));
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn delete(&mut self) {
        if let Content::Live(connection) = self.store.content() {
            let deleted = change::delete(connection);
            self.store.change(Content::Tombstone(deleted));
            self.consented = None;
        }
    }

    pub(super) fn access(&self, wall: jiff::Timestamp) -> AccessToken {
        AccessToken {
            token: format!("access at {:?}", self.time).into(),
            token_type: "Bearer".into(),
            issued_at: wall,
            expires_at: Some(after(wall, LIFE)),
        }
    }
}
