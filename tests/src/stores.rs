//! Object stores as tests need them: a folder, MinIO, SeaweedFS, Azurite.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::process::Process;
use crate::{cache, ports, process};

const USER: &str = "drumlin";
const PASSWORD: &str = "drumlin-secret";
/// The bucket that every S3 store of the tests has.
pub const BUCKET: &str = "drumlin";
const START: Duration = Duration::from_secs(60);
/// How long the answer to a plain GET may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Where a broker keeps its log.
pub trait Store: Send + Sync {
    /// The value of `store.url`.
    fn url(&self) -> String;
    /// What the broker finds in its environment: endpoint, region, credentials.
    fn environment(&self) -> Vec<(String, String)>;
    /// The folder itself, when the store is one.
    fn folder(&self) -> Option<&Path> {
        None
    }
}

/// A folder on this machine.
pub struct Local {
    folder: PathBuf,
}

impl Local {
    /// A store in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Local {
        Local {
            folder: folder.into(),
        }
    }
}

impl Store for Local {
    fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }
}

/// A prefix in the bucket of an S3 server that a test has started.
#[derive(Clone)]
pub struct S3 {
    endpoint: String,
    prefix: String,
}

impl S3 {
    /// A bucket behind a port of this machine, whether or not anything listens there.
    pub fn at(port: u16, prefix: &str) -> S3 {
        S3 {
            endpoint: format!("http://127.0.0.1:{port}"),
            prefix: prefix.to_owned(),
        }
    }

    /// The same bucket under another prefix.
    pub fn prefix(&self, prefix: &str) -> S3 {
        S3 {
            prefix: prefix.to_owned(),
            ..self.clone()
        }
    }
}

impl Store for S3 {
    fn url(&self) -> String {
        format!("s3://{BUCKET}/{}", self.prefix)
    }

    fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ENDPOINT", self.endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", USER),
            ("AWS_SECRET_ACCESS_KEY", PASSWORD),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec()
    }
}

/// A MinIO server with its data in a folder.
pub struct Minio {
    process: Process,
    port: u16,
    data: PathBuf,
}

impl Minio {
    /// Starts it; its data and log go below `dir`.
    pub fn start(dir: &Path) -> anyhow::Result<Minio> {
        let data = dir.join("minio");
        // A folder in its data is a bucket to MinIO.
        std::fs::create_dir_all(data.join(BUCKET))?;
        Minio::start_on(&data, &dir.join("minio.log"))
    }

    /// Starts it on data that another server has left.
    pub fn start_on(data: &Path, log: &Path) -> anyhow::Result<Minio> {
        let port = ports::free()?;
        let process = Minio::spawn(data, log, port)?;
        Ok(Minio {
            process,
            port,
            data: data.to_owned(),
        })
    }

    /// Starts it again where it was, after its process was killed.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process.kill9()?;
        let log = self.process.log().to_owned();
        self.process = Minio::spawn(&self.data, &log, self.port)?;
        Ok(())
    }

    fn spawn(data: &Path, log: &Path, port: u16) -> anyhow::Result<Process> {
        let mut command = Command::new(cache::minio()?);
        command
            .arg("server")
            .arg(data)
            .args(["--address", &format!("127.0.0.1:{port}"), "--quiet"])
            .args(["--console-address", &format!("127.0.0.1:{}", ports::free()?)])
            .env("MINIO_ROOT_USER", USER)
            .env("MINIO_ROOT_PASSWORD", PASSWORD)
            .env("MINIO_UPDATE", "off")
            .env("MINIO_BROWSER", "off");
        let mut process = Process::start("minio", command, log)?;
        process.wait_ready(START, |_| http_ok(port, "/minio/health/live"))?;
        Ok(process)
    }

    /// The bucket, under `prefix`.
    pub fn store(&self, prefix: &str) -> S3 {
        S3 {
            endpoint: format!("http://127.0.0.1:{}", self.port),
            prefix: prefix.to_owned(),
        }
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The server's process, to stop, pause or kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Credentials of a session, as an S3 server's security token service gives them.
#[derive(Clone, Debug)]
pub struct TemporaryCredentials {
    /// Access key.
    pub id: String,
    /// Secret key.
    pub secret: String,
    /// Session token, without which the keys are worth nothing.
    pub token: String,
}

impl Minio {
    /// Credentials that its security token service gives for an hour.
    pub fn temporary_credentials(&self) -> anyhow::Result<TemporaryCredentials> {
        let request = || {
            let mut request = Command::new("curl");
            request
                .args(["-sf", "--aws-sigv4", "aws:amz:us-east-1:sts"])
                .args(["-u", &format!("{USER}:{PASSWORD}")])
                .args(["-d", "Action=AssumeRole&Version=2011-06-15&DurationSeconds=3600"])
                .arg(format!("http://127.0.0.1:{}/", self.port));
            request
        };
        // The service is up a moment after the rest.
        let end = Instant::now() + START;
        let told = loop {
            match process::run(request(), Duration::from_secs(10)) {
                Ok(told) => break told.stdout,
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(300)),
            }
        };
        let value = |name: &str| -> anyhow::Result<String> {
            let (_, rest) = told
                .split_once(&format!("<{name}>"))
                .with_context(|| format!("no {name} in {told}"))?;
            let (value, _) = rest.split_once('<').context("no end")?;
            Ok(value.to_owned())
        };
        Ok(TemporaryCredentials {
            id: value("AccessKeyId")?,
            secret: value("SecretAccessKey")?,
            token: value("SessionToken")?,
        })
    }
}

/// A store that is nothing but its address and its environment.
#[derive(Clone, Debug)]
pub struct Bare {
    /// The value of `store.url`.
    pub url: String,
    /// What the broker finds in its environment.
    pub environment: Vec<(String, String)>,
}

impl Bare {
    /// A store at `url`.
    pub fn at(url: &str, environment: &[(&str, &str)]) -> Bare {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        Bare {
            url: url.to_owned(),
            environment: environment.iter().map(owned).collect(),
        }
    }
}

impl Store for Bare {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }
}

/// SeaweedFS: master, volume, filer and S3 gateway in one process.
pub struct Seaweed {
    process: Process,
    port: u16,
}

impl Seaweed {
    /// Starts it; its data and log go below `dir`.
    pub fn start(dir: &Path) -> anyhow::Result<Seaweed> {
        let data = dir.join("seaweed");
        std::fs::create_dir_all(&data)?;
        let config = dir.join("seaweed-s3.json");
        let identity = serde_json::json!({"identities": [{
            "name": USER,
            "credentials": [{"accessKey": USER, "secretKey": PASSWORD}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        std::fs::write(&config, identity.to_string())?;
        let port = ports::free()?;
        let (master, volume, filer) = (ports::free()?, ports::free()?, ports::free()?);
        let mut command = Command::new(cache::weed()?);
        command
            .arg("server")
            .arg(format!("-dir={}", data.display()))
            .args(["-ip=127.0.0.1", "-s3"]);
        for (name, port) in [
            ("s3", port),
            ("master", master),
            ("volume", volume),
            ("filer", filer),
        ] {
            command.arg(format!("-{name}.port={port}"));
        }
        // By default the gRPC ports are 10,000 above these; they must be free as well.
        for name in ["s3", "master", "volume", "filer"] {
            command.arg(format!("-{name}.port.grpc={}", ports::free()?));
        }
        command
            .arg(format!("-s3.config={}", config.display()))
            .args([
                "-volume.max=20",
                "-master.volumeSizeLimitMB=256",
                "-master.volumePreallocate=false",
            ])
            .args(["-s3.iam=false"]);
        let mut process = Process::start("seaweedfs", command, &dir.join("seaweed.log"))?;
        process.wait_ready(START, |_| http_ok(port, "/status"))?;
        let seaweed = Seaweed { process, port };
        seaweed
            .create_bucket(master, filer)
            .context("cannot create the bucket in SeaweedFS")?;
        Ok(seaweed)
    }

    fn create_bucket(&self, master: u16, filer: u16) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        loop {
            let mut request = Command::new("curl");
            request.args([
                "-sf",
                "--aws-sigv4",
                "aws:amz:us-east-1:s3",
                "-u",
                &format!("{USER}:{PASSWORD}"),
            ]);
            request.args(["-X", "PUT", &format!("http://127.0.0.1:{}/{BUCKET}", self.port)]);
            match process::run(request, Duration::from_secs(10)) {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() >= end => {
                    return Err(e.context(format!("master {master}, filer {filer}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    /// The bucket, under `prefix`.
    pub fn store(&self, prefix: &str) -> S3 {
        S3 {
            endpoint: format!("http://127.0.0.1:{}", self.port),
            prefix: prefix.to_owned(),
        }
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The account that Azurite has built in, and its key, as its documentation gives them.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Azurite, the emulator of Azure's blob storage, by npm.
pub struct Azurite {
    process: Process,
    port: u16,
}

impl Azurite {
    /// Starts it, with a container of the bucket's name; its data and log go below `dir`.
    pub fn start(dir: &Path) -> anyhow::Result<Azurite> {
        let port = ports::free()?;
        let modules = cache::node_modules()?;
        let mut command = Command::new("node");
        command
            .arg(modules.join("azurite/dist/src/blob/main.js"))
            .arg("--location")
            .arg(dir.join("azurite"))
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            // It knows fewer versions of the API than the library that asks, which wants nothing new.
            .args(["--skipApiVersionCheck", "--silent", "--disableTelemetry"]);
        let mut process = Process::start("azurite", command, &dir.join("azurite.log"))?;
        process.wait_ready(START, |_| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        let azurite = Azurite { process, port };
        let mut create = Command::new("node");
        create
            .arg(cache::repository().join("tests/clients/node/container.js"))
            .args([azurite.endpoint().as_str(), AZURE_ACCOUNT, AZURE_KEY, BUCKET]);
        process::run(create, Duration::from_secs(30)).context("cannot create the container in Azurite")?;
        Ok(azurite)
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{AZURE_ACCOUNT}", self.port)
    }

    /// The container, under `prefix`.
    pub fn store(&self, prefix: &str) -> Azure {
        Azure {
            endpoint: self.endpoint(),
            prefix: prefix.to_owned(),
        }
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A prefix in the container of an [`Azurite`].
#[derive(Clone)]
pub struct Azure {
    endpoint: String,
    prefix: String,
}

impl Store for Azure {
    fn url(&self) -> String {
        format!("az://{BUCKET}/{}", self.prefix)
    }

    fn environment(&self) -> Vec<(String, String)> {
        [
            ("AZURE_STORAGE_ENDPOINT", self.endpoint.as_str()),
            ("AZURE_ALLOW_HTTP", "true"),
            ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT),
            ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec()
    }
}

/// Whether a GET is answered with 200.
pub fn http_ok(port: u16, path: &str) -> bool {
    http_get(port, path).is_ok_and(|answer| answer.lines().next().is_some_and(|l| l.contains(" 200")))
}

/// The whole answer to a plain GET, head and body.
pub fn http_get(port: u16, path: &str) -> anyhow::Result<String> {
    use std::io::{Read, Write};
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(ANSWER))?;
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
