//! A store of one record that is linearizable until it is told to roll back.

use tokenkeep_core::{Connection, Deleted, ports::Version, refresh::Seen};

#[derive(Clone, Debug)]
pub enum Content {
    Nothing,
    Tombstone(Deleted),
    Live(Box<Connection>),
}

#[derive(Debug)]
pub struct Store {
    /// Every state since the user last changed something, the present one last.
    history: Vec<(Content, u64)>,
    next_version: u64,
    pub down: bool,
    /// A seeded fault.
    pub generation_alone: bool,
}

impl Store {
    pub fn new() -> Self {
        Self { history: vec![(Content::Nothing, 0)], next_version: 1, down: false, generation_alone: false }
    }

    pub fn content(&self) -> &Content {
        &self.present().0
    }

    fn present(&self) -> &(Content, u64) {
        self.history.last().expect("never empty")
    }

    pub fn seen(&self) -> Seen {
        let (content, version) = self.present();
        let version = Version(version.to_string());
        match content {
            Content::Nothing => Seen::Absent,
            Content::Tombstone(deleted) => Seen::Deleted(*deleted, version),
            Content::Live(connection) => Seen::Live(connection.clone(), version),
        }
    }

    /// Compare-and-swap; `None` = nothing or a tombstone must be there.
    pub fn put(&mut self, connection: &Connection, expect: Option<&Version>) -> Option<Version> {
        let (content, version) = self.present();
        let matches = match (content, expect) {
            (Content::Nothing | Content::Tombstone(_), None) => true,
            (Content::Live(present), Some(expected)) => {
                version.to_string() == expected.0
                    || (self.generation_alone && within_one(present.generation.0, connection.generation.0))
            }
            _ => false,
        };
        matches.then(|| self.write(Content::Live(Box::new(connection.clone()))))
    }

    fn write(&mut self, content: Content) -> Version {
        self.history.push((content, self.next_version));
        self.next_version += 1;
        Version((self.next_version - 1).to_string())
    }

    /// A user's change: nothing before it can come back.
    pub fn change(&mut self, content: Content) {
        self.write(content);
        let present = self.history.pop().expect("just written");
        self.history = vec![present];
    }

    pub fn can_roll_back(&self) -> bool {
        self.history.len() > 1
    }

    pub fn roll_back(&mut self, by: usize) {
        let keep = self.history.len().saturating_sub(by).max(1);
        self.history.truncate(keep);
        // A fail-over does not hand out an old version again.
        let content = self.content().clone();
        let version = self.next_version;
        self.next_version += 1;
        *self.history.last_mut().expect("never empty") = (content, version);
    }
}

fn within_one(present: u64, written: u64) -> bool {
    written == present || written == present + 1
}
