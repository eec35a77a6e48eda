//! Real text through kcat and back, byte for byte: in each codec, after `kill -9`,
//! after the cache is lost, and from a copy of the bucket.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use drumlin_tests::broker::{Broker, Options, against_kafka};
use drumlin_tests::scratch::Scratch;
use drumlin_tests::stores::{Local, Minio};
use drumlin_tests::{input, process, tools};

const BYTES: u64 = 20_000_000;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn produce_all(broker: &Broker, text: &Path) {
    for codec in CODECS {
        tools::kcat_produce(&broker.bootstrap(), &format!("text-{codec}"), 0, codec, text)
            .expect("kcat produces");
    }
}

fn compare_all(broker: &Broker, text: &Path, out: &Path, when: &str) {
    let sent = tools::sha256(text).expect("a sum");
    for codec in CODECS {
        tools::kcat_consume(&broker.bootstrap(), &format!("text-{codec}"), 0, out).expect("kcat consumes");
        let came = tools::sha256(out).expect("a sum");
        assert_eq!(sent, came, "{codec}, {when}: what came back is not what was sent");
    }
}

fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    cp.arg("-a").arg(from).arg(to);
    process::run(cp, Duration::from_secs(120)).expect("the store is copied");
}

#[test]
fn on_a_local_directory() {
    let scratch = Scratch::new("text-local").expect("a folder");
    let (text, out) = (scratch.join("text"), scratch.join("out"));
    input::write(&text, BYTES).expect("text from the registry");
    let mut broker = Broker::start(Options::local(&scratch.join("broker"))).expect("a broker");
    produce_all(&broker, &text);
    compare_all(&broker, &text, &out, "at once");
    broker.kill9().expect("killed");
    broker.restart().expect("started again after kill -9");
    compare_all(&broker, &text, &out, "after kill -9");
    broker.terminate().expect("stopped");
    if against_kafka() {
        return;
    }
    copy(&scratch.join("broker/store"), &scratch.join("copy"));
    let fresh = Options::on(&scratch.join("fresh"), Local::new(scratch.join("copy")));
    let broker = Broker::start(fresh).expect("a fresh broker on a copy of the directory");
    compare_all(&broker, &text, &out, "from a copy");
}

#[test]
fn on_minio() {
    let scratch = Scratch::new("text-minio").expect("a folder");
    let (text, out) = (scratch.join("text"), scratch.join("out"));
    input::write(&text, BYTES).expect("text from the registry");
    let mut minio = Minio::start(scratch.path()).expect("minio");
    let options = Options::on(&scratch.join("broker"), minio.store("text")).sealing_often();
    let mut broker = Broker::start(options).expect("a broker");
    produce_all(&broker, &text);
    compare_all(&broker, &text, &out, "at once");
    broker.kill9().expect("killed");
    broker.delete_cache().expect("cache deleted");
    broker.restart().expect("started again without its cache");
    compare_all(&broker, &text, &out, "after kill -9, without the cache");
    broker.kill9().expect("killed");
    if against_kafka() {
        return;
    }
    minio.process().kill9().expect("minio is stopped");
    copy(minio.data(), &scratch.join("copied"));
    let minio =
        Minio::start_on(&scratch.join("copied"), &scratch.join("copied.log")).expect("minio on the copy");
    let fresh = Options::on(&scratch.join("fresh"), minio.store("text"));
    let broker = Broker::start(fresh).expect("a fresh broker on a copy of the bucket");
    compare_all(&broker, &text, &out, "from a copy of the bucket");
}
