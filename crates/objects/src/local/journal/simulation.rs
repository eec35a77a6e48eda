//! The journal's own code on a disk that stops at any write: concurrent puts and deletions, killed at every step, and
//! the starts that follow, killed at their steps too.
//!
//! What must hold after each start: what was acknowledged is there, byte for byte, unless its deletion was begun; of
//! what was not acknowledged nothing is there, or all of it; what a start once found missing never comes back. And every
//! start succeeds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use object_store::PutPayload;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::simulated::{Fault, SimulatedDisk, take_turns};
use super::*;

const DIR: &str = "/store/.journal";
/// Threads that put and delete.
const WORKERS: u64 = 3;
const NOW_MS: i64 = 1_000_000;

/// What is known of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Its put was acknowledged, or a start found it.
    There,
    /// Its put, or its deletion, may have taken effect.
    Open,
    /// A start did not find it.
    Missing,
}

/// All objects that there ever were, by key: their bytes' seed and length, and what is known of them.
#[derive(Clone, Default)]
struct Model {
    objects: BTreeMap<String, (u64, usize, Known)>,
    /// Objects with files of their own, which are durable at once.
    files: BTreeMap<String, Bytes>,
    /// Draws the bytes of the next one.
    next: u64,
}

/// Bytes that tell which they are, at both ends.
fn body(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![seed as u8 | 1; length];
    let tag = seed.to_be_bytes();
    for at in [0, length.saturating_sub(8)] {
        let count = 8.min(length - at);
        bytes[at..at + count].copy_from_slice(&tag[..count]);
    }
    bytes.into()
}

struct Life<'a> {
    journal: &'a Journal,
    model: &'a Mutex<Model>,
}

impl Life<'_> {
    fn put(&self, key: &str, length: usize) {
        let seed = {
            let mut model = self.model.lock().unwrap();
            model.next += 1;
            let seed = model.next;
            model.objects.insert(key.to_owned(), (seed, length, Known::Open));
            seed
        };
        let bytes = body(seed, length);
        let claim = self.journal.claim(key).expect("the key is new");
        let put = self
            .journal
            .put(&claim, &PutPayload::from_bytes(bytes.clone()), None, NOW_MS);
        let mut model = self.model.lock().unwrap();
        match put {
            Ok(true) => {}
            // As the store does: a file of its own.
            Ok(false) => drop(model.files.insert(key.to_owned(), bytes)),
            Err(_) => return,
        }
        model.objects.get_mut(key).unwrap().2 = Known::There;
    }

    fn delete(&self, key: &str) {
        let claim = self.journal.hold(key);
        if let Some(object) = self.model.lock().unwrap().objects.get_mut(key) {
            object.2 = Known::Open;
        }
        if !self.journal.delete(&claim) {
            self.model.lock().unwrap().files.remove(key);
        }
    }

    fn give_file(&self, key: &str, bytes: Bytes) -> Result<(), LocalFailure> {
        self.model.lock().unwrap().files.insert(key.to_owned(), bytes);
        Ok(())
    }

    /// Makes a file, or empties one.
    fn tend(&self) {
        let _ = self
            .journal
            .tend(NOW_MS + 2 * OLD_MS, |key, bytes| self.give_file(key, bytes));
    }

    fn work(&self, worker: u64, life: u64, rng: &mut StdRng, steps: usize) {
        // Of the lives before, each has its part.
        let mut own: Vec<String> = {
            let model = self.model.lock().unwrap();
            let there = model
                .objects
                .iter()
                .filter(|(_, object)| object.2 == Known::There);
            let mine = there.skip(worker as usize).step_by(WORKERS as usize);
            mine.map(|(key, _)| key.clone()).collect()
        };
        // In some lives all that was there goes first, so that files are begun again.
        if life % 2 == 1 {
            own.drain(..).for_each(|key| self.delete(&key));
        }
        for n in 0..steps {
            match rng.random_range(0..20) {
                0..=10 => {
                    let key = format!("wal/{life}/{worker}/{n:03}");
                    let length = match rng.random_range(0..5) {
                        0 => rng.random_range(0..MAX_OBJECT),
                        1 | 2 => rng.random_range(100_000..300_000),
                        _ => rng.random_range(0..9_000),
                    };
                    self.put(&key, length);
                    own.push(key);
                }
                11..=16 if !own.is_empty() => {
                    let key = own.remove(0);
                    self.delete(&key);
                }
                17 => drop(self.journal.write_headers()),
                18 => self.tend(),
                // As if the file were full.
                19 if rng.random_bool(0.6) => self.journal.lock().active = None,
                _ if rng.random_bool(0.1) => self.journal.release(),
                _ => {}
            }
        }
    }
}

fn open(disk: &SimulatedDisk, model: &Mutex<Model>) -> Result<Journal, LocalFailure> {
    let opening = Opening {
        writes: true,
        direct: true,
        seed: [model.lock().unwrap().next as u8; 16],
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Journal::open(Path::new(DIR), &disk, opening, |key| {
        Ok(model.lock().unwrap().files.contains_key(key))
    })
}

/// A start that nothing disturbs, and what it finds.
fn start(disk: &SimulatedDisk, model: &Mutex<Model>, said: &str) -> Journal {
    let journal = open(disk, model).unwrap_or_else(|failure| panic!("{said}: no start: {failure}"));
    let mut found: BTreeMap<String, Bytes> = model.lock().unwrap().files.clone();
    for (key, place) in journal.list("") {
        assert!(!found.contains_key(&key), "{said}: {key} is twice");
        let bytes = journal.read(&key, &place, 0..place.length).unwrap().unwrap();
        found.insert(key, bytes);
    }
    let mut model = model.lock().unwrap();
    for (key, (seed, length, known)) in &mut model.objects {
        match found.remove(key) {
            Some(bytes) => {
                assert_ne!(*known, Known::Missing, "{said}: {key} came back");
                assert!(bytes == body(*seed, *length), "{said}: {key} has other bytes");
                *known = Known::There;
            }
            None => {
                assert_ne!(*known, Known::There, "{said}: {key} is lost");
                *known = Known::Missing;
            }
        }
    }
    assert!(found.is_empty(), "{said}: never put: {:?}", found.keys());
    journal
}

/// Some work of several threads on an open journal; ends at the disk's fault, if that has one.
fn live(journal: &Journal, model: &Mutex<Model>, seed: u64, life: u64, steps: usize) {
    Life { journal, model }.tend();
    let works = (0..WORKERS).map(|worker| {
        let work = move || {
            let mut rng = StdRng::seed_from_u64(seed ^ (worker << 32));
            Life { journal, model }.work(worker, life, &mut rng, steps);
        };
        Box::new(work) as Box<dyn FnOnce() + Send + '_>
    });
    take_turns(seed, works.collect());
}

fn given_seed() -> Option<u64> {
    std::env::var("DRUMLIN_JOURNAL_SEED").ok()?.parse().ok()
}

/// A disk, a model and the work of a life before, so that files are there, some of them full, some empty.
fn prepared(seed: u64) -> (SimulatedDisk, Model) {
    let (disk, model) = (SimulatedDisk::new(seed), Mutex::new(Model::default()));
    for life in 0..2 {
        let journal = start(&disk, &model, "before");
        live(&journal, &model, seed + 1000 * life, life, 40);
        disk.restart();
    }
    (disk, model.into_inner().unwrap())
}

/// Starts that are cut off at one step after another, each on what the one before left, until one gets through.
fn start_again_and_again(disk: &SimulatedDisk, model: &Mutex<Model>, rng: &mut StdRng, said: &str) -> u64 {
    for attempt in 0.. {
        let at = rng.random_range(1..8) + attempt;
        disk.fail_at(
            at,
            match rng.random_bool(0.8) {
                true => Fault::PowerCut,
                false => Fault::Kill,
            },
        );
        let opened = open(disk, model);
        let stopped = disk.is_stopped();
        if let Err(failure) = &opened {
            assert!(stopped, "{said}, attempt {attempt}: no start: {failure}");
        }
        drop(opened);
        disk.restart();
        if !stopped {
            return attempt;
        }
    }
    0
}

fn killed_at_every_step(seed: u64, every: u64) -> (u64, u64) {
    let (disk, model) = prepared(seed);
    let steps = {
        let (disk, model) = (disk.copy(seed), Mutex::new(model.clone()));
        let journal = start(&disk, &model, "to count");
        let before = disk.steps();
        live(&journal, &model, seed, 9, 30);
        disk.steps() - before
    };
    let (mut kills, mut starts) = (0, 0);
    for at in (1..=steps).step_by(every as usize) {
        let said = format!("DRUMLIN_JOURNAL_SEED={seed}, killed at step {at} of {steps}");
        let mut rng = StdRng::seed_from_u64(seed ^ (at << 20));
        let (disk, model) = (disk.copy(seed ^ at), Mutex::new(model.clone()));
        let journal = start(&disk, &model, &said);
        let fault = match rng.random_bool(0.8) {
            true => Fault::PowerCut,
            false => Fault::Kill,
        };
        disk.fail_at(at, fault);
        live(&journal, &model, seed, 9, 30);
        drop(journal);
        disk.restart();
        kills += 1;
        starts += start_again_and_again(&disk, &model, &mut rng, &said);
        // And once more: the first start that gets through settles what was open.
        let journal = start(&disk, &model, &said);
        live(&journal, &model, seed ^ at, 10, 6);
        drop(journal);
        disk.fail_at(1, Fault::PowerCut);
        disk.restart();
        start(&disk, &model, &said);
    }
    (kills, starts)
}

#[test]
fn killed_at_every_write_no_acknowledged_object_is_lost_and_every_start_succeeds() {
    let seeds = match given_seed() {
        Some(seed) => vec![(seed, 1)],
        // A part of the steps for each of some seeds, one of them new each time.
        None => vec![
            (1, 3),
            (2, 5),
            (3, 7),
            (crate::env::Env::real().random_u64() >> 1, 9),
        ],
    };
    for (seed, every) in seeds {
        let began = std::time::Instant::now();
        let (kills, starts) = killed_at_every_step(seed, every);
        println!(
            "DRUMLIN_JOURNAL_SEED={seed}: {kills} kills, {starts} starts cut off, {:?}",
            began.elapsed()
        );
        assert!(kills > 5 && starts > kills / 2, "{kills} kills, {starts} starts");
    }
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged_that_may_be_lost() {
    for seed in given_seed().map_or(vec![11, 12, 13], |seed| vec![seed]) {
        let (disk, model) = prepared(seed);
        let mut failures = 0;
        for at in (1..120).step_by(5) {
            let said = format!("DRUMLIN_JOURNAL_SEED={seed}, the sync at step {at} fails");
            let (disk, model) = (disk.copy(seed ^ at), Mutex::new(model.clone()));
            let journal = start(&disk, &model, &said);
            disk.fail_at(at, Fault::SyncFails);
            live(&journal, &model, seed, 9, 30);
            let claim = journal.hold("after");
            if let Err(LocalFailure::Fsync(_)) = journal.put(&claim, &PutPayload::new(), None, NOW_MS) {
                failures += 1;
            }
            drop(claim);
            disk.fail_at(1, Fault::PowerCut);
            drop(journal);
            disk.restart();
            model
                .lock()
                .unwrap()
                .objects
                .insert("after".to_owned(), (0, 0, Known::Open));
            start(&disk, &model, &said);
        }
        assert!(
            failures > 3,
            "DRUMLIN_JOURNAL_SEED={seed}: {failures} syncs failed"
        );
    }
}

#[test]
fn a_full_disk_fails_no_put_and_loses_none() {
    for seed in given_seed().map_or(vec![21, 22], |seed| vec![seed]) {
        let (disk, model) = prepared(seed);
        for at in (1..100).step_by(4) {
            let said = format!("DRUMLIN_JOURNAL_SEED={seed}, the write at step {at} finds no room");
            let (disk, model) = (disk.copy(seed ^ at), Mutex::new(model.clone()));
            let journal = start(&disk, &model, &said);
            disk.fail_at(at, Fault::Full);
            live(&journal, &model, seed, 9, 30);
            let there = |(_, _, known): &&(u64, usize, Known)| *known == Known::There;
            let count = model.lock().unwrap().objects.values().filter(there).count();
            assert!(count > 0, "{said}");
            drop(journal);
            disk.fail_at(1, Fault::PowerCut);
            disk.restart();
            start(&disk, &model, &said);
        }
    }
}

/// The disk may keep a new record and lose the header of its generation: the header before it must not name objects
/// where that record lies.
#[test]
fn a_file_is_begun_again_only_when_it_is_durable_that_its_objects_are_deleted() {
    let mut begun_again = 0;
    for seed in 0..40 {
        for (at, marks_written) in (1..=4).flat_map(|at| [(at, false), (at, true)]) {
            let said = format!("seed {seed}, power cut at step {at}, marks written: {marks_written}");
            let (disk, model) = (SimulatedDisk::new(seed), Mutex::new(Model::default()));
            let journal = start(&disk, &model, &said);
            let (journal, model) = (&journal, &model);
            let life = Life { journal, model };
            life.tend();
            for n in 0..2 * WINDOW {
                life.put(&format!("old/{n:02}"), 5000);
            }
            journal.write_headers().unwrap();
            for n in 0..2 * WINDOW {
                life.delete(&format!("old/{n:02}"));
            }
            journal.lock().active = None;
            if marks_written {
                journal.write_headers().unwrap();
            }
            disk.fail_at(at, Fault::PowerCut);
            life.put("new/1", 50_000);
            begun_again += u64::from(journal.lock().files[&0].begun > 1);
            disk.fail_at(1, Fault::PowerCut);
            disk.restart();
            start(&disk, model, &said);
        }
    }
    assert!(begun_again > 0);
}
