//! How what is under way ends.

use std::time::Duration;

use tokenkeep_core::{
    Boot,
    ports::Version,
    refresh::{Answer, Beacon, Fault, Held, Input, Listening, Received, Refused, Seen, Written},
};

use super::{Durable, Reached, SpoiltBy, World, renewal, story::brief};
use crate::{instance::Pending, provider::Token, schedule::How};

impl World {
    pub(super) fn progress(&mut self, i: usize, index: usize, how: How) {
        let pending = self.instances[i].pending.remove(index);
        let boot = self.instances[i].now(self.time).boot;
        let down = self.store.down || self.instances[i].cut_off;
        self.tell(|| format!("{i}: {how:?} {}", brief(&pending)));
        let input = match pending {
            Pending::Read => {
                let seen = if down { Err(()) } else { Ok(self.store.seen()) };
                self.instances[i].saw_nothing |= matches!(seen, Ok(Seen::Absent | Seen::Deleted(..)));
                Input::Record(seen)
            }
            Pending::Write { .. } if down => Input::Written(Written::Unavailable),
            Pending::Write { connection, expect } => {
                let skipped = self.setting.spoilt_by == Some(SpoiltBy::IntentSkipped)
                    && connection.attempt.as_ref().is_some_and(|a| a.owner == self.instances[i].id && a.renewal == 0);
                Input::Written(match how {
                    _ if skipped => Written::Committed(Version("never written".into())),
                    How::RequestLost => {
                        self.ghosts.push((connection, expect));
                        Written::Unknown
                    }
                    How::AnswerLost => {
                        self.write(&connection, expect.as_ref());
                        Written::Unknown
                    }
                    _ => self.write(&connection, expect.as_ref()).map_or(Written::Conflict, Written::Committed),
                })
            }
            Pending::Connect if how == How::Failed => {
                Input::Unreachable(Fault::Unreachable { detail: "no route".into() })
            }
            Pending::Connect => Input::Connected,
            Pending::Spend { not_after, .. } if boot >= not_after => Input::Answered(Answer::NotSent),
            Pending::Spend { token, told, .. } => {
                self.send(i, token, &told);
                self.instances[i].pending.push(Pending::Sent { token, sent_at: self.time });
                return;
            }
            Pending::Sent { token, .. } if how == How::AnswerLost => self.cut(i, token),
            Pending::Sent { token, sent_at } => {
                let reply = self.provider.spend(token, self.time);
                self.instances[i].pending.push(Pending::Replied { token, sent_at, reply });
                return;
            }
            Pending::Replied { token, .. } if how == How::AnswerLost => self.cut(i, token),
            Pending::Replied { token, sent_at, reply } => self.deliver(i, token, sent_at, reply),
            Pending::Keep(held) if how == How::Failed => Input::Journaled(held.reply(), Err(())),
            Pending::LateKeep(_) if how == How::Failed => return,
            Pending::Keep(held) => {
                self.kept(i, &held);
                Input::Journaled(held.reply(), Ok(()))
            }
            Pending::LateKeep(held) => return self.kept(i, &held),
            Pending::Share(_) | Pending::Beacon(_) | Pending::Withdraw(_) if how == How::RequestLost => return,
            Pending::Share(held) => return self.share(*held),
            Pending::Beacon(held) => return self.tell_others(i, &held),
            Pending::Withdraw(held) => {
                let floor = held.successor.generation.next();
                return self.cache.iter_mut().for_each(|cache| cache.raise(floor));
            }
            Pending::Seek => Input::Found(self.seek(how)),
            Pending::Timer { timer, .. } => Input::Timer(timer),
        };
        self.feed(i, input);
    }

    pub(super) fn cut(&mut self, i: usize, token: Token) -> Input {
        self.landed(i, token);
        if self.setting.spoilt_by == Some(SpoiltBy::TimeoutReadAsRefusal) {
            return Input::Answered(Answer::Refused(Refused::Grant { code: "timeout".into() }));
        }
        Input::Answered(Answer::Lost { detail: "cut".into() })
    }

    pub(super) fn landed(&mut self, i: usize, token: Token) {
        let owner = self.instances[i].id;
        self.in_flight.retain(|f| !(f.owner == owner && f.token == token));
    }

    pub(super) fn deliver(&mut self, i: usize, token: Token, sent_at: Duration, reply: Option<Token>) -> Input {
        self.landed(i, token);
        let Some(brought) = reply else {
            // What a roll-back brought back was spent by somebody who could not know better.
            self.excepted |= self.rolled_back;
            return Input::Answered(Answer::Refused(Refused::Grant { code: "invalid_grant".into() }));
        };
        let instance = &self.instances[i];
        self.reached.push(Reached {
            owner: instance.id,
            spent: token,
            brought,
            holders: [(instance.id, Durable(false))].into(),
            in_store: false,
            told: None,
        });
        let late = self.time.saturating_sub(sent_at) > self.policy.deadline;
        if late && self.setting.spoilt_by == Some(SpoiltBy::LateReplyDropped) {
            return Input::Answered(Answer::Lost { detail: "too late".into() });
        }
        let wall = instance.now(self.time).wall;
        let reply = Received {
            access: self.access(wall),
            renewal: (brought != token).then(|| renewal(&self.setting, brought)),
            scope: None,
        };
        Input::Answered(Answer::Tokens(Box::new(reply)))
    }

    pub(super) fn share(&mut self, held: Held) {
        if let Some(cache) = &mut self.cache {
            self.reach.shared += u32::from(cache.put(held, self.time));
        }
    }

    /// Whoever is cut off from the bus cannot say anything either; whoever is frozen will not know what was said.
    pub(super) fn tell_others(&mut self, i: usize, held: &Held) {
        if !matches!(self.instances[i].listening, Listening::Since(_)) {
            return;
        }
        let time = self.time;
        for reached in self.replies_with(held) {
            reached.told = Some(time);
        }
        if self.setting.spoilt_by == Some(SpoiltBy::BeaconIgnored) {
            return;
        }
        for other in self.instances.iter_mut().filter(|other| other.runs() && other.listening != Listening::Deaf) {
            other.beacon = Some(Beacon { attempt: held.attempt, at: Boot(time) });
        }
    }

    pub(super) fn seek(&mut self, how: How) -> Result<Option<Box<Held>>, ()> {
        let Some(cache) = &self.cache else { return Ok(None) };
        if cache.down || how == How::Failed {
            return if self.setting.spoilt_by == Some(SpoiltBy::SeekErrorReadAsNone) { Ok(None) } else { Err(()) };
        }
        let found = cache.copy.as_ref().filter(|_| self.setting.spoilt_by != Some(SpoiltBy::CopyNotLookedFor));
        Ok(found.map(|copy| Box::new(copy.held.clone())))
    }
}
