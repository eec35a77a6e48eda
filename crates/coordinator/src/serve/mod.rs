//! Requests: which group they are for, what of them can be told without it, and what a group that is not
//! there means to each.
//!
//! The checks that Kafka makes before a request comes to a group are here too (`GroupCoordinatorService`,
//! and what `KafkaApis` asks of the metadata).

mod consumer;

use drumlin_wire::Str;
use drumlin_wire::messages::delete_groups_response::DeletableGroupResult;
use drumlin_wire::messages::describe_groups_response as classic_describe;
use drumlin_wire::messages::heartbeat_request::HeartbeatRequest;
use drumlin_wire::messages::heartbeat_response::HeartbeatResponse;
use drumlin_wire::messages::join_group_request::JoinGroupRequest;
use drumlin_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use drumlin_wire::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};
use drumlin_wire::messages::list_groups_request::ListGroupsRequest;
use drumlin_wire::messages::list_groups_response::ListGroupsResponse;
use drumlin_wire::messages::offset_commit_request::OffsetCommitRequest;
use drumlin_wire::messages::offset_delete_request::OffsetDeleteRequest;
use drumlin_wire::messages::offset_delete_response::OffsetDeleteResponse;
use drumlin_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use drumlin_wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use drumlin_wire::messages::sync_group_request::SyncGroupRequest;

use crate::classic::{ClassicGroup, Join, join_failed, sync_failed};
use crate::consumer::CommitFence;
use crate::group::Group;
use crate::offsets::{Admitted, deletable};
use crate::{Caller, ErrorCode, GroupRequest, GroupResponse, Now, Record, Shard, Step, Topics, keys};
pub(crate) use consumer::{end_consumer, with_consumer};

/// From this version of OffsetCommit on, a group that is not there has an error of its own.
const COMMIT_NOT_FOUND_FROM: i16 = 9;
/// From this version of LeaveGroup on there are members in it; before, one member id.
const LEAVE_MEMBERS_FROM: i16 = 3;
/// From this version of DescribeGroups on, a group that is not there is an error; before, it is "Dead".
const DESCRIBE_NOT_FOUND_FROM: i16 = 6;
/// Protocols, which are a client's assignors, that one JoinGroup may name: far more than anybody has, and few
/// enough to compare them all.
const MAX_PROTOCOLS: usize = 100;

/// The one member that an old LeaveGroup names, whoever that is, as the only one of a newer.
fn one_of_many(mut request: GroupRequest, version: i16) -> GroupRequest {
    if let GroupRequest::LeaveGroup(leave) = &mut request
        && version < LEAVE_MEMBERS_FROM
        && leave.members.is_empty()
    {
        leave.members.push(MemberIdentity {
            member_id: std::mem::take(&mut leave.member_id),
            ..MemberIdentity::default()
        });
    }
    request
}

impl Shard {
    /// Serves one request. The answer may come in a later step.
    pub fn request(
        &mut self,
        now: Now,
        topics: &dyn Topics,
        token: u64,
        caller: &Caller,
        request: GroupRequest,
    ) -> Step {
        let mut step = Step::default();
        if let Some(error) = self.refusal().or_else(|| self.flaw(&request)) {
            step.reply_now(token, request.failed(error));
            return step;
        }
        let fitted;
        let caller = if caller.client_id.len().max(caller.client_host.len()) > keys::MAX_STRING {
            fitted = Caller {
                client_id: keys::fitting(&caller.client_id),
                client_host: keys::fitting(&caller.client_host),
                api_version: caller.api_version,
            };
            &fitted
        } else {
            caller
        };
        let version = caller.api_version;
        let request = one_of_many(request, version);
        // Groups of both protocols take the requests of classic members.
        let classic = !matches!(
            request.group_id().and_then(|id| self.groups.get(id)),
            Some(Group::Consumer(_))
        );
        match request {
            GroupRequest::JoinGroup(request) if classic => {
                self.join(now, token, caller, &request, &mut step);
            }
            GroupRequest::SyncGroup(request) if classic => self.sync(now, token, &request, &mut step),
            GroupRequest::Heartbeat(request) if classic => {
                self.heartbeat(now, token, &request, &mut step);
            }
            GroupRequest::LeaveGroup(request) if classic => {
                self.leave(now, token, version, request, &mut step);
            }
            GroupRequest::OffsetCommit(request) => {
                self.commit(now, topics, token, version, &request, &mut step);
            }
            GroupRequest::OffsetFetch { group, .. } => {
                let body = GroupResponse::OffsetFetch(self.fetch(topics, version, &group));
                step.reply(token, body);
            }
            GroupRequest::OffsetDelete(request) => self.offset_delete(topics, token, &request, &mut step),
            GroupRequest::DescribeGroup { group_id } => {
                step.reply(token, self.describe(version, &group_id));
            }
            GroupRequest::ListGroups(request) => step.reply(token, self.list(&request)),
            GroupRequest::DeleteGroup { group_id } => self.delete(now, token, group_id, &mut step),
            request => self.serve_consumer(now, topics, token, caller, request, &mut step),
        }
        self.time_expiry(now);
        step
    }

    /// What is wrong with a request, whatever the group.
    fn flaw(&self, request: &GroupRequest) -> Option<ErrorCode> {
        let group_id = request.group_id();
        // A group id may be empty where offsets are concerned, and to look at or delete such a group.
        let needs_id = matches!(
            request,
            GroupRequest::JoinGroup(_)
                | GroupRequest::SyncGroup(_)
                | GroupRequest::Heartbeat(_)
                | GroupRequest::LeaveGroup(_)
                | GroupRequest::OffsetDelete(_)
                | GroupRequest::ConsumerGroupDescribe { .. }
        );
        if group_id.is_some_and(|id| id.is_empty() && needs_id || id.len() > keys::MAX_STRING) {
            return Some(ErrorCode::InvalidGroupId);
        }
        match request {
            GroupRequest::JoinGroup(join) => {
                let bounds = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
                if !bounds.contains(&join.session_timeout_ms) {
                    return Some(ErrorCode::InvalidSessionTimeout);
                }
                if join.protocols.len() > MAX_PROTOCOLS {
                    return Some(ErrorCode::InvalidRequest);
                }
                // What goes into a record has to fit there. The member id comes from here, or is unknown.
                let mut stored = join.protocols.iter().map(|p| &p.name);
                let long = |text: &Str| text.len() > keys::MAX_STRING;
                let flawed = long(&join.protocol_type)
                    || stored.any(long)
                    || join.group_instance_id.as_ref().is_some_and(long);
                flawed.then_some(ErrorCode::InvalidRequest)
            }
            GroupRequest::ConsumerGroupHeartbeat(beat) => {
                let names = beat.subscribed_topic_names.iter().flatten();
                let options = [&beat.instance_id, &beat.rack_id, &beat.subscribed_topic_regex];
                let mut stored = names
                    .chain(options.into_iter().flatten())
                    .chain(&beat.server_assignor);
                let flawed = stored.any(|text| text.len() > keys::MAX_STRING);
                flawed.then_some(ErrorCode::InvalidRequest)
            }
            _ => None,
        }
    }

    fn join(&mut self, now: Now, token: u64, caller: &Caller, request: &JoinGroupRequest, step: &mut Step) {
        let join = Join {
            token,
            caller,
            request,
        };
        let (groups, mut cx) = self.parts(now, step);
        match groups.get_mut(&request.group_id) {
            Some(Group::Classic(group)) => group.join(&join, &mut cx),
            Some(Group::Consumer(_)) => {}
            None if !request.member_id.is_empty() => {
                let error = join_failed(ErrorCode::UnknownMemberId, request.member_id.clone());
                cx.step.reply_now(token, error);
            }
            None => {
                self.join_new_group(now, &join, Vec::new(), step);
            }
        }
    }

    /// The first member makes the group, unless it is refused; what was here before ends with these records.
    fn join_new_group(&mut self, now: Now, join: &Join<'_>, ending: Vec<Record>, step: &mut Step) {
        let id = &join.request.group_id;
        let mut group = ClassicGroup::new(id, Some(now.wall_ms));
        let (groups, mut cx) = self.parts(now, step);
        group.join(join, &mut cx);
        if group.is_abandoned() {
            return;
        }
        cx.step.records.extend(ending);
        group.announce(&mut cx.step.records);
        end_consumer(id, &mut cx);
        groups.insert(id.detach(), Group::Classic(group));
    }

    fn sync(&mut self, now: Now, token: u64, request: &SyncGroupRequest, step: &mut Step) {
        let (groups, mut cx) = self.parts(now, step);
        match groups.get_mut(&request.group_id) {
            Some(Group::Classic(group)) => group.sync(token, request, &mut cx),
            _ => cx.step.reply_now(token, sync_failed(ErrorCode::UnknownMemberId)),
        }
    }

    fn heartbeat(&mut self, now: Now, token: u64, request: &HeartbeatRequest, step: &mut Step) {
        let (groups, mut cx) = self.parts(now, step);
        let error = match groups.get_mut(&request.group_id) {
            Some(Group::Classic(group)) => group.heartbeat(request, &mut cx),
            _ => ErrorCode::UnknownMemberId,
        };
        let body = HeartbeatResponse {
            error_code: error.code(),
            ..HeartbeatResponse::default()
        };
        step.reply_now(token, GroupResponse::Heartbeat(body));
    }

    fn leave(&mut self, now: Now, token: u64, version: i16, request: LeaveGroupRequest, step: &mut Step) {
        let members = request.members;
        let (groups, mut cx) = self.parts(now, step);
        let codes = match groups.get_mut(&request.group_id) {
            Some(Group::Classic(group)) => group.leave(&members, &mut cx),
            _ => vec![ErrorCode::UnknownMemberId; members.len()],
        };
        let mut body = LeaveGroupResponse::default();
        if version < LEAVE_MEMBERS_FROM {
            let error = codes.into_iter().find(|code| *code != ErrorCode::None);
            body.error_code = error.unwrap_or(ErrorCode::None).code();
        } else {
            let answered = members
                .into_iter()
                .zip(codes)
                .map(|(member, code)| MemberResponse {
                    member_id: member.member_id,
                    group_instance_id: member.group_instance_id,
                    error_code: code.code(),
                    ..MemberResponse::default()
                });
            body.members = answered.collect();
        }
        step.reply(token, GroupResponse::LeaveGroup(body));
    }

    fn commit(
        &mut self,
        now: Now,
        topics: &dyn Topics,
        token: u64,
        version: i16,
        request: &OffsetCommitRequest,
        step: &mut Step,
    ) {
        let mut admitted = Admitted::new(request, version, topics);
        if admitted.is_empty() {
            return step.reply_now(token, GroupResponse::OffsetCommit(admitted.answer()));
        }
        if let Err(error) = self.check_commit(now, version, request, &admitted, step) {
            return step.reply_now(token, GroupResponse::OffsetCommit(admitted.refuse(error)));
        }
        admitted.limit_metadata(&self.config);
        if !admitted.is_empty() {
            let id = &request.group_id;
            if !self.groups.contains_key(id) {
                let simple = ClassicGroup::new(id, Some(now.wall_ms));
                self.groups.insert(id.detach(), Group::Classic(simple));
            }
            let retention = self.config.offsets_retention_ms;
            let before = step.records.len();
            let committed = admitted.commit(
                request,
                now.wall_ms,
                retention,
                &mut self.offsets,
                &mut step.records,
            );
            self.counters.commits += committed as u64;
            if step.records.len() == before {
                return step.reply(token, GroupResponse::OffsetCommitUnchanged(admitted.answer()));
            }
        }
        step.reply(token, GroupResponse::OffsetCommit(admitted.answer()));
    }

    fn check_commit(
        &mut self,
        now: Now,
        version: i16,
        request: &OffsetCommitRequest,
        admitted: &Admitted<'_>,
        step: &mut Step,
    ) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        let instance = request.group_instance_id.as_ref();
        let (groups, mut cx) = self.parts(now, step);
        match groups.get_mut(&request.group_id) {
            Some(Group::Classic(group)) => {
                group.check_commit(&request.member_id, instance, generation, &mut cx)
            }
            Some(Group::Consumer(group)) => group
                .validate_commit(
                    &request.member_id,
                    instance.map(Str::as_str),
                    generation,
                    false,
                    version,
                )
                .and_then(|fence: CommitFence<'_>| {
                    let mut partitions = admitted.partitions();
                    partitions.try_for_each(|(id, partition)| fence.check(id, partition))
                })
                .map_err(|error| error.code),
            // Somebody without a group's membership: the group is but a name.
            None if generation < 0 => Ok(()),
            None if version >= COMMIT_NOT_FOUND_FROM => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        }
    }

    fn fetch(
        &mut self,
        topics: &dyn Topics,
        version: i16,
        request: &OffsetFetchRequestGroup,
    ) -> OffsetFetchResponseGroup {
        let known = match self.groups.get(&request.group_id) {
            None => false,
            Some(Group::Classic(_)) => true,
            Some(Group::Consumer(group)) => {
                let member = request.member_id.as_ref().map(Str::as_str);
                if let Err(error) = group.validate_fetch(member, request.member_epoch) {
                    return OffsetFetchResponseGroup {
                        group_id: request.group_id.clone(),
                        error_code: error.code.code(),
                        ..OffsetFetchResponseGroup::default()
                    };
                }
                true
            }
        };
        self.offsets.fetch(request, version, known, topics)
    }

    fn offset_delete(
        &mut self,
        topics: &dyn Topics,
        token: u64,
        request: &OffsetDeleteRequest,
        step: &mut Step,
    ) {
        let id = &request.group_id;
        let group = self.groups.get(id).ok_or(ErrorCode::GroupIdNotFound);
        let group = group.and_then(|group| group.check_offset_delete().map(|()| group));
        let body = match group {
            Err(error) => OffsetDeleteResponse {
                error_code: error.code(),
                ..OffsetDeleteResponse::default()
            },
            Ok(group) => deletable(request, topics, |topic, partition| {
                if group.subscribes(topic) {
                    return ErrorCode::GroupSubscribedToTopic;
                }
                if self.offsets.delete(id, topic, partition, &mut step.records) {
                    self.counters.deletions += 1;
                }
                ErrorCode::None
            }),
        };
        step.reply(token, GroupResponse::OffsetDelete(body));
    }

    fn describe(&self, version: i16, id: &Str) -> GroupResponse {
        let missing = match self.groups.get(id) {
            Some(Group::Classic(group)) => return GroupResponse::DescribeGroup(group.describe()),
            Some(Group::Consumer(_)) => format!("Group {id} is not a classic group."),
            None => format!("Group {id} not found."),
        };
        let mut body = classic_describe::DescribedGroup {
            group_id: id.clone(),
            group_state: Str::from_static("Dead"),
            ..classic_describe::DescribedGroup::default()
        };
        if version >= DESCRIBE_NOT_FOUND_FROM {
            body.error_code = ErrorCode::GroupIdNotFound.code();
            body.error_message = Some(Str::from(missing));
        }
        GroupResponse::DescribeGroup(body)
    }

    fn list(&self, request: &ListGroupsRequest) -> GroupResponse {
        let wanted = |filter: &[Str], value: &str| {
            filter.is_empty() || filter.iter().any(|f| f.trim().eq_ignore_ascii_case(value))
        };
        let groups = self.groups.values().map(Group::list).filter(|group| {
            wanted(&request.states_filter, &group.group_state)
                && wanted(&request.types_filter, &group.group_type)
        });
        GroupResponse::ListGroups(ListGroupsResponse {
            groups: groups.collect(),
            ..ListGroupsResponse::default()
        })
    }

    fn delete(&mut self, now: Now, token: u64, group_id: Str, step: &mut Step) {
        let group = self.groups.get(&group_id).ok_or(ErrorCode::GroupIdNotFound);
        let deletable = group.and_then(|group| group.check_delete().map(|()| group.tombstones()));
        let error = match deletable {
            Err(error) => error,
            Ok(mut tombstones) => {
                let deleted = self.offsets.delete_group(&group_id, &mut step.records);
                self.counters.deletions += deleted as u64;
                step.records.append(&mut tombstones);
                self.forget(&group_id, now, step);
                ErrorCode::None
            }
        };
        let body = DeletableGroupResult {
            group_id,
            error_code: error.code(),
            ..DeletableGroupResult::default()
        };
        step.reply(token, GroupResponse::DeleteGroup(body));
    }
}
