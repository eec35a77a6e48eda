//! A member by KIP-848: heartbeats that say what is owned and bring what shall be.

use std::time::Duration;

use anyhow::{Context, bail};
use drumlin_tests::client::Connection;
use drumlin_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use drumlin_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use drumlin_wire::{Str, Uuid};

use super::{AGAIN, Beat, FENCED_MEMBER_EPOCH, Group, PASSING, STALE_MEMBER_EPOCH, UNKNOWN_MEMBER_ID};

const VERSION: i16 = 1;
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
/// The epoch that leaves.
const LEAVE: i32 = -1;

/// Where one member stands.
pub(super) struct Consumer {
    pub(super) id: Str,
    pub(super) epoch: i32,
    owned: Vec<i32>,
    topic: Uuid,
    /// What is owned has changed, and the broker does not know yet.
    unsaid: bool,
}

impl Consumer {
    /// `at` makes the member's id, which is the client's to choose.
    pub(super) fn new(at: usize) -> Consumer {
        let text = format!("bench-member-{}-{at}", std::process::id());
        Consumer {
            id: text.into(),
            epoch: 0,
            owned: Vec::new(),
            topic: Uuid::default(),
            unsaid: false,
        }
    }

    /// Says that it is there, with all that the first heartbeat must hold.
    pub(super) fn join(&mut self, connection: &mut Connection, group: &Group) -> anyhow::Result<Beat> {
        loop {
            self.epoch = 0;
            self.owned.clear();
            let request = ConsumerGroupHeartbeatRequest {
                rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
                subscribed_topic_names: Some(vec![group.topic.as_str().into()]),
                topic_partitions: Some(Vec::new()),
                ..self.request(group)
            };
            let answer = connection.call(&request, VERSION)?;
            match answer.error_code {
                0 => return self.take(answer),
                code if PASSING.contains(&code) => std::thread::sleep(AGAIN),
                code => bail!("ConsumerGroupHeartbeat: error {code}: {:?}", answer.error_message),
            }
        }
    }

    /// What has changed is said at once, and only once.
    pub(super) fn heartbeat(&mut self, connection: &mut Connection, group: &Group) -> anyhow::Result<Beat> {
        let owned = TopicPartitions {
            topic_id: self.topic,
            partitions: self.owned.clone(),
            ..Default::default()
        };
        let request = ConsumerGroupHeartbeatRequest {
            topic_partitions: match (self.unsaid, self.owned.is_empty()) {
                (false, _) => None,
                (true, true) => Some(Vec::new()),
                (true, false) => Some(vec![owned]),
            },
            rebalance_timeout_ms: if self.unsaid { REBALANCE_TIMEOUT_MS } else { -1 },
            ..self.request(group)
        };
        let answer = connection.call(&request, VERSION)?;
        match answer.error_code {
            0 => {
                self.unsaid = false;
                self.take(answer)
            }
            UNKNOWN_MEMBER_ID | FENCED_MEMBER_EPOCH | STALE_MEMBER_EPOCH => Ok(Beat::Rejoin),
            code if PASSING.contains(&code) => Ok(Beat::Fine(Some(AGAIN))),
            code => bail!("ConsumerGroupHeartbeat: error {code}: {:?}", answer.error_message),
        }
    }

    pub(super) fn leave(&mut self, connection: &mut Connection, group: &Group) -> anyhow::Result<()> {
        self.epoch = LEAVE;
        let request = self.request(group);
        connection.call(&request, VERSION).map(drop)
    }

    fn request(&self, group: &Group) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group_id: group.name.as_str().into(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: -1,
            ..Default::default()
        }
    }

    fn take(&mut self, answer: ConsumerGroupHeartbeatResponse) -> anyhow::Result<Beat> {
        self.epoch = answer.member_epoch;
        let Some(assignment) = answer.assignment else {
            let interval = u64::try_from(answer.heartbeat_interval_ms).context("an interval")?;
            return Ok(Beat::Fine(Some(Duration::from_millis(interval))));
        };
        self.owned.clear();
        for topic in assignment.topic_partitions {
            self.topic = topic.topic_id;
            self.owned.extend(topic.partitions);
        }
        self.unsaid = true;
        Ok(Beat::Assigned(self.owned.clone()))
    }
}
