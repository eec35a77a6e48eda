//! OffsetCommit (key 8): the request is taken in its turn, the answer follows when the offsets are durable.
//!
//! A consumer that commits without waiting sends the next request at once: it is taken meanwhile.
//!
//! A commit that changes nothing wrote nothing. A coordinator that was deposed without knowing it would take it too, over
//! an offset that its successor has moved: whether this broker still leads is asked before the answer (R2).

use std::time::Duration;

use drumlin_coordinator::{ErrorCode as Coordinator, GroupRequest, GroupResponse};
use drumlin_wire::ApiKey;
use drumlin_wire::messages::offset_commit_request::OffsetCommitRequest;
use drumlin_wire::messages::offset_commit_response::OffsetCommitResponse;

use super::send;
use crate::dispatch::Cx;
use crate::error_code::ErrorCode;
use crate::groups::fail;
use crate::net::{Answer, Refusal, Reply};

/// How long an answer waits for the store to say that this broker still leads.
const PATIENCE: Duration = Duration::from_secs(5);
/// About what a partition takes until it is answered.
const PARTITION_BYTES: usize = 128;

/// Hands the offsets to the coordinator.
pub async fn take(cx: Cx, request: OffsetCommitRequest) -> Result<Reply, Refusal> {
    let partitions: usize = request
        .topics
        .iter()
        .map(|topic| topic.partitions.len() + 1)
        .sum();
    let sent = send(&cx, GroupRequest::OffsetCommit(request)).await;
    let answer = async move {
        let answer = match sent.answer().await {
            GroupResponse::OffsetCommitUnchanged(response) => confirm(&cx, response).await,
            answer => answer,
        };
        finish(&cx, answer)
    };
    Ok(Reply::Later {
        answer: Box::pin(answer),
        weight: partitions.saturating_mul(PARTITION_BYTES),
    })
}

/// Lets an answer leave if this broker still leads, and turns it into an error else.
async fn confirm(cx: &Cx, response: OffsetCommitResponse) -> GroupResponse {
    let answer = GroupResponse::OffsetCommit(response);
    match cx.broker.confirm_leading(PATIENCE).await {
        Ok(()) => answer,
        Err(ErrorCode::NotLeaderOrFollower) => fail(answer, Coordinator::NotCoordinator),
        Err(_) => fail(answer, Coordinator::CoordinatorNotAvailable),
    }
}

fn finish(cx: &Cx, answer: GroupResponse) -> Result<Answer, Refusal> {
    let GroupResponse::OffsetCommit(response) = answer else {
        let code = Coordinator::UnknownServerError.code();
        return Err(Refusal(format!(
            "a coordinator answered OffsetCommit with something else ({code})"
        )));
    };
    for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
        cx.broker
            .metrics
            .error(ApiKey::OffsetCommit, partition.error_code);
    }
    cx.answer::<OffsetCommitResponse>(&response)
}
