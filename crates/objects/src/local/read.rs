//! Reads and lists of a local store.

use super::*;

impl Shared {
    pub(super) fn read(&self, location: &Path, options: &GetOptions) -> Result<GetResult> {
        // While this is there no other process writes the journal.
        let held = self.held();
        if let Some(result) = self.read_journal(location, options)? {
            return Ok(result);
        }
        match self.read_file(location.clone(), options) {
            // It was put, or given a file, since another process's journal was read.
            Err(Error::NotFound { .. }) if held.is_none() && self.root.join(JOURNAL).exists() => {
                self.journal_now()?;
                match self.read_journal(location, options)? {
                    Some(result) => Ok(result),
                    None => self.read_file(location.clone(), options),
                }
            }
            other => other,
        }
    }

    /// `None`: it is not in the journal.
    fn read_journal(&self, location: &Path, options: &GetOptions) -> Result<Option<GetResult>> {
        let (key, journal) = (location.as_ref(), self.journal()?);
        let Some(found) = journal.find(key) else {
            return Ok(None);
        };
        let meta = journal_meta(location.clone(), &found);
        options.check_preconditions(&meta)?;
        let range = wanted_of(options, meta.size)?;
        let bytes = match options.head {
            true => Some(Bytes::new()),
            false => journal
                .read(key, &found, range.clone())
                .map_err(|error| read_error(location, error))?,
        };
        Ok(bytes.map(|bytes| get_result(meta, range, bytes)))
    }

    fn read_file(&self, location: Path, options: &GetOptions) -> Result<GetResult> {
        let path = self.file(&location);
        let fail = |error| read_error(&location, error);
        let file = File::open(&path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(ErrorKind::NotFound.into()));
        }
        let meta = object_meta(location.clone(), &metadata);
        options.check_preconditions(&meta)?;
        let read = || -> Result<_> {
            let range = wanted_of(options, meta.size)?;
            let bytes = match options.head {
                true => Bytes::new(),
                false => read_range(&file, &range).map_err(fail)?,
            };
            Ok((range, bytes))
        };
        let outcome = read();
        // Deleted meanwhile, its file may have been written again: neither the bytes nor a failure is the object's.
        let named = fs::metadata(&path).map_err(fail)?;
        if (named.dev(), named.ino()) != (metadata.dev(), metadata.ino()) {
            return Err(fail(ErrorKind::NotFound.into()));
        }
        let (range, bytes) = outcome?;
        Ok(get_result(meta, range, bytes))
    }

    pub(super) fn walk(&self, prefix: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let top = prefix.map_or_else(|| self.root.clone(), |prefix| self.file(prefix));
        // First the journal: an object that leaves it has a file before.
        let below = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        let mut found: Vec<ObjectMeta> = self
            .journal_now()?
            .list(&below)
            .into_iter()
            .filter_map(|(key, found)| Some(journal_meta(Path::parse(key).ok()?, &found)))
            .collect();
        let mut dirs = vec![top];
        while let Some(dir) = dirs.pop() {
            let fail = |error: io::Error| Error::from(LocalFailure::Io(error));
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(fail(error)),
            };
            for entry in entries {
                let entry = entry.map_err(fail)?;
                let name = entry.file_name();
                if dir == self.root && (name == TMP || name == LOCK || name == JOURNAL) {
                    continue;
                }
                if entry.file_type().map_err(fail)?.is_dir() {
                    dirs.push(entry.path());
                    continue;
                }
                // A file that somebody else put here under a name that is no key is nobody's object.
                let path = entry.path();
                let Some(key) = path.strip_prefix(&self.root).ok().and_then(FsPath::to_str) else {
                    continue;
                };
                let Ok(location) = Path::parse(key) else { continue };
                match entry.metadata() {
                    Ok(metadata) => found.push(object_meta(location, &metadata)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(fail(error)),
                }
            }
        }
        found.sort_by(|a, b| a.location.cmp(&b.location));
        found.dedup_by(|a, b| a.location == b.location);
        Ok(found)
    }
}

pub(super) fn read_error(location: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::NotFound {
            path: location.to_string(),
            source: Box::new(error),
        },
        ErrorKind::PermissionDenied => Error::PermissionDenied {
            path: location.to_string(),
            source: Box::new(error),
        },
        _ => LocalFailure::Io(error).into(),
    }
}

fn wanted_of(options: &GetOptions, size: u64) -> Result<Range<u64>> {
    Ok(match &options.range {
        None => 0..size,
        Some(range) => wanted(range, size).ok_or(LocalFailure::Range)?,
    })
}

fn get_result(meta: ObjectMeta, range: Range<u64>, bytes: Bytes) -> GetResult {
    GetResult {
        payload: GetResultPayload::Stream(futures::stream::iter([Ok(bytes)]).boxed()),
        meta,
        range,
        attributes: Attributes::new(),
        extensions: Default::default(),
    }
}

fn wanted(range: &GetRange, size: u64) -> Option<Range<u64>> {
    match range {
        GetRange::Bounded(range) if range.start < size && range.start < range.end => {
            Some(range.start..range.end.min(size))
        }
        GetRange::Offset(start) if *start < size => Some(*start..size),
        GetRange::Suffix(length) if *length > 0 && size > 0 => Some(size.saturating_sub(*length)..size),
        _ => None,
    }
}

fn read_range(file: &File, range: &Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

fn object_meta(location: Path, metadata: &fs::Metadata) -> ObjectMeta {
    let modified = metadata.modified().unwrap_or(std::time::UNIX_EPOCH);
    meta_of(location, metadata.len(), modified)
}

fn journal_meta(location: Path, found: &journal::Found) -> ObjectMeta {
    let since = Duration::from_millis(found.modified_ms.max(0).unsigned_abs());
    meta_of(location, found.length, std::time::UNIX_EPOCH + since)
}

fn meta_of(location: Path, size: u64, modified: std::time::SystemTime) -> ObjectMeta {
    ObjectMeta {
        location,
        last_modified: modified.into(),
        size,
        e_tag: None,
        version: None,
    }
}
