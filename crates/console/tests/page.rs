//! The pages as they are served, and the metrics page against its documentation.

use std::sync::Arc;

use drumlin_broker::Broker;
use drumlin_broker::config::BrokerConfig;
use drumlin_console::{Console, metrics};
use drumlin_objects::{Bucket, BucketOptions, Env, Failure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

async fn broker() -> Broker {
    let env = Env::simulated(1, 0);
    let bucket = Bucket::open("memory:", &env, &BucketOptions::default()).expect("a bucket");
    let config = BrokerConfig::from_pairs([("store.url", "memory:")]).expect("a configuration");
    Broker::start(&env, config, bucket).await.expect("a broker")
}

#[tokio::test]
async fn every_series_is_documented() {
    let broker = broker().await;
    let page = metrics::page(&broker).await;
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let docs = std::fs::read_to_string(docs).expect("the page");
    let families: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
        .collect();
    assert!(families.len() > 25, "{families:?}");
    for family in families {
        assert!(
            docs.contains(&format!("`{family}`")),
            "{family} is not documented"
        );
    }
}

#[tokio::test]
async fn every_part_of_memory_is_told_once_and_documented() {
    let broker = broker().await;
    let page = metrics::page(&broker).await;
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let docs = std::fs::read_to_string(docs).expect("the page");
    let parts: Vec<(&str, u64)> = page
        .lines()
        .filter_map(|line| {
            line.strip_prefix("drumlin_memory_bytes{part=\"")?
                .split_once("\"} ")
        })
        .map(|(part, bytes)| (part, bytes.parse().expect("a number")))
        .collect();
    let names: Vec<&str> = parts.iter().map(|(part, _)| *part).collect();
    assert_eq!(
        names,
        [
            "wal",
            "blocks",
            "block_reads",
            "wal_read_back",
            "requests",
            "partitions",
            "metadata",
            "groups",
            "program",
            "allocator"
        ]
    );
    for (part, _) in &parts {
        assert!(
            docs.contains(&format!("| `{part}` |")),
            "{part} is not documented"
        );
    }
    let program = parts.iter().find(|(part, _)| *part == "program");
    assert!(program.is_some_and(|(_, bytes)| *bytes > 100_000), "{parts:?}");
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn health_follows_the_broker() {
    let console = Console::bind("127.0.0.1", 0).await.expect("bound");
    let address = console.address();
    let (tell, told) = watch::channel(None);
    let (fail, failed) = watch::channel(None);
    let serving = tokio::spawn(console.serve(told, failed));
    assert!(get(address, "/health/live").await.contains("200 OK"));
    assert!(get(address, "/health/ready").await.contains("starting"));
    assert!(get(address, "/metrics").await.contains("503"));
    let broker = Arc::new(broker().await);
    tell.send_replace(Some(Arc::clone(&broker)));
    assert!(get(address, "/health/ready").await.contains("200 OK"));
    assert!(get(address, "/metrics").await.contains("drumlin_partitions 0"));
    broker.shutdown().await;
    assert!(get(address, "/health/ready").await.contains("stopping"));
    assert!(get(address, "/health/live").await.contains("200 OK"));
    let what = "an fsync failed: wal/1".to_owned();
    fail.send_replace(Some(Failure::Fsync { what }));
    for page in ["/health/live", "/health/ready"] {
        let answer = get(address, page).await;
        assert!(
            answer.contains("503") && answer.contains("an fsync failed"),
            "{answer}"
        );
    }
    serving.abort();
}
