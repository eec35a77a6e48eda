//! DescribeTransactions (key 65): there are no transactions.

use drumlin_wire::ApiKey;
use drumlin_wire::messages::describe_transactions_request::DescribeTransactionsRequest;
use drumlin_wire::messages::describe_transactions_response::{
    DescribeTransactionsResponse, TransactionState,
};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// Answers TRANSACTIONAL_ID_NOT_FOUND for each id.
pub async fn handle(cx: &Cx, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let states = request.transactional_ids.into_iter().map(|transactional_id| {
        let code = if transactional_id.is_empty() {
            ErrorCode::InvalidRequest
        } else {
            ErrorCode::TransactionalIdNotFound
        };
        TransactionState {
            error_code: cx.error(ApiKey::DescribeTransactions, code),
            transactional_id,
            ..Default::default()
        }
    });
    DescribeTransactionsResponse {
        transaction_states: states.collect(),
        ..Default::default()
    }
}
