use super::{
    REDIS_PASSWORD, RedisAt, RedisOptions,
    node::{self, Node},
    protocol,
};
use crate::{
    Error, port,
    server::{Folder, Server},
    wait::{self, Asked},
};

/// A primary, a replica and three Sentinels that watch them. Fails over two to three seconds after the primary
/// is gone.
///
/// The Sentinels themselves want no password.
pub struct Sentinel {
    // End before what they watch, so that they do not act on its end.
    sentinels: Vec<Watcher>,
    nodes: [Node; 2],
}

struct Watcher {
    server: Server,
    port: u16,
}

impl Sentinel {
    /// The name the Sentinels know the primary by.
    pub const PRIMARY_NAME: &str = "tokenkeep";

    /// Starts all five; answers when all know of each other and the replica has caught up.
    pub fn start() -> Result<Self, Error> {
        let primary = Node::start("redis", &RedisOptions::default())?;
        let replicates = format!("127.0.0.1 {}", primary.at().port());
        let replica = Node::start("redis", &RedisOptions::default().set("replicaof", &replicates))?;
        replica.until_replicating()?;
        let sentinels = (0..3).map(|_| Watcher::start(primary.at())).collect::<Result<_, _>>()?;
        let trio = Self { sentinels, nodes: [primary, replica] };
        for sentinel in &trio.sentinels {
            sentinel.until_it_knows_everybody()?;
        }
        Ok(trio)
    }

    /// The three Sentinels, `redis://127.0.0.1:PORT/` each.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| format!("redis://127.0.0.1:{}/", sentinel.port)).collect()
    }

    /// Whom the Sentinels call the primary at this moment.
    pub fn primary(&self) -> Result<&RedisAt, Error> {
        Ok(self.nodes[self.primary_index()?].at())
    }

    /// Both Redis servers, whichever is the primary.
    pub fn nodes(&self) -> [&RedisAt; 2] {
        self.nodes.each_ref().map(Node::at)
    }

    /// Kills the primary and waits for nothing; see [`Sentinel::until_failed_over`]. Answers which it was.
    pub fn kill_primary(&self) -> Result<usize, Error> {
        let index = self.primary_index()?;
        self.nodes[index].server().kill();
        Ok(index)
    }

    /// Stops the primary without ending it: it wakes up believing that it still is the primary.
    pub fn pause_primary(&self) -> Result<usize, Error> {
        let index = self.primary_index()?;
        self.nodes[index].server().pause();
        Ok(index)
    }

    /// Waits until another node than `index` is the primary, for all Sentinels, and takes writes.
    pub fn until_failed_over(&self, index: usize) -> Result<(), Error> {
        let other = &self.nodes[1 - index];
        wait::until(wait::PATIENCE, || {
            let agreed = self.sentinels.iter().all(|sentinel| sentinel.primary().is_ok_and(|p| p == other.at().port()));
            match other.ask(&["ROLE"]) {
                Ok(protocol::Reply::Many(role)) if agreed && role[0].text() == "master" => Asked::Done(()),
                Ok(role) => Asked::NotYet(format!("the Sentinels agree: {agreed}; the other node is {role}")),
                Err(why) => Asked::NotYet(why.to_string()),
            }
        })
    }

    /// Wakes up a node that was paused.
    pub fn resume(&self, index: usize) {
        self.nodes[index].server().resume();
    }

    /// Starts a node again, on the same port with the same data.
    pub fn restart(&self, index: usize) -> Result<(), Error> {
        self.nodes[index].restart()
    }

    /// Waits until node `index` follows the other one.
    pub fn until_replicating(&self, index: usize) -> Result<(), Error> {
        self.nodes[index].until_replicating()
    }

    fn primary_index(&self) -> Result<usize, Error> {
        let sentinel = self.sentinels.first().ok_or_else(|| Error::new("there are no Sentinels"))?;
        let port = sentinel.primary()?;
        let index = self.nodes.iter().position(|node| node.at().port() == port);
        index.ok_or_else(|| Error::new(format!("the Sentinels name a stranger on port {port} as the primary")))
    }
}

impl Watcher {
    fn start(primary: &RedisAt) -> Result<Self, Error> {
        port::on_a_free_one(|port| {
            let name = Sentinel::PRIMARY_NAME;
            let folder = Folder::new("sentinel", None)?;
            let settings = [
                ("port", port.to_string()),
                ("bind", "127.0.0.1".to_owned()),
                ("protected-mode", "no".to_owned()),
                ("sentinel monitor", format!("{name} 127.0.0.1 {} 2", primary.port())),
                ("sentinel auth-pass", format!("{name} {REDIS_PASSWORD}")),
                ("sentinel down-after-milliseconds", format!("{name} 2000")),
                ("sentinel failover-timeout", format!("{name} 5000")),
            ];
            let watcher = Self { server: node::server("sentinel", folder, &settings)?, port };
            watcher.start_again()?;
            Ok(watcher)
        })
    }

    /// As configured, it would look about itself every two to ten seconds.
    fn start_again(&self) -> Result<(), Error> {
        self.server.start(|| protocol::ask(self.port, None, &["PING"]).map(drop))?;
        let often = ["SENTINEL", "DEBUG", "INFO-PERIOD", "500", "PUBLISH-PERIOD", "250"];
        // Older than 7.0, it cannot be told to hurry.
        let _ = protocol::ask(self.port, None, &often);
        Ok(())
    }

    fn until_it_knows_everybody(&self) -> Result<(), Error> {
        wait::until(wait::PATIENCE, || {
            match protocol::ask(self.port, None, &["SENTINEL", "MASTER", Sentinel::PRIMARY_NAME]) {
                Ok(known) if known.field("num-slaves") == "1" && known.field("num-other-sentinels") == "2" => {
                    Asked::Done(())
                }
                Ok(known) => Asked::NotYet(format!("a Sentinel knows only: {known}")),
                Err(why) => Asked::NotYet(why.to_string()),
            }
        })
    }

    /// The primary's port.
    fn primary(&self) -> Result<u16, Error> {
        let asked = protocol::ask(self.port, None, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Sentinel::PRIMARY_NAME]);
        let address = asked.map_err(Error::because("a Sentinel does not say who is the primary"))?;
        match address {
            protocol::Reply::Many(address) if address.len() == 2 => {
                address[1].text().parse().map_err(Error::because("a Sentinel names no port"))
            }
            other => Err(Error::new(format!("a Sentinel does not say who is the primary: {other}"))),
        }
    }
}
