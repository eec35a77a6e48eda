//! S3, Google and Azure: from the environment to a store.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, Checksum, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, AzureCredential, MicrosoftAzureBuilder};
use object_store::client::HttpClient;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, CredentialProvider, ObjectStore, RetryConfig};

use super::connector::{Connector, DamagingClient, SharedClient};
use super::credentials::{Check, KeptCredentials};
use super::s3::{S3Store, Variants};
use super::settings::{Setting, Settings, check_certificates, check_token};
use crate::error::whole_text;

/// The environment: names and values.
pub(crate) type Variables = [(OsString, OsString)];

const NO_CERTIFICATES: &str = "this machine has no CA certificates, and https:// needs them: install the package \
                               ca-certificates, or name a file with them in SSL_CERT_FILE";

/// What is said where credentials come from the machine itself, as nothing else was set.
const NO_AWS_CREDENTIALS: &str = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, and this machine has no \
    instance role; set them, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI \
    (profiles in ~/.aws are not read)";
const NO_GOOGLE_CREDENTIALS: &str = "GOOGLE_SERVICE_ACCOUNT, GOOGLE_SERVICE_ACCOUNT_KEY and \
    GOOGLE_APPLICATION_CREDENTIALS are not set, and this machine has no service account; set one of them";
const NO_AZURE_CREDENTIALS: &str = "AZURE_STORAGE_ACCOUNT_KEY is not set, nor AZURE_STORAGE_SAS_TOKEN, nor an identity \
    (AZURE_CLIENT_ID with AZURE_TENANT_ID and AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE), and this machine has \
    no managed identity; set one of them";

fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        ..RetryConfig::default()
    }
}

fn is_http(endpoint: Option<&Setting>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.value.starts_with("http://"))
}

/// The text of why a store could not be built: the certificates, where it can be built without them.
fn explain(
    error: &object_store::Error,
    settings: &Settings,
    can_build: impl Fn(&Settings, bool) -> bool,
) -> String {
    if can_build(settings, true) {
        return NO_CERTIFICATES.to_owned();
    }
    settings.blame(&whole_text(error), |settings| can_build(settings, true))
}

/// What no header can hold.
fn check_header(what: &str, value: &str) -> Result<(), String> {
    if value.chars().all(|character| matches!(character, ' '..='~')) {
        return Ok(());
    }
    Err(format!(
        "{what} holds a line break or another character that no header can hold"
    ))
}

/// Opens a bucket of an S3 store.
pub(crate) fn open_s3(variables: &Variables, bucket: &str) -> Result<S3Store, String> {
    let known = |name: &str| {
        name.starts_with("AWS_") && name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>().is_ok()
    };
    let settings = Settings::read(variables, known)?;
    let source = AwsSource::of(&settings)?;
    let endpoint = settings.first_of(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]);
    let plain = is_http(endpoint);
    if !plain {
        check_certificates(variables)?;
    }
    let build = |settings: &Settings, connector: Connector| {
        aws_builder(settings, bucket, plain)
            .with_http_connector(connector)
            .build()
    };
    let connector = Connector::new(plain);
    let built = build(&settings, connector.clone());
    let can_build = |settings: &Settings, without_tls| build(settings, Connector::new(without_tls)).is_ok();
    let signed = built.map_err(|error| explain(&error, &settings, can_build))?;
    let Some(client) = connector.newest() else {
        return Err("the client of the store was not made".to_owned());
    };
    let provider = match source.hint() {
        Some(hint) => Arc::new(KeptCredentials::new(
            Arc::clone(signed.credentials()),
            hint,
            aws_check(&settings, source),
        )) as Arc<dyn CredentialProvider<Credential = AwsCredential>>,
        None => Arc::clone(signed.credentials()),
    };
    let variant = |client: HttpClient, unsigned: bool, bulk: bool, checksum: Option<Checksum>| {
        let mut builder = aws_builder(&settings, bucket, plain)
            .with_credentials(Arc::clone(&provider))
            .with_http_connector(SharedClient(client))
            .with_disable_bulk_delete(!bulk);
        if unsigned {
            builder = builder.with_unsigned_payload(true);
        }
        if let Some(checksum) = checksum {
            builder = builder.with_checksum_algorithm(checksum);
        }
        builder.build().map_err(|error| whole_text(&error))
    };
    let damaging = HttpClient::new(DamagingClient(client.clone()));
    let variants = Variants {
        signed: variant(client.clone(), false, false, None)?,
        bulk: variant(client.clone(), false, true, None)?,
        unsigned: variant(client, true, false, None)?,
        summed: variant(damaging, true, false, Some(Checksum::CRC64NVME))?,
    };
    // Where there is no TLS, a checksum that was asked for stays beside the hash.
    let is_chosen = settings.has(&["AWS_UNSIGNED_PAYLOAD", "AWS_SKIP_SIGNATURE"])
        || (plain && settings.has(&["AWS_CHECKSUM_ALGORITHM"]));
    let no_bulk_delete = is_true(settings.first_of(&["AWS_DISABLE_BULK_DELETE"]));
    Ok(S3Store::new(variants, !plain, !is_chosen, no_bulk_delete))
}

fn is_true(setting: Option<&Setting>) -> bool {
    const WORDS: [&str; 5] = ["1", "true", "on", "yes", "y"];
    setting.is_some_and(|setting| WORDS.contains(&setting.value.to_ascii_lowercase().as_str()))
}

fn aws_builder(settings: &Settings, bucket: &str, plain: bool) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    for Setting { name, value } in settings.iter() {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    if plain {
        let key = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
        builder = builder.with_config(key, "true");
    }
    builder
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(no_retries())
}

/// Where the credentials of an S3 store come from, in the client's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AwsSource {
    Given,
    WebIdentity,
    Container,
    Machine,
}

impl AwsSource {
    fn of(settings: &Settings) -> Result<Self, String> {
        const ID: &str = "AWS_ACCESS_KEY_ID";
        const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
        const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
        const ROLE: &str = "AWS_ROLE_ARN";
        const URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        const CONTAINER_TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
        let both = |one: &str, other: &str| match (settings.has(&[one]), settings.has(&[other])) {
            (true, false) => Err(format!("{one} is set, and {other} is not: set both")),
            (one, _) => Ok(one),
        };
        if is_true(settings.first_of(&["AWS_SKIP_SIGNATURE"])) {
            return Ok(Self::Given);
        }
        if both(ID, SECRET)? || both(SECRET, ID)? {
            return Ok(Self::Given);
        }
        if both(TOKEN_FILE, ROLE)? {
            return Ok(Self::WebIdentity);
        }
        if settings.has(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]) || both(URI, CONTAINER_TOKEN)? {
            return Ok(Self::Container);
        }
        Ok(Self::Machine)
    }

    /// What is said when there are none; nothing where there always are.
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Given => None,
            Self::WebIdentity => {
                Some("the role of AWS_ROLE_ARN could not be taken with AWS_WEB_IDENTITY_TOKEN_FILE")
            }
            Self::Container => Some("the endpoint of AWS_CONTAINER_CREDENTIALS_* gave none"),
            Self::Machine => Some(NO_AWS_CREDENTIALS),
        }
    }
}

fn aws_check(settings: &Settings, source: AwsSource) -> Check<AwsCredential> {
    let file = settings
        .first_of(&["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
        .filter(|_| source == AwsSource::Container)
        .cloned();
    Box::new(move |given: Option<&AwsCredential>| {
        let Some(given) = given else {
            return match &file {
                Some(Setting { name, value }) => check_token_file(name, Path::new(value)),
                None => Ok(()),
            };
        };
        check_header("the access key that was given", &given.key_id)?;
        check_header(
            "the session token that was given",
            given.token.as_deref().unwrap_or_default(),
        )
    })
}

/// Tokens are replaced while the broker runs, so that each is looked at.
fn check_token_file(name: &str, path: &Path) -> Result<(), String> {
    let token = std::fs::read(path)
        .map_err(|error| format!("{name} names {}, which cannot be read: {error}", path.display()))?;
    check_token(name, &path.display().to_string(), &token)
}

/// Opens a bucket of Google's.
pub(crate) fn open_google(variables: &Variables, bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
    let known = |name: &str| {
        name == "SERVICE_ACCOUNT"
            || (name.starts_with("GOOGLE_") && name.to_ascii_lowercase().parse::<GoogleConfigKey>().is_ok())
    };
    let settings = Settings::read(variables, known)?;
    let plain = is_http(settings.first_of(&["GOOGLE_BASE_URL"]));
    if !plain {
        check_certificates(variables)?;
    }
    let builder = |settings: &Settings, connector: Connector| {
        let mut builder = GoogleCloudStorageBuilder::new();
        for Setting { name, value } in settings.iter() {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        builder
            .with_bucket_name(bucket)
            .with_retry(no_retries())
            .with_http_connector(connector)
    };
    let can_build =
        |settings: &Settings, without_tls| builder(settings, Connector::new(without_tls)).build().is_ok();
    let store = builder(&settings, Connector::new(plain))
        .build()
        .map_err(|error| explain(&error, &settings, can_build))?;
    let check: Check<GcpCredential> = Box::new(|given| {
        given.map_or(Ok(()), |given| {
            check_header("the token that was given", &given.bearer)
        })
    });
    let accounts = [
        "SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ];
    let hint = match settings.first_of(&accounts) {
        Some(setting) => format!("Google gave none for the account of {}", setting.name),
        None => NO_GOOGLE_CREDENTIALS.to_owned(),
    };
    let kept = Arc::new(KeptCredentials::new(Arc::clone(store.credentials()), hint, check));
    let store = builder(&settings, Connector::new(plain))
        .with_credentials(kept)
        .build();
    Ok(Arc::new(store.map_err(|error| whole_text(&error))?))
}

/// Opens a container of Azure's.
pub(crate) fn open_azure(variables: &Variables, container: &str) -> Result<Arc<dyn ObjectStore>, String> {
    const ENDPOINTS: [&str; 2] = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"];
    let known = |name: &str| {
        name == "IDENTITY_ENDPOINT"
            || (name.starts_with("AZURE_") && name.to_ascii_lowercase().parse::<AzureConfigKey>().is_ok())
    };
    let settings = Settings::read(variables, known)?;
    let emulator = is_true(settings.first_of(&["AZURE_STORAGE_USE_EMULATOR", "AZURE_USE_EMULATOR"]));
    if !emulator && !settings.has(&["AZURE_STORAGE_ACCOUNT_NAME"]) {
        return Err("AZURE_STORAGE_ACCOUNT_NAME is not set".to_owned());
    }
    let plain = emulator || is_http(settings.first_of(&ENDPOINTS));
    if !plain {
        check_certificates(variables)?;
    }
    let builder = |settings: &Settings, connector: Connector| {
        let mut builder = MicrosoftAzureBuilder::new();
        for Setting { name, value } in settings.iter() {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        if plain {
            builder = builder.with_allow_http(true);
        }
        builder
            .with_container_name(container)
            .with_retry(no_retries())
            .with_http_connector(connector)
    };
    let can_build =
        |settings: &Settings, without_tls| builder(settings, Connector::new(without_tls)).build().is_ok();
    let store = builder(&settings, Connector::new(plain))
        .build()
        .map_err(|error| explain(&error, &settings, can_build))?;
    let given = [
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_MASTER_KEY",
        "AZURE_STORAGE_TOKEN",
    ];
    if emulator || settings.has(&given) {
        return Ok(Arc::new(store));
    }
    let hint = match settings.first_of(&["AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID"]) {
        Some(setting) => format!("Azure gave none for the identity of {}", setting.name),
        None => NO_AZURE_CREDENTIALS.to_owned(),
    };
    let check: Check<AzureCredential> = Box::new(|given| match given {
        Some(AzureCredential::BearerToken(token)) => check_header("the token that was given", token),
        _ => Ok(()),
    });
    let kept = KeptCredentials::new(Arc::clone(store.credentials()), hint, check);
    let store = builder(&settings, Connector::new(plain))
        .with_credentials(Arc::new(kept))
        .build();
    Ok(Arc::new(store.map_err(|error| whole_text(&error))?))
}
