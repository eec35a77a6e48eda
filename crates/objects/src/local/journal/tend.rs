//! What is done beside the puts: making files before they are needed, emptying those with remnants, giving back space.

use super::super::aligned::Aligned;
use super::super::write::sync_failure;
use super::record::FILE_BYTES;
use super::*;

/// Of a file that is being made.
const UNFINISHED: &str = "new";

/// Removes what an earlier process did not finish.
pub(super) fn clear_unfinished(dir: &Path, disk: &dyn Disk) {
    for path in disk.names(dir).unwrap_or_default() {
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            // What stays is only litter.
            let _ = disk.remove(&path);
        }
    }
}

impl Journal {
    /// Whether [`Journal::tend`] has something to do; says so once.
    pub(in crate::local) fn wants_tending(&self) -> bool {
        self.writes && self.wants_file.swap(false, Ordering::Relaxed)
    }

    /// Makes a file more, or empties one with remnants: `give_file` puts an object into a file of its own, durably,
    /// unless there is one.
    pub(in crate::local) fn tend(
        &self,
        now_ms: i64,
        give_file: impl Fn(&str, Bytes) -> Result<(), LocalFailure>,
    ) -> Result<(), LocalFailure> {
        let (number, first) = {
            let mut state = self.lock();
            let late = state.grow_after.is_none_or(|after| Instant::now() >= after);
            if state.closed || state.growing || !late || state.spares().next().is_some() {
                return Ok(());
            }
            state.growing = true;
            let unused = (0..).find(|number| !state.files.contains_key(number));
            let room = state.files.len() < MAX_FILES;
            (unused.filter(|_| room), state.files.is_empty())
        };
        let outcome = match number {
            Some(number) => self.make_file(number, first).map(|file| Some((number, file))),
            None => self.empty_remnants(now_ms, give_file).map(|()| None),
        };
        let mut state = self.lock();
        state.growing = false;
        match outcome {
            Ok(None) => {}
            Ok(Some((number, file))) => {
                state.files.insert(number, file);
            }
            Err(failure) => {
                state.grow_after = Some(Instant::now() + GROW_AGAIN);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// A file whose blocks are all written, and durable as such: later writes change nothing of the file system's own.
    fn make_file(&self, number: u32, first: bool) -> Result<JournalFile, LocalFailure> {
        self.disk.create_dir(&self.dir)?;
        if let (true, Some(root)) = (first, self.dir.parent()) {
            self.disk.sync_dir(root).map_err(LocalFailure::Fsync)?;
        }
        let path = self.dir.join(format!("{number:04}"));
        let unfinished = path.with_extension(UNFINISHED);
        let made = self.fill(&unfinished).and_then(|header| {
            self.disk.rename(&unfinished, &path)?;
            self.disk.sync_dir(&self.dir).map_err(LocalFailure::Fsync)?;
            Ok(header)
        });
        let header = made.inspect_err(|_| {
            // What stays is only litter.
            let _ = self.disk.remove(&unfinished);
        })?;
        let reads = self.disk.open(&path)?;
        let writes = self.disk.open_for_writes(&path, true)?;
        Ok(JournalFile::new(path, reads, Some(writes), header))
    }

    fn fill(&self, path: &Path) -> Result<FileHeader, LocalFailure> {
        let header = FileHeader {
            tag: [0; 16],
            generation: 0,
            first: 0,
            settled: 0,
            end: 1,
            dead: Dead::none(),
            before: None,
        };
        let file = self.disk.create(path)?;
        let mut zeros = Aligned::new(FILE_BYTES as usize / 8);
        for part in 0..8 {
            file.write_at(&[zeros.as_mut()], part * FILE_BYTES / 8)?;
        }
        file.write_at(&[header.encode().as_mut()], 0)?;
        // Nothing rests on this file yet: where there is no room for it, there is none.
        file.sync_all().map_err(sync_failure)?;
        Ok(header)
    }

    /// Gives files of their own to what is left in journal files that are nearly empty.
    fn empty_remnants(
        &self,
        now_ms: i64,
        give_file: impl Fn(&str, Bytes) -> Result<(), LocalFailure>,
    ) -> Result<(), LocalFailure> {
        let old = now_ms - OLD_MS;
        let remnants: Vec<u32> = {
            let state = self.lock();
            let young: BTreeSet<u32> = state
                .index
                .values()
                .filter(|found| found.modified_ms > old)
                .map(|found| found.file)
                .collect();
            let nearly = |(number, file): &(&u32, &JournalFile)| {
                let small = file.live > 0 && file.live_bytes <= REMNANT && file.in_flight == 0;
                state.active != Some(**number) && small && !young.contains(number)
            };
            let remnants = state.files.iter().filter(nearly);
            remnants.map(|(number, _)| *number).collect()
        };
        if remnants.is_empty() {
            // What there is, is wanted: puts go the longer way, and need not ask again at once.
            self.lock().grow_after = Some(Instant::now() + GROW_AGAIN / 10);
            return Ok(());
        }
        self.empty(|found| remnants.contains(&found.file), give_file)
    }

    fn empty(
        &self,
        which: impl Fn(&Found) -> bool,
        give_file: impl Fn(&str, Bytes) -> Result<(), LocalFailure>,
    ) -> Result<(), LocalFailure> {
        let moving = self.list("").into_iter().filter(|(_, found)| which(found));
        let mut outcome = Ok(());
        for (key, _) in moving.collect::<Vec<_>>() {
            // Nobody puts or deletes it meanwhile. One that cannot be moved holds up no other.
            let held = self.hold(&key);
            let Some(found) = self.find(&key) else { continue };
            let moved = self
                .read(&key, &found, 0..found.length)
                .map_err(LocalFailure::from);
            match moved.and_then(|bytes| bytes.map_or(Ok(()), |bytes| give_file(&key, bytes))) {
                Ok(()) => drop(self.delete(&held)),
                Err(failure) => outcome = Err(failure),
            }
        }
        self.write_headers()?;
        outcome
    }

    /// Ends the journal: every object gets a file of its own, and the directory is one that any tool can copy.
    pub(in crate::local) fn close(
        &self,
        give_file: impl Fn(&str, Bytes) -> Result<(), LocalFailure>,
    ) -> Result<(), LocalFailure> {
        {
            let mut state = self.lock();
            state.closed = true;
            state.active = None;
        }
        self.empty(|_| true, give_file)?;
        // Nothing is in flight any more, or it keeps its file.
        let spares: Vec<u32> = self.lock().spares().collect();
        self.remove(spares);
        Ok(())
    }

    /// Removes the files that were not wanted since the last call, but for the one of the latest generation: numbers
    /// and generations go on from there.
    pub(in crate::local) fn release(&self) {
        let excess = {
            let mut state = self.lock();
            let latest = state
                .files
                .iter()
                .max_by_key(|(_, file)| file.header.generation)
                .map(|(number, _)| *number);
            let free: Vec<u32> = state.spares().collect();
            let wanted = free.len() - state.spare.min(free.len());
            state.spare = wanted;
            free.into_iter()
                .filter(|number| Some(*number) != latest)
                .skip(wanted)
                .collect()
        };
        self.remove(excess);
    }

    fn remove(&self, numbers: Vec<u32>) {
        for number in numbers {
            let file = {
                let mut state = self.lock();
                // It may have been begun meanwhile.
                let is_spare = state.spares().any(|spare| spare == number);
                is_spare.then(|| state.files.remove(&number)).flatten()
            };
            if let Some(file) = file {
                // What stays is read by the next start, which finds nothing in it.
                let _ = self.disk.remove(&file.path);
            }
        }
    }
}
