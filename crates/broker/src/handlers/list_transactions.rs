//! ListTransactions (key 66): there are no transactions, and the filters are checked all the same.

use drumlin_coordinator::consumer::regex;
use drumlin_wire::ApiKey;
use drumlin_wire::messages::list_transactions_request::ListTransactionsRequest;
use drumlin_wire::messages::list_transactions_response::ListTransactionsResponse;

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// States of a transaction that a client may ask for, as Kafka names them (`TransactionState`).
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

/// Answers with an empty list, and with the states that nobody knows.
pub async fn handle(cx: &Cx, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let pattern = request.transactional_id_pattern.as_ref();
    if pattern.is_some_and(|pattern| !pattern.is_empty() && regex::compile(pattern).is_err()) {
        return ListTransactionsResponse {
            error_code: cx.error(ApiKey::ListTransactions, ErrorCode::InvalidRegularExpression),
            ..Default::default()
        };
    }
    let mut unknown_state_filters = request.state_filters;
    unknown_state_filters.retain(|state| !STATES.contains(&state.as_str()));
    ListTransactionsResponse {
        unknown_state_filters,
        ..Default::default()
    }
}
