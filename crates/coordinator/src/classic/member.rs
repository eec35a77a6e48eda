//! One member of a classic group.

use bytes::Bytes;
use drumlin_wire::Str;
use drumlin_wire::messages::join_group_request::JoinGroupRequestProtocol;

use crate::keys;

/// A protocol that a member supports: an assignor, and what the member tells its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub name: Str,
    pub metadata: Bytes,
}

impl Protocol {
    /// The protocols of a request, each name once, on memory of their own.
    pub fn list(requested: &[JoinGroupRequestProtocol]) -> Vec<Protocol> {
        let mut list: Vec<Protocol> = Vec::with_capacity(requested.len());
        for protocol in requested {
            if list.iter().all(|known| known.name != protocol.name) {
                list.push(Protocol {
                    name: keys::fitting(&protocol.name),
                    metadata: Bytes::copy_from_slice(&protocol.metadata),
                });
            }
        }
        list
    }
}

/// A member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub id: Str,
    /// The id of a static member (KIP-345).
    pub instance: Option<Str>,
    pub client_id: Str,
    pub client_host: Str,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In the order that it prefers them.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// The JoinGroup that waits for an answer.
    pub joining: Option<u64>,
    /// The SyncGroup that waits for an answer.
    pub syncing: Option<u64>,
    /// It has never been in a generation: then waiting is not enough to keep it for ever.
    pub is_new: bool,
}

/// What a member takes beside what it says of itself.
const FIXED: usize = 256;
/// What a protocol takes beside its bytes.
const FIXED_PROTOCOL: usize = 64;

/// The bytes of the protocols of a request.
pub(crate) fn protocols_size(requested: &[JoinGroupRequestProtocol]) -> usize {
    let sizes = requested
        .iter()
        .map(|p| p.name.len() + p.metadata.len() + FIXED_PROTOCOL);
    sizes.sum()
}

impl Member {
    /// The bytes that it holds, about.
    pub fn size(&self) -> usize {
        let protocols = self.protocols.iter();
        let protocols: usize = protocols
            .map(|p| p.name.len() + p.metadata.len() + FIXED_PROTOCOL)
            .sum();
        self.fixed_size() + protocols + self.assignment.len()
    }

    /// What it takes in its group's record, about, with this assignment.
    pub fn stored_size(&self, protocol: &str, assignment: &[u8]) -> usize {
        self.fixed_size() + self.metadata(protocol).map_or(0, Bytes::len) + assignment.len()
    }

    fn fixed_size(&self) -> usize {
        FIXED + self.instance.as_ref().map_or(0, |i| i.len()) + self.client_id.len() + self.client_host.len()
    }

    /// What it says under this protocol.
    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols
            .iter()
            .find(|p| p.name == protocol)
            .map(|p| &p.metadata)
    }

    /// Whether it need not send heartbeats, since a request of its own waits for the others.
    pub fn waits(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }

    /// Whether a request names the same protocols with the same metadata, in the same order.
    pub fn matches(&self, requested: &[JoinGroupRequestProtocol]) -> bool {
        self.protocols.len() == requested.len()
            && self
                .protocols
                .iter()
                .zip(requested)
                .all(|(have, asked)| have.name == asked.name && have.metadata == asked.metadata)
    }
}
