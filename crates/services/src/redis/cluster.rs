use std::{ops::Deref, time::Duration};

use serde::{Deserialize, Serialize};

use super::{RedisAt, RedisOptions, node::Node};
use crate::{
    Error, port,
    wait::{self, Asked},
};

/// Redis Cluster's hash slots are shared evenly by the primaries.
const SLOTS: u16 = 16_384;
const PRIMARIES: u16 = 3;
const NODES: usize = 6;

/// Where a Redis Cluster's nodes listen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterAt {
    nodes: Vec<RedisAt>,
}

impl ClusterAt {
    /// All six, `redis://:redis@127.0.0.1:PORT/` each.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisAt::url).collect()
    }

    /// All six.
    pub fn nodes(&self) -> &[RedisAt] {
        &self.nodes
    }
}

/// A Redis Cluster of one's own: three primaries with a replica each. Fails over two to three seconds after a primary
/// is gone.
pub struct Cluster {
    nodes: Vec<Node>,
    at: ClusterAt,
}

impl Cluster {
    /// Starts all six; answers when every node serves and the replicas have caught up.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(Duration::from_secs(2))
    }

    /// One that does not take a machine that is busy for a node that is gone.
    pub(crate) fn start_steady() -> Result<Self, Error> {
        Self::start_with(Duration::from_secs(15))
    }

    fn start_with(node_timeout: Duration) -> Result<Self, Error> {
        let nodes: Vec<Node> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..NODES).map(|_| scope.spawn(|| start_node(node_timeout))).collect();
            let started = starting.into_iter().map(|node| node.join().map_err(|_| Error::new("a thread panicked"))?);
            started.collect::<Result<_, Error>>()
        })?;
        let at = ClusterAt { nodes: nodes.iter().map(|node| node.at().clone()).collect() };
        let cluster = Self { nodes, at };
        cluster.join()?;
        Ok(cluster)
    }

    /// What `redis-cli --cluster create` does: share the slots, introduce everybody, assign the replicas.
    fn join(&self) -> Result<(), Error> {
        let ask = |node: &Node, command: &[&str]| {
            node.ask(command).map_err(Error::because(format!("the cluster cannot be formed: {}", command.join(" "))))
        };
        let (primaries, replicas) = self.nodes.split_at(PRIMARIES.into());
        for ((node, nth), epoch) in primaries.iter().zip(0..).zip(1..) {
            let (first, last) = slots(nth);
            ask(node, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
            ask(node, &["CLUSTER", "SET-CONFIG-EPOCH", &i32::to_string(&epoch)])?;
        }
        for node in &self.nodes[1..] {
            let port = node.at().port().to_string();
            let bus = ask(node, &["CONFIG", "GET", "cluster-port"])?.field("cluster-port").to_owned();
            ask(&self.nodes[0], &["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        }
        for node in &self.nodes {
            until_info(node, "cluster_known_nodes", &NODES.to_string())?;
        }
        for (replica, primary) in replicas.iter().zip(primaries) {
            let id = ask(primary, &["CLUSTER", "MYID"])?;
            ask(replica, &["CLUSTER", "REPLICATE", id.text()])?;
        }
        replicas.iter().try_for_each(Node::until_replicating)?;
        self.until_ok()
    }

    /// Waits until every node that runs says that the cluster serves all slots.
    pub fn until_ok(&self) -> Result<(), Error> {
        let running = self.nodes.iter().filter(|node| node.server().is_running());
        running.into_iter().try_for_each(|node| until_info(node, "cluster_state", "ok"))
    }

    /// Which node is the primary of a hash slot at this moment, in the eyes of the first node that answers.
    pub fn primary_of(&self, slot: u16) -> Result<usize, Error> {
        let nodes = self.nodes.iter().find_map(|node| node.ask(&["CLUSTER", "NODES"]).ok());
        let nodes = nodes.ok_or_else(|| Error::new("no node of the cluster answers"))?;
        let owner = nodes.text().lines().filter(|line| line.contains("master") && !line.contains("fail"));
        let owner = owner.map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| {
            let ranges = fields[8..].iter().filter_map(|range| range.split_once('-').or(Some((range, range))));
            let mut ranges = ranges.filter_map(|(first, last)| Some(first.parse::<u16>().ok()?..=last.parse().ok()?));
            ranges.any(|range| range.contains(&slot))
        });
        let port = owner.as_ref().and_then(|fields| fields[1].split(['@', ':']).nth(1));
        let index = port.and_then(|port| self.nodes.iter().position(|node| node.at().port().to_string() == port));
        index.ok_or_else(|| Error::new(format!("nobody owns slot {slot}: {nodes}")))
    }

    /// Kills the primary of a hash slot and waits for nothing; see [`Cluster::until_failed_over`]. Answers which it was.
    pub fn kill_primary_of(&self, slot: u16) -> Result<usize, Error> {
        let index = self.primary_of(slot)?;
        self.nodes[index].server().kill();
        Ok(index)
    }

    /// Waits until another node than `index` owns the slot, and every node that runs agrees that the cluster serves.
    pub fn until_failed_over(&self, slot: u16, index: usize) -> Result<(), Error> {
        wait::until(wait::PATIENCE, || match self.primary_of(slot) {
            Ok(now) if now != index => Asked::Done(()),
            Ok(now) => Asked::NotYet(format!("slot {slot} is still with node {now}")),
            Err(why) => Asked::NotYet(why.to_string()),
        })?;
        self.until_ok()
    }

    /// Kills one node.
    pub fn kill_node(&self, index: usize) {
        self.nodes[index].server().kill();
    }

    /// Stops one node without ending it.
    pub fn pause_node(&self, index: usize) {
        self.nodes[index].server().pause();
    }

    /// Wakes up a node that was paused.
    pub fn resume_node(&self, index: usize) {
        self.nodes[index].server().resume();
    }

    /// Starts one node again, on the same port with the same data.
    pub fn restart_node(&self, index: usize) -> Result<(), Error> {
        self.nodes[index].restart()
    }

    /// Kills all nodes.
    pub fn kill(&self) {
        self.nodes.iter().for_each(|node| node.server().kill());
    }

    /// Stops all nodes without ending them.
    pub fn pause(&self) {
        self.nodes.iter().for_each(|node| node.server().pause());
    }

    /// Wakes all nodes up.
    pub fn resume(&self) {
        self.nodes.iter().for_each(|node| node.server().resume());
    }

    /// Starts all nodes again, on the same ports with the same data.
    pub fn restart(&self) -> Result<(), Error> {
        self.kill();
        self.nodes.iter().try_for_each(Node::restart)?;
        self.until_ok()
    }
}

impl Deref for Cluster {
    type Target = ClusterAt;

    fn deref(&self) -> &ClusterAt {
        &self.at
    }
}

fn start_node(node_timeout: Duration) -> Result<Node, Error> {
    // The nodes' own bus has a port of its own, by default 10000 above; that one may be taken.
    port::on_a_free_one(|bus| {
        let options = RedisOptions::default()
            .set("cluster-enabled", "yes")
            .set("cluster-port", &bus.to_string())
            .set("cluster-node-timeout", &node_timeout.as_millis().to_string())
            .set("cluster-replica-validity-factor", "0");
        Node::start("redis-cluster", &options)
    })
}

/// The first and the last slot of the nth primary.
fn slots(nth: u16) -> (u16, u16) {
    let from = |nth: u16| u32::from(SLOTS) * u32::from(nth) / u32::from(PRIMARIES);
    let slot = |slot| u16::try_from(slot).expect("at most SLOTS");
    (slot(from(nth)), slot(from(nth + 1) - 1))
}

fn until_info(node: &Node, field: &str, wanted: &str) -> Result<(), Error> {
    wait::until(wait::PATIENCE, || match node.ask(&["CLUSTER", "INFO"]) {
        Ok(info) if info.field(field) == wanted => Asked::Done(()),
        Ok(info) => Asked::NotYet(format!("{field} is not {wanted}: {info}")),
        Err(why) => Asked::NotYet(why.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_are_shared_without_a_gap() {
        assert_eq!([slots(0), slots(1), slots(2)], [(0, 5460), (5461, 10_921), (10_922, 16_383)]);
    }
}
