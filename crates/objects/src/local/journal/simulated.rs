//! A disk that stops at any write and forgets any of what was not synced, and threads that take turns on it.
//!
//! Every write, sync and change of a name is a step. At each step the thread gives its turn to one that is drawn from
//! the seed, and only one runs at a time, so that a run is the same for the same seed. From the step at which the power
//! goes nothing succeeds any more; [`SimulatedDisk::restart`] then keeps of each block any of the versions that were
//! written since its last sync, and of the names likewise.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::aligned::BLOCK;
use super::disk::{Disk, DiskFile};

thread_local! {
    static TURNS: RefCell<Option<(Arc<Turns>, usize)>> = const { RefCell::new(None) };
}

/// Threads of which one runs at a time.
pub(super) struct Turns {
    state: Mutex<TurnState>,
    changed: Condvar,
}

struct TurnState {
    rng: StdRng,
    waiting: BTreeSet<usize>,
    running: Option<usize>,
    live: usize,
    passed: u64,
}

/// More turns than any run takes: somebody waits for what never comes.
const MOST_TURNS: u64 = 1_000_000;

impl Turns {
    fn pick(&self, state: &mut TurnState) {
        if state.running.is_none() && state.live > 0 && state.waiting.len() == state.live {
            let at = state.rng.random_range(0..state.waiting.len());
            let next = state.waiting.iter().nth(at).copied();
            state.waiting.retain(|waiting| Some(*waiting) != next);
            state.running = next;
            state.passed += 1;
            assert!(state.passed < MOST_TURNS, "a thread waits for ever");
            self.changed.notify_all();
        }
    }

    fn pass(&self, me: usize) {
        let mut state = self.state.lock().unwrap();
        if state.running == Some(me) {
            state.running = None;
        }
        state.waiting.insert(me);
        self.pick(&mut state);
        while state.running != Some(me) {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn leave(&self, me: usize) {
        let mut state = self.state.lock().unwrap();
        state.live -= 1;
        if state.running == Some(me) {
            state.running = None;
        }
        self.pick(&mut state);
    }
}

/// Whether this thread takes turns with others.
pub(super) fn takes_turns() -> bool {
    TURNS.with_borrow(Option::is_some)
}

/// Lets another thread run.
pub(super) fn pass_turn() {
    if let Some((turns, me)) = TURNS.with_borrow(Clone::clone) {
        turns.pass(me);
    }
}

/// Runs all work at the same time, in an order that the seed tells.
pub(super) fn take_turns(seed: u64, works: Vec<Box<dyn FnOnce() + Send + '_>>) {
    let turns = Arc::new(Turns {
        state: Mutex::new(TurnState {
            rng: StdRng::seed_from_u64(seed),
            waiting: BTreeSet::new(),
            running: None,
            live: works.len(),
            passed: 0,
        }),
        changed: Condvar::new(),
    });
    struct Leave(Arc<Turns>, usize);
    impl Drop for Leave {
        fn drop(&mut self) {
            TURNS.set(None);
            self.0.leave(self.1);
        }
    }
    std::thread::scope(|scope| {
        for (me, work) in works.into_iter().enumerate() {
            let turns = turns.clone();
            scope.spawn(move || {
                TURNS.set(Some((turns.clone(), me)));
                let _leave = Leave(turns.clone(), me);
                turns.pass(me);
                work();
            });
        }
    });
}

/// What fails at a step, and only there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The power goes: nothing succeeds from here on.
    PowerCut,
    /// The process is killed: as a power cut, but the system still writes all that it was given.
    Kill,
    /// A sync fails, once: of what was to be made durable any part is not, and never will be.
    SyncFails,
    /// A write finds no room.
    Full,
}

/// A disk of files and names.
#[derive(Clone)]
pub(super) struct SimulatedDisk {
    shared: Arc<Mutex<State>>,
}

struct State {
    rng: StdRng,
    files: BTreeMap<u64, Stored>,
    next_file: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Since the last sync of their directory.
    renamed: Vec<Change>,
    steps: u64,
    fault: Option<(u64, Fault)>,
    stopped: bool,
}

#[derive(Clone)]
enum Change {
    Named(PathBuf, u64),
    Removed(PathBuf),
}

type Block = Option<Arc<[u8]>>;

#[derive(Clone, Default)]
struct Stored {
    /// Blocks that are not all zeros.
    seen: BTreeMap<u64, Arc<[u8]>>,
    durable: BTreeMap<u64, Arc<[u8]>>,
    unsynced: Vec<(u64, Block)>,
    length: u64,
}

impl Stored {
    fn keep(blocks: &mut BTreeMap<u64, Arc<[u8]>>, at: u64, block: Block) {
        match block {
            Some(bytes) => blocks.insert(at, bytes),
            None => blocks.remove(&at),
        };
    }
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renamed: Vec::new(),
            steps: 0,
            fault: None,
            stopped: false,
        };
        Self {
            shared: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap()
    }

    /// Another disk with the same contents.
    pub(super) fn copy(&self, seed: u64) -> Self {
        let of = self.state();
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            files: of.files.clone(),
            next_file: of.next_file,
            names: of.names.clone(),
            durable_names: of.durable_names.clone(),
            renamed: of.renamed.clone(),
            steps: of.steps,
            fault: None,
            stopped: false,
        };
        Self {
            shared: Arc::new(Mutex::new(state)),
        }
    }

    /// Steps so far.
    pub(super) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Lets something fail at the step that is so far ahead.
    pub(super) fn fail_at(&self, ahead: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.steps + ahead, fault));
    }

    /// Whether nothing succeeds any more.
    pub(super) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Starts the machine, or the process, again.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        let state = &mut *state;
        let killed = matches!(state.fault, Some((_, Fault::Kill)));
        let rng = &mut state.rng;
        if !killed {
            for file in state.files.values_mut() {
                for (at, block) in std::mem::take(&mut file.unsynced) {
                    if rng.random_bool(0.5) {
                        Stored::keep(&mut file.durable, at, block);
                    }
                }
                file.seen = file.durable.clone();
            }
            for change in std::mem::take(&mut state.renamed) {
                if rng.random_bool(0.5) {
                    apply(&mut state.durable_names, &change);
                }
            }
            state.names = state.durable_names.clone();
        }
        (state.fault, state.stopped) = (None, false);
    }

    /// Takes a step: whether what is to happen fails, or happens in part.
    fn step(&self) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        pass_turn();
        let mut state = self.state();
        if state.stopped {
            return Err(io::Error::other("the power is off"));
        }
        state.steps += 1;
        let due = state.fault.filter(|(at, _)| state.steps == *at);
        let due = due.map(|(_, fault)| fault);
        if matches!(due, Some(Fault::PowerCut | Fault::Kill)) {
            state.stopped = true;
        }
        Ok((state, due))
    }

    fn handle(&self, file: u64) -> Arc<dyn DiskFile> {
        Arc::new(Handle {
            disk: self.clone(),
            file,
        })
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let (mut state, due) = self.step()?;
        apply(&mut state.names, &change);
        state.renamed.push(change);
        ended(due)
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &Change) {
    match change {
        Change::Named(path, file) => {
            names.retain(|_, named| named != file);
            names.insert(path.clone(), *file);
        }
        Change::Removed(path) => drop(names.remove(path)),
    }
}

/// What was begun when the power went may have happened, and nobody hears of it.
fn ended(due: Option<Fault>) -> io::Result<()> {
    match due {
        Some(Fault::PowerCut | Fault::Kill) => Err(io::Error::other("the power goes")),
        _ => Ok(()),
    }
}

impl Disk for SimulatedDisk {
    fn names(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        let below = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(below.cloned().collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let (mut state, due) = self.step()?;
        ended(due)?;
        for change in std::mem::take(&mut state.renamed) {
            apply(&mut state.durable_names, &change);
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.state().names.get(path).copied();
        file.map(|file| self.handle(file))
            .ok_or(ErrorKind::NotFound.into())
    }

    fn open_for_writes(&self, path: &Path, _direct: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = {
            let mut state = self.state();
            state.next_file += 1;
            let file = state.next_file;
            state.files.insert(file, Stored::default());
            file
        };
        self.change(Change::Named(path.to_owned(), file))?;
        Ok(self.handle(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.state().names.get(from).copied();
        let file = file.ok_or(ErrorKind::NotFound)?;
        self.change(Change::Named(to.to_owned(), file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Change::Removed(path.to_owned()))
    }
}

struct Handle {
    disk: SimulatedDisk,
    file: u64,
}

impl DiskFile for Handle {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let state = self.disk.state();
        let file = state.files.get(&self.file).ok_or(ErrorKind::NotFound)?;
        if at + bytes.len() as u64 > file.length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.fill(0);
        let block = BLOCK as u64;
        for (n, stored) in file
            .seen
            .range(at / block..(at + bytes.len() as u64).div_ceil(block))
        {
            let from = (n * block).max(at);
            let to = ((n + 1) * block).min(at + bytes.len() as u64);
            bytes[(from - at) as usize..(to - at) as usize]
                .copy_from_slice(&stored[(from - n * block) as usize..(to - n * block) as usize]);
        }
        Ok(())
    }

    fn write_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let (mut state, due) = self.disk.step()?;
        let mut bytes = parts.concat();
        assert!(at.is_multiple_of(BLOCK as u64) && bytes.len().is_multiple_of(BLOCK));
        if due == Some(Fault::Full) {
            // Some of it found room.
            let blocks = bytes.len() / BLOCK;
            let kept = state.rng.random_range(0..=blocks);
            bytes.truncate(kept * BLOCK);
        }
        let file = state.files.get_mut(&self.file).ok_or(ErrorKind::NotFound)?;
        file.length = file.length.max(at + bytes.len() as u64);
        for (n, block) in (at / BLOCK as u64..).zip(bytes.chunks(BLOCK)) {
            let block: Block = block.iter().any(|byte| *byte != 0).then(|| block.into());
            Stored::keep(&mut file.seen, n, block.clone());
            file.unsynced.push((n, block));
        }
        if due == Some(Fault::Full) {
            return Err(ErrorKind::StorageFull.into());
        }
        ended(due)
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, due) = self.disk.step()?;
        ended(due)?;
        let state = &mut *state;
        let file = state.files.get_mut(&self.file).ok_or(ErrorKind::NotFound)?;
        let fails = due == Some(Fault::SyncFails);
        for (n, block) in std::mem::take(&mut file.unsynced) {
            if !fails || state.rng.random_bool(0.5) {
                Stored::keep(&mut file.durable, n, block);
            }
        }
        match fails {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn length(&self) -> io::Result<u64> {
        let state = self.disk.state();
        let file = state.files.get(&self.file).ok_or(ErrorKind::NotFound)?;
        Ok(file.length)
    }
}
