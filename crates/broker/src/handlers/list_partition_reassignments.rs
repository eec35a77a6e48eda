//! ListPartitionReassignments (key 46): the object store replicates, so partitions never move between replicas.

use drumlin_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use drumlin_wire::messages::list_partition_reassignments_response::ListPartitionReassignmentsResponse;

use crate::dispatch::Cx;

/// Answers that nothing is under way. Kafka leaves topics that it does not know out, too.
pub async fn handle(
    _cx: &Cx,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse {
        error_message: None,
        ..Default::default()
    }
}
