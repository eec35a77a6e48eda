//! Which commits and fetches of offsets a consumer group lets through.

use drumlin_wire::Uuid;

use super::GroupError;
use super::assignment::epoch_of;
use super::group::ConsumerGroup;
use super::member::{LEAVE_EPOCH, Member};
use crate::ErrorCode;

/// Members of the consumer protocol commit with epochs, which older versions of OffsetCommit do not have.
const EPOCHS_FROM: i16 = 9;

/// What a commit may write, partition by partition.
#[derive(Debug, Clone, Copy)]
pub struct CommitFence<'a> {
    /// The member and the epoch it came with, if that is not its present one.
    late: Option<(&'a Member, i32)>,
}

impl CommitFence<'_> {
    /// A member that comes with an epoch of before may still commit what it had at that epoch and has not
    /// been given anew since (KIP-1251): it may have polled before it heard of the new epoch.
    pub fn check(&self, topic: Uuid, partition: i32) -> Result<(), GroupError> {
        let Some((member, received)) = self.late else {
            return Ok(());
        };
        let current = &member.current;
        let since = epoch_of(&current.assigned, topic, partition)
            .or_else(|| epoch_of(&current.revoking, topic, partition));
        match since {
            Some(since) if received >= since => Ok(()),
            Some(since) => Err(stale(
                member,
                format!(
                    "Received member epoch {received} is older than assignment epoch {since} for partition \
                     {topic}-{partition}."
                ),
            )),
            None => Err(stale(
                member,
                format!("Partition {topic}-{partition} is not assigned or pending revocation for member."),
            )),
        }
    }
}

/// A stale epoch is a stale generation to a member that speaks the classic protocol.
fn stale(member: &Member, message: String) -> GroupError {
    let code = match member.is_classic() {
        true => ErrorCode::IllegalGeneration,
        false => ErrorCode::StaleMemberEpoch,
    };
    GroupError::new(code, message)
}

impl ConsumerGroup {
    /// Whether a commit may go on: `epoch` is the member epoch or generation, negative from an
    /// administrator, who may commit while nobody is in the group, or from a transaction without group
    /// metadata.
    pub fn validate_commit(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        epoch: i32,
        is_transactional: bool,
        api_version: i16,
    ) -> Result<CommitFence<'_>, GroupError> {
        let all = CommitFence { late: None };
        if epoch < 0 && self.is_empty() {
            return Ok(all);
        }
        if is_transactional && epoch == LEAVE_EPOCH && member_id.is_empty() && instance_id.is_none() {
            return Ok(all);
        }
        let member = self
            .member(member_id)
            .ok_or_else(|| self.unknown_member(member_id))?;
        if !is_transactional && !member.is_classic() && api_version < EPOCHS_FROM {
            return Err(GroupError::new(
                ErrorCode::UnsupportedVersion,
                format!(
                    "OffsetCommit version {EPOCHS_FROM} or above must be used by members using the consumer \
                     group protocol"
                ),
            ));
        }
        let current = member.current.epoch;
        if epoch > current {
            return Err(stale(
                member,
                format!("Received member epoch {epoch} is newer than current member epoch {current}."),
            ));
        }
        Ok(CommitFence {
            late: (epoch < current).then_some((member, epoch)),
        })
    }

    /// Whether a fetch may be answered: with no member and no epoch it is anybody's.
    pub fn validate_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        let Some(member_id) = member_id else {
            return match epoch < 0 {
                true => Ok(()),
                false => Err(self.unknown_member("")),
            };
        };
        let member = self
            .member(member_id)
            .ok_or_else(|| self.unknown_member(member_id))?;
        let current = member.current.epoch;
        if epoch != current {
            return Err(stale(
                member,
                format!(
                    "The received member epoch {epoch} does not match the expected member epoch {current}."
                ),
            ));
        }
        Ok(())
    }
}
