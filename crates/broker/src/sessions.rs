//! Fetch sessions (KIP-227): what a consumer follows, remembered so that it need not say it again.
//!
//! A session belongs to whoever knows its random id; its requests carry epochs one after another, so that a repeated
//! or lost request is noticed. The cache has a fixed number of slots. A full one takes a newcomer only in the place of a
//! session that has not been used for a while, the least recently used first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drumlin_objects::Env;
use drumlin_wire::{Str, Uuid};
use tokio::time::Instant;

/// A session unused for this long may lose its slot (`min.incremental.fetch.session.eviction.ms`).
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);
/// Partitions that one session may hold, and all together: beyond, requests are answered outside of sessions.
const MAX_PARTITIONS: usize = 100_000;
const MAX_ALL: usize = 500_000;

/// The epoch of a request outside of any session.
pub const FINAL_EPOCH: i32 = -1;
/// The epoch of a request that opens a session.
pub const INITIAL_EPOCH: i32 = 0;

/// One partition that is fetched.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Topic name, in memory of its own; empty in requests by id.
    pub topic: Str,
    /// Topic id; zero in requests by name.
    pub topic_id: Uuid,
    /// Partition number.
    pub partition: i32,
    /// The leader epoch that the client believes in; -1 for none.
    pub current_leader_epoch: i32,
    /// From where.
    pub fetch_offset: i64,
    /// The epoch of the last record that the client has; -1 for none.
    pub last_fetched_epoch: i32,
    /// How much at most.
    pub max_bytes: i32,
    /// The high watermark that the client was last told; -1 for none.
    pub told_high_watermark: i64,
    /// The log start that the client was last told; -1 for none.
    pub told_log_start: i64,
}

impl Wanted {
    /// What identifies it in a session.
    pub fn key(&self) -> Key {
        Key {
            topic: self.topic.clone(),
            topic_id: self.topic_id,
            partition: self.partition,
        }
    }
}

/// Identity of a partition in a session.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key {
    /// Topic name; empty in requests by id.
    pub topic: Str,
    /// Topic id; zero in requests by name.
    pub topic_id: Uuid,
    /// Partition number.
    pub partition: i32,
}

/// Why a session's request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionError {
    /// No session of this id.
    NotFound,
    /// Not the epoch that comes next.
    Epoch,
    /// Names where the session has ids, or the reverse.
    TopicIds,
}

/// What a session follows, in the order in which it is served.
#[derive(Debug, Default)]
pub struct Session {
    /// Partitions in all sessions of the cache.
    all: Arc<AtomicUsize>,
    /// Epoch of the next request.
    next_epoch: i32,
    by_id: bool,
    wanted: Vec<Wanted>,
    places: HashMap<Key, usize>,
}

impl Session {
    fn new(by_id: bool, all: &Arc<AtomicUsize>) -> Self {
        let (wanted, places) = Default::default();
        Self {
            all: Arc::clone(all),
            next_epoch: 1,
            by_id,
            wanted,
            places,
        }
    }

    /// What is followed, in order.
    pub fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    fn put(&mut self, wanted: Wanted) {
        match self.places.get(&wanted.key()) {
            Some(&at) => {
                if let Some(known) = self.wanted.get_mut(at) {
                    let (high, start) = (known.told_high_watermark, known.told_log_start);
                    *known = Wanted {
                        told_high_watermark: high,
                        told_log_start: start,
                        ..wanted
                    };
                }
            }
            None => {
                self.places.insert(wanted.key(), self.wanted.len());
                self.wanted.push(wanted);
                self.all.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether so many partitions more would be too many.
    fn is_full(&self, more: usize) -> bool {
        self.wanted.len() + more > MAX_PARTITIONS || self.all.load(Ordering::Relaxed) + more > MAX_ALL
    }

    fn forget(&mut self, keys: &[Key]) {
        let mut any = false;
        for key in keys {
            any |= self.places.remove(key).is_some();
        }
        if any {
            let before = self.wanted.len();
            self.wanted
                .retain(|wanted| self.places.contains_key(&wanted.key()));
            self.all.fetch_sub(before - self.wanted.len(), Ordering::Relaxed);
            self.index();
        }
    }

    fn index(&mut self) {
        self.places = self
            .wanted
            .iter()
            .enumerate()
            .map(|(at, wanted)| (wanted.key(), at))
            .collect();
    }

    /// Notes what the client is being told, and moves the partitions that had data behind the others, so that none
    /// starves when not all fit into an answer.
    pub fn told(&mut self, told: &[(Key, i64, i64, bool)]) {
        let mut served = Vec::new();
        for (key, high_watermark, log_start, had_data) in told {
            if let Some(wanted) = self.places.get(key).and_then(|&at| self.wanted.get_mut(at)) {
                wanted.told_high_watermark = *high_watermark;
                wanted.told_log_start = *log_start;
                if *had_data {
                    served.push(key);
                }
            }
        }
        // With everything served in order, the order is as good as before.
        if served.is_empty() || served.len() >= self.wanted.len() {
            return;
        }
        let served: std::collections::HashSet<&Key> = served.into_iter().collect();
        let (last, first): (Vec<_>, Vec<_>) = std::mem::take(&mut self.wanted)
            .into_iter()
            .partition(|wanted| served.contains(&wanted.key()));
        self.wanted = first;
        self.wanted.extend(last);
        self.index();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.all.fetch_sub(self.wanted.len(), Ordering::Relaxed);
    }
}

/// A session as one request uses it.
pub struct Use {
    /// What the response says.
    pub id: i32,
    /// The session; locked only for moments.
    pub session: Option<Arc<Mutex<Session>>>,
    /// True where the answer leaves out what has not changed.
    pub incremental: bool,
}

struct Slot {
    session: Arc<Mutex<Session>>,
    used: Instant,
}

/// All sessions of a broker.
pub struct FetchSessions {
    env: Env,
    slots: usize,
    cache: Mutex<HashMap<i32, Slot>>,
    all: Arc<AtomicUsize>,
}

impl FetchSessions {
    /// With this many slots; 0 answers every request outside of sessions.
    pub fn new(env: &Env, slots: usize) -> Self {
        Self {
            env: env.clone(),
            slots,
            cache: Mutex::default(),
            all: Arc::default(),
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Slot>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.cache().len()
    }

    /// True while there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts a full request: the old session, if one is named, ends; a new one begins if `keep` and a slot is free.
    pub fn full(&self, old: i32, keep: bool, by_id: bool, wanted: &[Wanted]) -> Use {
        let mut cache = self.cache();
        cache.remove(&old);
        let mut session = Session::new(by_id, &self.all);
        if !keep || wanted.is_empty() || session.is_full(wanted.len()) || !self.room(&mut cache) {
            return Use {
                id: 0,
                session: None,
                incremental: false,
            };
        }
        let id = loop {
            let id = (self.env.random_u64() & 0x7fff_ffff) as i32;
            if id != 0 && !cache.contains_key(&id) {
                break id;
            }
        };
        for wanted in wanted {
            session.put(wanted.clone());
        }
        let session = Arc::new(Mutex::new(session));
        cache.insert(
            id,
            Slot {
                session: Arc::clone(&session),
                used: self.env.instant(),
            },
        );
        Use {
            id,
            session: Some(session),
            incremental: false,
        }
    }

    /// Continues a session: takes in what is added or changed, lets go of what is forgotten.
    pub fn incremental(
        &self,
        id: i32,
        epoch: i32,
        by_id: bool,
        wanted: Vec<Wanted>,
        forgotten: &[Key],
    ) -> Result<Use, SessionError> {
        let mut cache = self.cache();
        let slot = cache.get_mut(&id).ok_or(SessionError::NotFound)?;
        slot.used = self.env.instant();
        let mut session = slot.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.next_epoch != epoch {
            return Err(SessionError::Epoch);
        }
        if session.by_id != by_id {
            return Err(SessionError::TopicIds);
        }
        if session.is_full(wanted.len()) {
            // The client begins again with a full request, and is then answered outside of sessions.
            drop(session);
            cache.remove(&id);
            return Err(SessionError::NotFound);
        }
        // Wraps from the largest to 1: 0 opens sessions.
        session.next_epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.forget(forgotten);
        for wanted in wanted {
            session.put(wanted);
        }
        drop(session);
        Ok(Use {
            id,
            session: Some(Arc::clone(&slot.session)),
            incremental: true,
        })
    }

    fn room(&self, cache: &mut HashMap<i32, Slot>) -> bool {
        if cache.len() < self.slots {
            return true;
        }
        let now = self.env.instant();
        let oldest = cache
            .iter()
            .min_by_key(|(id, slot)| (slot.used, **id))
            .map(|(id, slot)| (*id, slot.used));
        match oldest {
            Some((id, used)) if now.saturating_duration_since(used) > EVICTABLE_AFTER => {
                cache.remove(&id);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partition: i32) -> Wanted {
        Wanted {
            topic: Str::from_static("t"),
            topic_id: Uuid::default(),
            partition,
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            max_bytes: 100,
            told_high_watermark: -1,
            told_log_start: -1,
        }
    }

    fn order(session: &Use) -> Vec<i32> {
        let session = session.session.as_ref().unwrap().lock().unwrap();
        session.wanted().iter().map(|wanted| wanted.partition).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn epochs_count_and_partitions_come_and_go() {
        let sessions = FetchSessions::new(&Env::simulated(1, 0), 10);
        let begun = sessions.full(0, true, false, &[wanted(0), wanted(1), wanted(2)]);
        assert_ne!(begun.id, 0);
        let next = sessions
            .incremental(begun.id, 1, false, vec![wanted(3)], &[wanted(1).key()])
            .unwrap();
        assert_eq!(order(&next), [0, 2, 3]);
        let again = sessions.incremental(begun.id, 1, false, vec![], &[]);
        assert_eq!(again.err(), Some(SessionError::Epoch));
        assert_eq!(
            sessions.incremental(begun.id, 2, true, vec![], &[]).err(),
            Some(SessionError::TopicIds)
        );
        assert_eq!(
            sessions.incremental(77, 1, true, vec![], &[]).err(),
            Some(SessionError::NotFound)
        );
        let session = next.session.clone().unwrap();
        session
            .lock()
            .unwrap()
            .told(&[(wanted(0).key(), 5, 0, true), (wanted(2).key(), 6, 0, false)]);
        assert_eq!(order(&next), [2, 3, 0]);
        let ended = sessions.full(begun.id, false, false, &[]);
        assert_eq!((ended.id, sessions.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn partitions_of_all_sessions_are_bounded() {
        let sessions = FetchSessions::new(&Env::simulated(1, 0), 100);
        let many: Vec<Wanted> = (0..MAX_PARTITIONS as i32).map(wanted).collect();
        let begun: Vec<i32> = (0..6).map(|_| sessions.full(0, true, false, &many).id).collect();
        assert!(begun[..5].iter().all(|id| *id != 0));
        assert_eq!(begun[5], 0);
        let more = sessions.incremental(begun[0], 1, false, vec![wanted(-1)], &[]);
        assert_eq!(more.err(), Some(SessionError::NotFound));
        assert_ne!(sessions.full(0, true, false, &many).id, 0, "its place is free");
        drop(sessions.full(begun[1], false, false, &[]));
        assert_eq!(sessions.all.load(Ordering::Relaxed), 4 * MAX_PARTITIONS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_cache_takes_newcomers_only_for_the_unused() {
        let sessions = FetchSessions::new(&Env::simulated(1, 0), 2);
        let first = sessions.full(0, true, false, &[wanted(0)]);
        let second = sessions.full(0, true, false, &[wanted(0)]);
        assert_eq!(sessions.full(0, true, false, &[wanted(0)]).id, 0);
        tokio::time::advance(Duration::from_secs(100)).await;
        sessions.incremental(first.id, 1, false, vec![], &[]).unwrap();
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_ne!(sessions.full(0, true, false, &[wanted(0)]).id, 0);
        assert!(sessions.incremental(second.id, 1, false, vec![], &[]).is_err());
        assert!(sessions.incremental(first.id, 2, false, vec![], &[]).is_ok());
    }
}
