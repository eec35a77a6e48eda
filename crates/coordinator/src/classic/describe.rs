//! DescribeGroups and ListGroups, for classic groups; and their end.

use drumlin_wire::Str;
use drumlin_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use drumlin_wire::messages::list_groups_response::ListedGroup;

use super::group::{ClassicGroup, State};
use crate::ErrorCode;
use crate::context::{Cx, Timer};

impl ClassicGroup {
    /// The group and its members.
    pub fn describe(&self) -> DescribedGroup {
        // Before members have a generation there is no protocol that their metadata could be of.
        let protocol = match self.state {
            State::Stable => self.protocol.clone(),
            _ => None,
        };
        let members = self.members.values().map(|member| DescribedGroupMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            member_metadata: protocol
                .as_ref()
                .and_then(|name| member.metadata(name))
                .cloned()
                .unwrap_or_default(),
            member_assignment: member.assignment.clone(),
            ..DescribedGroupMember::default()
        });
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: Str::from_static(self.state.name()),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol_data: protocol.unwrap_or_default(),
            ..DescribedGroup::default()
        }
    }

    /// Its line in a list.
    pub fn list(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            group_state: Str::from_static(self.state.name()),
            group_type: Str::from_static("classic"),
            ..ListedGroup::default()
        }
    }

    /// Whether its offsets may be deleted one by one. Those of consumers are guarded by their subscription.
    pub fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        if self.state == State::Empty || self.is_of_consumers() {
            Ok(())
        } else {
            Err(ErrorCode::NonEmptyGroup)
        }
    }

    /// Whether it may be deleted.
    pub fn check_delete(&self) -> Result<(), ErrorCode> {
        match self.state {
            State::Empty => Ok(()),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                Err(ErrorCode::NonEmptyGroup)
            }
        }
    }

    /// Takes all its timers away: it is about to be no more.
    pub fn cancel_timers(&self, cx: &mut Cx<'_>) {
        cx.timers.cancel(&Timer::Join(self.id.clone()));
        cx.timers.cancel(&Timer::Sync(self.id.clone()));
        for id in self.members.keys().chain(self.pending.iter()) {
            cx.timers.cancel(&Timer::Session(self.id.clone(), id.clone()));
        }
    }

    /// Starts the sessions of a group that was loaded, and rebalances it if it is too large now.
    pub fn loaded(&mut self, cx: &mut Cx<'_>) {
        self.held.count_in(cx.memory);
        for id in self.members.keys() {
            self.touch(id, cx);
        }
        let max = usize::try_from(cx.config.max_size).unwrap_or(0);
        if self.members.len() > max {
            self.prepare_rebalance(cx);
        }
    }
}
