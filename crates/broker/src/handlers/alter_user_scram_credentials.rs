//! AlterUserScramCredentials (key 51): no listener authenticates, so no credentials can be kept.
//!
//! What is malformed is refused as Kafka refuses it. Credentials that Kafka would keep are refused too: a user that
//! seems to exist, on a broker that lets everybody in, would be a promise that nothing keeps.

use std::collections::BTreeMap;

use drumlin_wire::messages::alter_user_scram_credentials_request::{
    AlterUserScramCredentialsRequest, ScramCredentialUpsertion,
};
use drumlin_wire::messages::alter_user_scram_credentials_response::{
    AlterUserScramCredentialsResponse, AlterUserScramCredentialsResult,
};
use drumlin_wire::{ApiKey, Str};

use crate::dispatch::Cx;
use crate::error_code::ErrorCode;

/// SCRAM-SHA-256 and SCRAM-SHA-512.
const MECHANISMS: [i8; 2] = [1, 2];
/// Rounds of hashing that either may have.
const FEWEST_ITERATIONS: i32 = 4_096;
const MOST_ITERATIONS: i32 = 16_384;

type Refused = (ErrorCode, &'static str);

/// Answers each user once, whatever was asked of it.
pub async fn handle(cx: &Cx, request: AlterUserScramCredentialsRequest) -> AlterUserScramCredentialsResponse {
    let mut outcomes: BTreeMap<Str, Refused> = BTreeMap::new();
    let deletions = request.deletions.iter().map(|deletion| {
        let what = "Attempt to delete a user credential that does not exist";
        let refused = check(&deletion.name, deletion.mechanism).err();
        let refused = refused.unwrap_or((ErrorCode::ResourceNotFound, what));
        (&deletion.name, deletion.mechanism, refused)
    });
    let upsertions = request
        .upsertions
        .iter()
        .map(|upsertion| (&upsertion.name, upsertion.mechanism, refuse(upsertion)));
    let mut seen: BTreeMap<(&Str, i8), usize> = BTreeMap::new();
    for (name, mechanism, refused) in deletions.chain(upsertions) {
        let times = seen.entry((name, mechanism)).or_default();
        *times += 1;
        let twice = "A user credential cannot be altered twice in the same request";
        if *times > 1 && outcomes.get(name).is_some_and(|(code, _)| is_sound(*code)) {
            outcomes.insert(name.clone(), (ErrorCode::DuplicateResource, twice));
        } else {
            outcomes.entry(name.clone()).or_insert(refused);
        }
    }
    let results = outcomes
        .into_iter()
        .map(|(user, (code, what))| AlterUserScramCredentialsResult {
            user,
            error_code: cx.error(ApiKey::AlterUserScramCredentials, code),
            error_message: Some(Str::from_static(what)),
            ..Default::default()
        });
    AlterUserScramCredentialsResponse {
        results: results.collect(),
        ..Default::default()
    }
}

/// True for the refusal of what Kafka would take.
fn is_sound(code: ErrorCode) -> bool {
    code == ErrorCode::UnsupportedVersion
}

fn check(name: &Str, mechanism: i8) -> Result<(), Refused> {
    if name.is_empty() {
        return Err((ErrorCode::UnacceptableCredential, "Username must not be empty"));
    }
    if !MECHANISMS.contains(&mechanism) {
        return Err((ErrorCode::UnsupportedSaslMechanism, "Unknown SCRAM mechanism"));
    }
    Ok(())
}

fn refuse(asked: &ScramCredentialUpsertion) -> Refused {
    if let Err(refused) = check(&asked.name, asked.mechanism) {
        return refused;
    }
    if asked.iterations < FEWEST_ITERATIONS {
        return (ErrorCode::UnacceptableCredential, "Too few iterations");
    }
    if asked.iterations > MOST_ITERATIONS {
        return (ErrorCode::UnacceptableCredential, "Too many iterations");
    }
    (
        ErrorCode::UnsupportedVersion,
        "this broker does not authenticate with SCRAM yet: no credentials can be set",
    )
}
