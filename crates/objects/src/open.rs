//! From `store.url` to a store.
//!
//! Remote stores take credentials and endpoints from the environment, as their vendors' tools do. Their own
//! retries are switched off: [`crate::bucket`] retries, and counts what it does.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;

use crate::bucket::{BucketKind, BucketOptions};
use crate::env::Env;
use crate::error::OpenError;
use crate::local::LocalStore;
use crate::remote::{S3Store, Variables, open_azure, open_google, open_s3};

pub(crate) struct Opened {
    pub store: Arc<dyn ObjectStore>,
    pub kind: BucketKind,
    pub local: Option<Arc<LocalStore>>,
    pub s3: Option<OpenedS3>,
}

impl Opened {
    /// A store that somebody else made.
    pub(crate) fn of(store: Arc<dyn ObjectStore>, kind: BucketKind) -> Self {
        Self {
            store,
            kind,
            local: None,
            s3: None,
        }
    }
}

/// An S3 bucket beside the store that was made of it.
pub(crate) struct OpenedS3 {
    pub store: Arc<S3Store>,
    pub prefix: Path,
}

pub(crate) fn open(
    text: &str,
    env: &Env,
    options: &BucketOptions,
    variables: &Variables,
) -> Result<Opened, OpenError> {
    let wrong = |what: &str| OpenError::Url {
        url: text.to_owned(),
        what: what.to_owned(),
    };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(wrong("it holds more than a bucket and a prefix"));
    }
    match url.scheme() {
        "memory" => Ok(Opened {
            store: Arc::new(InMemory::new()),
            kind: BucketKind::Memory,
            local: None,
            s3: None,
        }),
        "file" => {
            let directory = directory(&url).ok_or_else(|| wrong("a file URL needs an absolute directory"))?;
            let local = LocalStore::open(&directory, env, options.local_buffered)?;
            let local = Arc::new(local);
            Ok(Opened {
                store: local.clone(),
                kind: BucketKind::Local,
                local: Some(local),
                s3: None,
            })
        }
        "s3" => remote(text, &url, |bucket| {
            let store = Arc::new(open_s3(variables, bucket)?);
            Ok((store.clone() as Arc<dyn ObjectStore>, Some(store)))
        }),
        "gs" => remote(text, &url, |bucket| Ok((open_google(variables, bucket)?, None))),
        "az" => remote(text, &url, |container| {
            Ok((open_azure(variables, container)?, None))
        }),
        other => Err(wrong(&format!("{other} is no scheme that it knows"))),
    }
}

fn remote(
    text: &str,
    url: &Url,
    build: impl FnOnce(&str) -> Result<(Arc<dyn ObjectStore>, Option<Arc<S3Store>>), String>,
) -> Result<Opened, OpenError> {
    let wrong = |what: String| OpenError::Url {
        url: text.to_owned(),
        what,
    };
    let bucket = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| wrong("the bucket's name is missing".to_owned()))?;
    let prefix = Path::from_url_path(url.path()).map_err(|error| wrong(error.to_string()))?;
    let (store, s3) = build(bucket).map_err(|what| OpenError::Settings {
        url: text.to_owned(),
        what,
    })?;
    let s3 = s3.map(|store| OpenedS3 {
        store,
        prefix: prefix.clone(),
    });
    let store: Arc<dyn ObjectStore> = if prefix.is_root() {
        store
    } else {
        Arc::new(PrefixStore::new(store, prefix))
    };
    Ok(Opened {
        store,
        kind: BucketKind::Remote,
        local: None,
        s3,
    })
}

/// `file:///dir`; also `file:dir` below the working directory, which `Url` alone would make absolute.
fn directory(url: &Url) -> Option<PathBuf> {
    url.to_file_path().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        let env = Env::simulated(1, 0);
        match open(url, &env, &BucketOptions::default(), &[]) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn addresses_that_are_not_understood_say_what_to_do() {
        for url in [
            "",
            "nonsense",
            "ftp://x/y",
            "s3://",
            "s3://bucket?x=1",
            "s3://bucket/a//b",
        ] {
            let text = error(url);
            assert!(text.contains("s3://bucket/prefix"), "{url}: {text}");
            assert!(!text.contains('\n'), "{url}: {text}");
        }
    }

    #[tokio::test]
    async fn memory_and_directories_open() {
        assert_eq!(error("memory:"), "");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(error(&format!("file://{}/a/b", dir.path().display())), "");
        assert!(dir.path().join("a/b").is_dir());
    }

    #[tokio::test]
    async fn a_directory_that_is_a_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = error(&format!("file://{}", file.path().display()));
        assert!(text.contains("create it, or make it writable"), "{text}");
    }
}
