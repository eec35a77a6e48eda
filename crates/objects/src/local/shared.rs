//! What a local store's calls share: names, the lock, the journal, and the ways of a put and a delete through them.

use super::*;

/// How an object is put.
#[derive(Clone, Copy)]
pub(super) enum How {
    Overwrite,
    /// If there is none. `brief_at`: it does not stay ([`Brief`]), and when it is put, Unix milliseconds.
    Create {
        brief_at: Option<i64>,
    },
}

impl Shared {
    /// A name that nobody has had.
    pub(super) fn tmp_path(&self) -> PathBuf {
        let n = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        let dir = self.root.join(TMP).join((n % TMP_DIRS).to_string());
        dir.join(format!("{:016x}-{n}", self.tag))
    }

    /// Takes over what earlier processes left.
    pub(super) fn adopt_tmp(&self) {
        let own = format!("{:016x}-", self.tag);
        for n in 0..TMP_DIRS {
            let dir = self.root.join(TMP).join(n.to_string());
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| name.starts_with(&own))
                {
                    continue;
                }
                // A file of two names is an object too: only this name of it goes.
                match entry.metadata() {
                    Ok(found)
                        if found.is_file()
                            && found.nlink() == 1
                            && !self.is_buffered()
                            && self.recycled.wants(found.len()) =>
                    {
                        self.recycled.keep(entry.path(), found.len());
                    }
                    // What stays is only litter; the next start tries again.
                    _ => drop(fs::remove_file(entry.path())),
                }
            }
        }
    }

    /// Keeps the directory locked while it is there.
    pub(super) fn held(&self) -> Option<Arc<File>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    pub(super) fn journal_slot(&self) -> MutexGuard<'_, JournalSlot> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal. Its files are read at the first call, and anew for who has, or lost, the lock.
    pub(super) fn journal(&self) -> std::result::Result<Arc<Journal>, LocalFailure> {
        let mut slot = self.journal_slot();
        let writes = self.held().is_some();
        match &*slot {
            JournalSlot::Read(journal) if journal.writes() == writes => return Ok(journal.clone()),
            // Rule S2: what the disk holds is not known, and another fsync would not say so.
            JournalSlot::FsyncFailed(what) => {
                return Err(LocalFailure::Fsync(io::Error::other(what.clone())));
            }
            JournalSlot::Read(_) | JournalSlot::Unread => {}
        }
        let opened = self.open_journal(writes);
        match &opened {
            Ok(journal) => *slot = JournalSlot::Read(journal.clone()),
            Err(LocalFailure::Fsync(error)) => *slot = JournalSlot::FsyncFailed(error.to_string()),
            Err(_) => *slot = JournalSlot::Unread,
        }
        opened
    }

    fn open_journal(&self, writes: bool) -> std::result::Result<Arc<Journal>, LocalFailure> {
        // A file counts before the journal's record once its name is durable: whoever made it may have died before.
        let durable = std::cell::RefCell::new(HashSet::new());
        let is_object = |key: &str| {
            let path = self.root.join(key);
            let there = is_there(&path)?;
            if there && writes && durable.borrow_mut().insert(path.parent().map(FsPath::to_owned)) {
                self.forget(&path);
                self.make_parent_durable(&path)?;
            }
            Ok(there)
        };
        let mut seed = [0; 16];
        seed[..8].copy_from_slice(&self.env.random_u64().to_be_bytes());
        seed[8..].copy_from_slice(&self.env.random_u64().to_be_bytes());
        let opening = Opening {
            writes,
            direct: !self.is_buffered(),
            seed,
        };
        let dir = self.root.join(JOURNAL);
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let opened = Journal::open(&dir, &disk, opening, is_object);
        let opened = match opened {
            // Copied here from elsewhere: this file system refuses direct I/O.
            Err(LocalFailure::Io(error)) if opening.direct && writes && write::is_refusal(&error) => {
                self.buffered.store(true, Ordering::Relaxed);
                Journal::open(
                    &dir,
                    &disk,
                    Opening {
                        direct: false,
                        ..opening
                    },
                    is_object,
                )
            }
            other => other,
        };
        opened.map(Arc::new)
    }

    /// The journal as it is now, also if another process writes it.
    pub(super) fn journal_now(&self) -> std::result::Result<Arc<Journal>, LocalFailure> {
        if self.held().is_none() {
            let mut slot = self.journal_slot();
            if let JournalSlot::Read(_) = &*slot {
                *slot = JournalSlot::Unread;
            }
        }
        self.journal()
    }

    /// What nobody waits for can fail in an fsync too, and that ends the incarnation (rule S2).
    fn note(&self, failure: &LocalFailure) {
        if let LocalFailure::Fsync(_) = failure {
            let what = format!("journal of {}: {failure}", self.root.display());
            self.env.fail(crate::task::Failure::Fsync { what });
        }
    }

    /// Makes a file for the journal, or empties one.
    pub(super) fn tend_journal(&self) {
        let Some(_held) = self.held().filter(|_| !self.is_buffered()) else {
            return;
        };
        let tended = self
            .journal()
            .and_then(|journal| journal.tend(self.env.now_ms(), |key, bytes| self.give_file(key, bytes)));
        if let Err(failure) = tended {
            self.note(&failure);
            // Puts go the longer way then, and say what is wrong if that is closed too.
            tracing::debug!(%failure, "no file for the journal");
        }
    }

    pub(super) fn journal_wants_tending(&self) -> bool {
        matches!(&*self.journal_slot(), JournalSlot::Read(journal) if journal.wants_tending())
    }

    pub(super) fn give_file(&self, key: &str, bytes: Bytes) -> std::result::Result<(), LocalFailure> {
        write::put(self, &self.root.join(key), &PutPayload::from_bytes(bytes), true).map(|_| ())
    }

    /// Puts an object. `Ok(false)`: there is one already, and `if_absent`.
    pub(super) fn put(
        &self,
        key: &str,
        payload: &PutPayload,
        crc: Option<u32>,
        how: How,
    ) -> std::result::Result<bool, LocalFailure> {
        // Nobody else may take the directory over while this writes, though its own guard be gone.
        let held = self.held();
        let path = self.root.join(key);
        let journal = self.journal_now()?;
        let claim = match how {
            How::Overwrite => journal.hold(key),
            How::Create { .. } => match journal.claim(key) {
                Some(claim) => claim,
                None => return Ok(false),
            },
        };
        if let How::Create {
            brief_at: Some(now_ms),
        } = how
            && held.is_some()
            && !self.is_buffered()
        {
            if is_there(&path)? {
                return Ok(false);
            }
            if journal.put(&claim, payload, crc, now_ms)? {
                return Ok(true);
            }
        }
        let put = write::put(self, &path, payload, matches!(how, How::Create { .. }))?;
        if put {
            journal.delete(&claim);
        }
        Ok(put)
    }

    /// Deletes an object. True: it was in the journal, where that is to be written down.
    pub(super) fn delete(&self, location: &Path) -> std::result::Result<bool, Error> {
        let held = self.held();
        let journal = self.journal_now()?;
        let claim = journal.hold(location.as_ref());
        if journal.delete(&claim) {
            return match held {
                Some(_) => Ok(true),
                None => Err(LocalFailure::Refused("another process has the directory".to_owned()).into()),
            };
        }
        self.delete_file(location)
            .map_err(|error| read_error(location, error))?;
        Ok(false)
    }

    pub(super) fn write_down(&self) {
        self.writing_down.store(false, Ordering::Relaxed);
        if let (Some(_held), Ok(journal)) = (self.held(), self.journal())
            && let Err(error) = journal.write_headers()
        {
            self.note(&error);
            // What comes back after a crash is deleted again, and the next time tells all.
            tracing::warn!(root = %self.root.display(), %error, "what happened in the journal could not be written down");
        }
    }

    /// Deletes an object's file; it is kept to be written again while there is room.
    pub(super) fn delete_file(&self, location: &Path) -> io::Result<()> {
        let path = self.file(location);
        let found = fs::symlink_metadata(&path)?;
        let keeps = found.is_file() && found.nlink() == 1 && self.recycled.wants(found.len());
        if !keeps || self.is_buffered() {
            return fs::remove_file(path);
        }
        let kept = self.tmp_path();
        match fs::rename(&path, &kept) {
            Ok(()) => self.recycled.keep(kept, found.len()),
            // A new name takes space, which a full disk does not have, and a folder, which somebody removed.
            Err(_) => return fs::remove_file(path),
        }
        Ok(())
    }

    pub(super) fn is_buffered(&self) -> bool {
        self.buffered.load(Ordering::Relaxed)
    }

    pub(super) fn file(&self, location: &Path) -> PathBuf {
        self.root.join(location.as_ref())
    }

    pub(super) fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, file: &FsPath) {
        if let Some(parent) = file.parent() {
            self.durable().remove(parent);
        }
    }

    /// Creates the directory of `file` and makes it and all above it durable, up to the root. Those that exist
    /// already are synced too: an earlier process may have died between making and syncing them.
    pub(super) fn make_parent_durable(&self, file: &FsPath) -> std::result::Result<(), LocalFailure> {
        let Some(parent) = file.parent() else {
            return Ok(());
        };
        if self.durable().contains(parent) {
            return Ok(());
        }
        fs::create_dir_all(parent)?;
        for dir in parent.ancestors() {
            write::fsync_dir(dir)?;
            if dir == self.root {
                break;
            }
        }
        let mut durable = self.durable();
        if durable.len() >= REMEMBERED {
            durable.clear();
        }
        durable.insert(parent.to_owned());
        Ok(())
    }
}

/// Whether there is a file. Any other failure is none of a missing one.
fn is_there(path: &FsPath) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}
