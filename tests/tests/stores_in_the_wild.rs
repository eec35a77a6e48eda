//! Object stores that answer with errors, cannot do all that S3 can, or are slow; and settings with mistakes in them.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use drumlin_objects::{Bucket, BucketOptions, Env, Reason};
use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::client::Connection;
use drumlin_tests::faulty_s3::{Fault, FaultyS3, Requests};
use drumlin_tests::ports;
use drumlin_tests::scratch::Scratch;
use drumlin_tests::stores::{self, BUCKET, Bare, Local, Minio, Store};

const TOPIC: &str = "t";
const PATIENCE: Duration = Duration::from_secs(60);

const SLOW_DOWN: Fault = Fault::Answer {
    status: 503,
    code: "SlowDown",
};
const DENIED: Fault = Fault::Answer {
    status: 403,
    code: "AccessDenied",
};
const FAILED: Fault = Fault::Answer {
    status: 500,
    code: "InternalError",
};
const NOT_IMPLEMENTED: Fault = Fault::Answer {
    status: 501,
    code: "NotImplemented",
};

/// MinIO behind a proxy that can misbehave.
struct Stage {
    scratch: Scratch,
    minio: Minio,
    proxy: FaultyS3,
}

impl Stage {
    fn set(name: &str) -> Stage {
        let scratch = Scratch::new(name).expect("a folder");
        let minio = Minio::start(scratch.path()).expect("minio");
        let proxy = FaultyS3::before(minio.port()).expect("a proxy");
        // It answers health checks before it takes objects.
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let bucket = open(&minio.store("ready"), &BucketOptions::default());
        let ready = bucket.put("ready", vec!["x".into()], Reason::Check);
        runtime.block_on(ready).expect("minio takes objects");
        Stage {
            scratch,
            minio,
            proxy,
        }
    }

    fn options(&self) -> Options {
        Options::on(&self.scratch.join("broker"), self.proxy.store("one")).set("wal.linger.max.ms", 2)
    }

    /// The bucket through the proxy, with requests that are given up soon.
    fn bucket(&self) -> Bucket {
        let options = BucketOptions {
            attempt_timeout: Duration::from_secs(3),
            retry_for: Duration::from_secs(20),
            ..BucketOptions::default()
        };
        open(&self.proxy.store("direct"), &options)
    }
}

fn open(store: &impl Store, options: &BucketOptions) -> Bucket {
    let variables: Vec<_> = store.environment();
    let variables: Vec<_> = variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    Bucket::open_with_variables(&store.url(), &Env::real(), options, &variables).expect("a bucket")
}

fn connect(broker: &Broker) -> Connection {
    Connection::open(&broker.bootstrap(), PATIENCE).expect("a connection")
}

fn produce(broker: &Broker, value: &[u8]) {
    let (error, _) = connect(broker)
        .produce(TOPIC, 0, value, 30_000)
        .expect("an answer");
    assert_eq!(error, 0);
}

fn printed(broker: &mut Broker) -> String {
    broker.process().expect("a process").printed()
}

/// Waits until the broker has printed a line that pleases.
fn wait_for_line(broker: &mut Broker, what: &str, pleases: impl Fn(&str) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let printed = printed(broker);
        if printed.lines().any(&pleases) {
            return;
        }
        assert!(Instant::now() < end, "no line {what}:\n{printed}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a start prints that has to fail.
fn refused(options: Options) -> String {
    let mut broker = Broker::prepare(options).expect("prepared");
    broker.spawn().expect("spawned");
    let process = broker.process().expect("a process");
    let ended = process.wait(PATIENCE).expect("waited");
    let printed = printed(&mut broker);
    assert!(
        ended.is_some_and(|status| status.code() == Some(1)),
        "{ended:?}\n{printed}"
    );
    assert!(
        !printed.contains("panicked") && !printed.contains("backtrace"),
        "{printed}"
    );
    printed
}

fn started(options: Options) -> Broker {
    let broker = Broker::start(options).expect("a broker");
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
    produce(&broker, b"first");
    broker
}

#[test]
fn a_store_without_multi_object_delete_serves() {
    if against_kafka() {
        return;
    }
    let stage = Stage::set("no-bulk-delete");
    stage.proxy.inject(Requests::BulkDeletes, NOT_IMPLEMENTED);
    let began = Instant::now();
    let _broker = started(stage.options());
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "it took {:?}",
        began.elapsed()
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bucket = stage.bucket();
        let keys: Vec<String> = (0..60).map(|n| format!("many/{n}")).collect();
        for key in &keys {
            bucket
                .put(key, vec!["x".into()], Reason::Check)
                .await
                .expect("put");
        }
        bucket
            .delete_many(&keys[..30], Reason::Sweep)
            .await
            .expect("deleted");
        let asked = stage.proxy.seen(Requests::BulkDeletes);
        bucket
            .delete_many(&keys[30..], Reason::Sweep)
            .await
            .expect("deleted");
        assert_eq!(asked, 1, "the refusal is remembered");
        assert_eq!(
            stage.proxy.seen(Requests::BulkDeletes),
            1,
            "the refusal is remembered"
        );
        let left = bucket.list("many", None, Reason::Check).await.expect("a list");
        assert!(left.is_empty(), "{left:?}");
        bucket
            .delete_many(&keys, Reason::Sweep)
            .await
            .expect("absent ones are no failure");
    });
}

#[test]
fn many_objects_go_with_one_request() {
    let stage = Stage::set("bulk-delete");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bucket = stage.bucket();
        let keys: Vec<String> = (0..30).map(|n| format!("many/{n}")).collect();
        for key in &keys {
            bucket
                .put(key, vec!["x".into()], Reason::Check)
                .await
                .expect("put");
        }
        stage.proxy.inject_times(Requests::BulkDeletes, SLOW_DOWN, 2);
        bucket.delete_many(&keys, Reason::Sweep).await.expect("deleted");
        assert_eq!(stage.proxy.seen(Requests::BulkDeletes), 3);
        assert_eq!(stage.proxy.seen(Requests::Deletes), 0);
        let left = bucket.list("many", None, Reason::Check).await.expect("a list");
        assert!(left.is_empty(), "{left:?}");
        // One object needs no list of one.
        bucket.delete("many/0", Reason::Sweep).await.expect("deleted");
        assert_eq!(stage.proxy.seen(Requests::Deletes), 1);
    });
}

/// A right that has not arrived, a failure, and a store that is asked too much: a first start waits for each, and says why.
#[test]
fn a_first_start_outlasts_a_store_in_trouble() {
    if against_kafka() {
        return;
    }
    let stage = Stage::set("first-start");
    for (fault, code) in [
        (DENIED, "AccessDenied"),
        (FAILED, "InternalError"),
        (SLOW_DOWN, "SlowDown"),
    ] {
        stage.proxy.inject(Requests::Puts, fault);
        let options = Options::on(&stage.scratch.join(code), stage.proxy.store(code));
        let mut broker = Broker::prepare(options).expect("prepared");
        broker.spawn().expect("spawned");
        wait_for_line(&mut broker, code, |line| {
            line.contains("WARN") && line.contains(code)
        });
        stage.proxy.heal();
        broker.wait_ready().expect("it goes on");
        connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
        produce(&broker, b"after the trouble");
    }
}

#[test]
fn a_silent_store_is_told_of_every_three_seconds_and_its_port_is_closed() {
    if against_kafka() {
        return;
    }
    let stage = Stage::set("silent");
    stage.proxy.inject(Requests::All, Fault::Silence);
    let mut broker = Broker::prepare(stage.options()).expect("prepared");
    broker.spawn().expect("spawned");
    let end = Instant::now() + PATIENCE;
    let waits = |printed: &str| printed.matches("cannot be used yet").count();
    while waits(&printed(&mut broker)) < 2 {
        assert!(Instant::now() < end, "{}", printed(&mut broker));
        assert!(
            TcpStream::connect(broker.bootstrap()).is_err(),
            "the port takes connections that nobody answers"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(stores::http_ok(broker.admin_port(), "/health/live"));
    assert!(!stores::http_ok(broker.admin_port(), "/health/ready"));
    assert!(!printed(&mut broker).contains("listening on"));
    stage.proxy.heal();
    broker.wait_ready().expect("it goes on");
    assert!(stores::http_ok(broker.admin_port(), "/health/ready"));
    connect(&broker).create_topic(TOPIC, 1, &[]).expect("a topic");
}

/// Produces for a while; the slowest answer.
fn slowest_produce(broker: &Broker, patience: Duration) -> Duration {
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    let mut connection = connect(broker);
    while began.elapsed() < patience {
        let at = Instant::now();
        let (error, _) = connection.produce(TOPIC, 0, b"x", 30_000).expect("an answer");
        assert_eq!(error, 0);
        slowest = slowest.max(at.elapsed());
    }
    slowest
}

/// With credentials that are valid for 305 seconds the endpoint is asked again after five.
fn endpoint_fails(name: &str, environment: impl Fn(&Stage, &Path) -> Vec<(String, String)>) {
    let stage = Stage::set(name);
    let token = stage.scratch.join("token");
    std::fs::write(&token, "token").expect("a file");
    let credentials = stage.minio.temporary_credentials().expect("credentials");
    stage
        .proxy
        .give_credentials(credentials, Duration::from_secs(305));
    let mut store = Bare::at(&format!("s3://{BUCKET}/one"), &[("AWS_REGION", "us-east-1")]);
    let endpoint = format!("http://127.0.0.1:{}", stage.proxy.port());
    store.environment.push(("AWS_ENDPOINT_URL".to_owned(), endpoint));
    store.environment.extend(environment(&stage, &token));
    let mut broker = started(Options::on(&stage.scratch.join("broker"), store).set("wal.linger.max.ms", 2));
    stage.proxy.inject(Requests::Credentials, FAILED);
    let slowest = slowest_produce(&broker, Duration::from_secs(8));
    assert!(slowest < Duration::from_secs(2), "an answer took {slowest:?}");
    wait_for_line(&mut broker, "of the failure", |line| {
        line.contains("WARN credentials could not be refreshed")
    });
    stage.proxy.heal();
    stage.proxy.inject(Requests::Credentials, Fault::Silence);
    let slowest = slowest_produce(&broker, Duration::from_secs(6));
    assert!(slowest < Duration::from_secs(2), "an answer took {slowest:?}");
    stage.proxy.heal();
    let seen = stage.proxy.seen(Requests::Credentials);
    produce(&broker, b"last");
    assert!(seen < 40, "the endpoint was asked {seen} times");
}

#[test]
fn a_failing_container_endpoint_costs_nothing_while_credentials_are_valid() {
    if against_kafka() {
        return;
    }
    endpoint_fails("container", |stage, token| {
        vec![
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(),
                stage.proxy.container_uri(),
            ),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE".to_owned(),
                token.display().to_string(),
            ),
        ]
    });
}

#[test]
fn a_failing_metadata_service_costs_nothing_while_credentials_are_valid() {
    if against_kafka() {
        return;
    }
    endpoint_fails("metadata", |stage, _| {
        vec![(
            "AWS_METADATA_ENDPOINT".to_owned(),
            stage.proxy.metadata_endpoint(),
        )]
    });
}

#[test]
fn uploads_pass_at_the_rate_that_is_set() {
    let stage = Stage::set("slow");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bucket = stage.bucket();
        stage.proxy.limit_uploads(Some(2 << 20));
        let began = Instant::now();
        let body = vec![7u8; 2 << 20];
        let keys = ["slow/0", "slow/1"];
        let puts = keys.map(|key| bucket.put_new(key, body.clone().into(), Reason::Check));
        for result in futures::future::join_all(puts).await {
            result.expect("put");
        }
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(1_900)..Duration::from_secs(4)).contains(&took),
            "4 MiB at 2 MiB/s took {took:?}"
        );
        stage.proxy.limit_uploads(None);
        let body = bucket.get("slow/1", Reason::Check).await.expect("the object");
        assert!(body.len() == 2 << 20 && body.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn answers_that_are_cut_or_never_come_are_asked_for_again() {
    let stage = Stage::set("cut");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bucket = stage.bucket();
        let body = vec![9u8; 100_000];
        bucket
            .put("whole", vec![body.clone().into()], Reason::Check)
            .await
            .expect("put");
        for fault in [Fault::CutAnswer, Fault::Silence, FAILED] {
            stage.proxy.inject_times(Requests::Gets, fault.clone(), 1);
            let read = bucket.get("whole", Reason::Check).await.expect("the object");
            assert!(read == body, "{fault:?}");
        }
    });
}

/// Over plain HTTP the hash is left out where the store was seen to verify a checksum in its place, and nowhere else.
#[test]
fn bodies_are_hashed_only_where_nothing_else_protects_them() {
    let stage = Stage::set("hashes");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let put = async |bucket: &Bucket, key: &str| {
            let before = stage.proxy.seen(Requests::UnsignedPuts);
            bucket
                .put_new(key, "body".into(), Reason::Check)
                .await
                .expect("put");
            stage.proxy.seen(Requests::UnsignedPuts) - before
        };
        let bucket = stage.bucket();
        assert_eq!(put(&bucket, "a").await, 0, "nothing is known of the store yet");
        bucket.choose_body_check().await;
        assert_eq!(put(&bucket, "b").await, 1, "MinIO verifies checksums");
        let summed = stage.proxy.seen(Requests::SummedPuts);
        bucket
            .put("parts", vec![vec![3u8; 40 << 20].into()], Reason::Check)
            .await
            .expect("parts");
        assert_eq!(
            stage.proxy.seen(Requests::SummedPuts) - summed,
            3,
            "three parts of 16 MiB"
        );
        let whole = bucket.get("parts", Reason::Check).await.expect("the object");
        assert!(whole.len() == 40 << 20 && whole.iter().all(|byte| *byte == 3));
        let probes = bucket.list("probe", None, Reason::Check).await.expect("a list");
        assert!(probes.is_empty(), "{probes:?}");

        // A store that comes to refuse such bodies gets hashes again, and no put fails.
        stage.proxy.inject(Requests::UnsignedPuts, DENIED);
        assert_eq!(put(&bucket, "c").await, 1, "refused once");
        assert_eq!(put(&bucket, "d").await, 0, "and remembered");
        stage.proxy.heal();

        stage.proxy.inject(Requests::SummedPuts, Fault::TakeDamage);
        let bucket = stage.bucket();
        bucket.choose_body_check().await;
        assert_eq!(put(&bucket, "e").await, 0, "this one takes whatever comes");
    });
}

/// A start on S3 with these variables, and a time limit for a store that cannot be reached.
fn s3_with(dir: &Path, variables: &[(&str, &str)]) -> Options {
    let mut all = vec![
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT", "http://127.0.0.1:1"),
    ];
    all.retain(|(name, _)| !variables.iter().any(|(given, _)| given == name));
    all.extend(variables.iter().filter(|(_, value)| *value != "-"));
    Options::on(dir, Bare::at("s3://bucket/prefix", &all)).set("store.start.timeout.ms", 1_000)
}

#[test]
fn mistakes_in_the_environment_end_in_one_line_that_names_the_variable() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("variables").expect("a folder");
    let dir = scratch.join("broker");
    let file = |name: &str, contents: &str| {
        std::fs::write(scratch.join(name), contents).expect("a file");
        scratch.join(name).display().to_string()
    };
    let (token, empty) = (file("token", "token\n"), file("empty", ""));
    let malformed = file("malformed", "{\"type\": \"service_account\", ");
    let https = ("AWS_ENDPOINT", "https://127.0.0.1:1");
    let bare = [("AWS_ACCESS_KEY_ID", "-"), ("AWS_SECRET_ACCESS_KEY", "-")];
    let s3 = |variables: &[(&str, &str)]| s3_with(&dir, variables);
    let other = |url: &str, variables: &[(&str, &str)]| {
        Options::on(&dir, Bare::at(url, variables)).set("store.start.timeout.ms", 1_000)
    };
    let azure = |name: &str, value: &str| {
        other(
            "az://container/x",
            &[("AZURE_STORAGE_ACCOUNT_NAME", "account"), (name, value)],
        )
    };
    let cases = [
        ("AWS_ENDPOINT", s3(&[("AWS_ENDPOINT", "127.0.0.1:1")])),
        ("AWS_ENDPOINT_URL", s3(&[("AWS_ENDPOINT_URL", "minio:9000")])),
        ("AWS_ENDPOINT_URL_S3", s3(&[("AWS_ENDPOINT_URL_S3", "http://")])),
        ("AWS_REGION", s3(&[("AWS_REGION", "us east 1")])),
        ("AWS_ACCESS_KEY_ID", s3(&[("AWS_ACCESS_KEY_ID", "a\nb")])),
        ("AWS_SESSION_TOKEN", s3(&[("AWS_SESSION_TOKEN", "a\u{1}b")])),
        ("AWS_SECRET_ACCESS_KEY", s3(&[("AWS_SECRET_ACCESS_KEY", "-")])),
        ("AWS_ACCESS_KEY_ID", s3(&[("AWS_ACCESS_KEY_ID", "")])),
        (
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
            s3(&[("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "maybe")]),
        ),
        (
            "AWS_CHECKSUM_ALGORITHM",
            s3(&[("AWS_CHECKSUM_ALGORITHM", "crc1")]),
        ),
        ("AWS_TIMEOUT", s3(&[("AWS_TIMEOUT", "soon")])),
        (
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            s3(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/file")]),
        ),
        (
            "AWS_ROLE_ARN",
            s3(&[bare[0], bare[1], ("AWS_WEB_IDENTITY_TOKEN_FILE", &token)]),
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            s3(&[
                bare[0],
                bare[1],
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/x"),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
            ]),
        ),
        ("SSL_CERT_FILE", s3(&[https, ("SSL_CERT_FILE", "/no/such/file")])),
        ("SSL_CERT_FILE", s3(&[https, ("SSL_CERT_FILE", &empty)])),
        (
            "GOOGLE_APPLICATION_CREDENTIALS",
            other(
                "gs://bucket",
                &[("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file")],
            ),
        ),
        (
            "GOOGLE_SERVICE_ACCOUNT",
            other("gs://bucket", &[("GOOGLE_SERVICE_ACCOUNT", &malformed)]),
        ),
        (
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            other("gs://bucket", &[("GOOGLE_SERVICE_ACCOUNT_KEY", "{")]),
        ),
        (
            "GOOGLE_BASE_URL",
            other("gs://bucket", &[("GOOGLE_BASE_URL", "localhost:1")]),
        ),
        ("AZURE_STORAGE_ACCOUNT_NAME", other("az://container", &[])),
        (
            "AZURE_STORAGE_ACCOUNT_KEY",
            azure("AZURE_STORAGE_ACCOUNT_KEY", "not base64!"),
        ),
        (
            "AZURE_STORAGE_ENDPOINT",
            azure("AZURE_STORAGE_ENDPOINT", "azurite:10000"),
        ),
        (
            "AZURE_STORAGE_SAS_TOKEN",
            azure("AZURE_STORAGE_SAS_TOKEN", "nonsense"),
        ),
        (
            "AZURE_FEDERATED_TOKEN_FILE",
            azure("AZURE_FEDERATED_TOKEN_FILE", "/no/such/file"),
        ),
    ];
    for (name, options) in cases {
        let _ = std::fs::remove_file(dir.join("drumlin.log"));
        let printed = refused(options);
        let last = printed.lines().last().unwrap_or_default();
        assert!(last.starts_with("drumlin: cannot use "), "{name}: {printed}");
        assert!(last.contains(name), "{name} is not named: {printed}");
    }
}

#[test]
fn blanks_around_values_and_empty_values_do_no_harm() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("blanks").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    let mut store = Bare::at(&format!("s3://{BUCKET}/one"), &[("AWS_SESSION_TOKEN", "")]);
    let environment = minio.store("one").environment();
    store.environment.extend(
        environment
            .into_iter()
            .map(|(name, value)| (name, format!(" {value}\n"))),
    );
    started(Options::on(&scratch.join("broker"), store));
}

#[test]
fn no_credentials_at_all_are_said_in_words() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("no-credentials").expect("a folder");
    let nothing = format!("http://127.0.0.1:{}", ports::free().expect("a port"));
    let printed = refused(s3_with(
        &scratch.join("broker"),
        &[
            ("AWS_ACCESS_KEY_ID", "-"),
            ("AWS_SECRET_ACCESS_KEY", "-"),
            ("AWS_METADATA_ENDPOINT", &nothing),
        ],
    ));
    let said = "no credentials for the store: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set";
    let warned = printed
        .lines()
        .any(|line| line.contains("WARN") && line.contains(said));
    assert!(warned, "{printed}");
    assert!(
        printed.lines().last().is_some_and(|line| line.contains(said)),
        "{printed}"
    );
}

#[test]
fn a_machine_without_ca_certificates_uses_plain_http_and_names_what_https_lacks() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("no-certificates").expect("a folder");
    let minio = Minio::start(scratch.path()).expect("minio");
    let none = scratch.join("none");
    std::fs::create_dir_all(&none).expect("a folder");
    let none = none.display().to_string();
    // A directory without certificates is searched in place of the machine's own.
    let alone = |mut options: Options| {
        options.under = ["env", "-u", "SSL_CERT_FILE"].map(str::to_owned).to_vec();
        options.env("SSL_CERT_DIR", &none)
    };
    started(alone(Options::on(&scratch.join("http"), minio.store("one"))));
    let https = s3_with(&scratch.join("https"), &[("AWS_ENDPOINT", "https://127.0.0.1:1")]);
    let printed = refused(alone(https));
    let last = printed.lines().last().unwrap_or_default();
    assert!(
        last.contains("no CA certificates") && last.contains("SSL_CERT_FILE"),
        "{printed}"
    );
}

/// Clients of a name with two addresses would reach one process or the other.
#[test]
fn a_listener_whose_address_is_taken_takes_no_other_one() {
    if against_kafka() {
        return;
    }
    let scratch = Scratch::new("taken").expect("a folder");
    for taken in ["127.0.0.1", "::1"] {
        // Not every machine has IPv6.
        let Ok(other) = TcpListener::bind((taken, 0)) else {
            continue;
        };
        let port = other.local_addr().expect("its address").port();
        let resolves = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", port)).expect("localhost");
        if !resolves
            .into_iter()
            .any(|address| address.ip().to_string() == taken)
        {
            continue;
        }
        for (option, value) in [
            ("listeners", format!("PLAINTEXT://localhost:{port}")),
            ("admin.listener", format!("localhost:{port}")),
        ] {
            if option == "admin.listener" && taken == "::1" {
                continue;
            }
            let dir = scratch.join("broker");
            let options = Options::on(&dir, Local::new(dir.join("store"))).set(option, value);
            let printed = refused(options);
            let last = printed.lines().last().unwrap_or_default();
            assert!(
                last.contains("cannot listen on") && last.contains(option),
                "{printed}"
            );
            assert!(last.contains("in use"), "{printed}");
        }
    }
}
