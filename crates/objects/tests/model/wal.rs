//! One chain, its owner, and fencers.
//!
//! The owner has several puts in flight, checkpoints and deletes. Each put that was dispatched may land at any
//! later time, as often as its slot is empty: this covers delayed, duplicated and hedged puts, and a paused
//! owner who wakes up. Every step is an action of its own, so replies may be lost and actors pause anywhere.
//! Lists of markers are no snapshot: each name shows as it was at one of two moments.

use stateright::{Model, Property};

use super::{breaks, full, holds};

/// Most slots with stoppers above them.
const SLOTS: usize = 10;
const FENCERS: usize = 2;
const CHECKPOINTS: usize = 2;

#[derive(Clone, Debug, Default)]
struct Wal {
    /// Slots that the owner may use.
    slots: u8,
    window: u8,
    fencers: usize,
    checkpoints: usize,
    /// F2 left out.
    no_relist: bool,
    /// F2 left out for a fence of another's.
    adopt_without_relist: bool,
    /// F1 left out: the fence goes above the highest listed slot.
    highest_plus_one: bool,
    /// F1 left out: a conflict means that the owner has the slot.
    conflict_is_loss: bool,
    /// F2 left out: superseded markers have no grace.
    markers_deleted: bool,
    /// F3 misread: the stopper is the end.
    stopper_is_end: bool,
    /// A3 left out: each slot is acknowledged by itself.
    acks_by_put: bool,
    /// D1 left out: entries are deleted before the marker is there.
    delete_before_marker: bool,
    /// F4 left out: the fence is swept with the chain while its owner sleeps.
    fence_swept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Object {
    None,
    Entry,
    Fence(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// A list of markers has begun; what it saw at first.
    Markers(u8),
    /// The newest checkpoint covers all below.
    Log(u8),
    /// The fence for this slot is dispatched.
    Place(u8),
    /// A fence stands at this slot; does it count?
    Check(u8),
    /// The list after it has begun.
    Again(u8, u8),
    /// Ended: the fence's slot, the checkpoint's, the entries read.
    Done(u8, u8, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fencer {
    phase: Phase,
    dispatched: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    store: [Object; SLOTS],
    /// Bits of slots: put by the owner; known to be the owner's; acknowledged.
    dispatched: u16,
    won: u16,
    acked: u16,
    committed: u8,
    next: u8,
    ended: bool,
    /// (covers below, entry's slot) of the owner's checkpoints, oldest first.
    checkpoints: [Option<(u8, u8)>; CHECKPOINTS],
    /// Bits of checkpoints: their markers are in the store.
    markers: u8,
    deleted: u8,
    fencers: [Fencer; FENCERS],
    /// A fencer that was done found a hole.
    hole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Dispatch,
    DispatchCheckpoint,
    Land(u8),
    Resolve(u8),
    PutMarker(u8),
    DeleteMarker(u8),
    DeleteEntry,
    ListMarkers(u8),
    NewestIs(u8, Option<u8>),
    ListLog(u8),
    LandFence(u8, u8),
    ResolveFence(u8),
    Conflict(u8),
    ListAgain(u8),
    Conclude(u8, Option<u8>),
    SweepFence(u8),
}

fn bit(slot: u8) -> u16 {
    1 << slot
}

impl State {
    fn covers(&self, marker: Option<u8>) -> u8 {
        marker
            .and_then(|marker| self.checkpoints[usize::from(marker)])
            .map_or(0, |(covers, _)| covers)
    }

    /// Markers that a list may show as the newest: it saw `before` at first, and `self.markers` at last.
    fn newest_seen(&self, before: u8) -> Vec<Option<u8>> {
        let (surely, perhaps) = (before & self.markers, before ^ self.markers);
        let mut seen = Vec::new();
        for choice in 0..1_u8 << CHECKPOINTS {
            if choice & !perhaps == 0 {
                let shown = surely | choice;
                let newest = (0..CHECKPOINTS as u8)
                    .rev()
                    .find(|marker| shown & (1 << marker) != 0);
                if !seen.contains(&newest) {
                    seen.push(newest);
                }
            }
        }
        seen
    }

    fn at(&self, slot: u8) -> Object {
        self.store[usize::from(slot)]
    }

    fn commit(&mut self, by_put: bool) {
        while self.won & bit(self.committed) != 0 {
            self.committed += 1;
        }
        self.acked |= if by_put { self.won } else { bit(self.committed) - 1 };
    }

    fn entries(&self, from: u8, to: u8) -> u16 {
        (from..to)
            .filter(|slot| self.at(*slot) == Object::Entry)
            .map(bit)
            .sum()
    }
}

impl Wal {
    fn stopper(&self, slot: u8) -> u8 {
        slot + self.window
    }

    fn owner_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let last = state
            .checkpoints
            .iter()
            .flatten()
            .last()
            .map_or(0, |(covers, _)| *covers);
        if !state.ended && state.next < self.slots && state.next < state.committed + self.window {
            actions.push(Action::Dispatch);
            let made = state.checkpoints.iter().flatten().count();
            if made < self.checkpoints && state.committed > last {
                actions.push(Action::DispatchCheckpoint);
            }
        }
        for slot in 0..state.next {
            // A late or repeated put lands whether its owner lives or not.
            if state.dispatched & bit(slot) != 0 && state.at(slot) == Object::None {
                actions.push(Action::Land(slot));
            }
            if !state.ended && state.won & bit(slot) == 0 && state.at(slot) != Object::None {
                actions.push(Action::Resolve(slot));
            }
        }
        let mut covered = 0;
        for (marker, checkpoint) in (0_u8..).zip(state.checkpoints.iter()) {
            let Some((covers, slot)) = checkpoint else {
                continue;
            };
            let committed = *slot < state.committed;
            let put = state.markers & (1 << marker) != 0;
            let newest_put = state.markers >> (marker + 1) != 0;
            // A paused owner goes on with it after the fence.
            if committed && !put && !newest_put {
                actions.push(Action::PutMarker(marker));
            }
            if put && newest_put && self.markers_deleted {
                actions.push(Action::DeleteMarker(marker));
            }
            if put || (committed && self.delete_before_marker) {
                covered = covered.max(*covers);
            }
        }
        if state.deleted < covered {
            actions.push(Action::DeleteEntry);
        }
    }

    fn fencer_actions(&self, state: &State, fencer: u8, actions: &mut Vec<Action>) {
        let Fencer { phase, dispatched } = state.fencers[usize::from(fencer)];
        for slot in 0..SLOTS as u8 {
            if dispatched & bit(slot) != 0 && state.at(slot) == Object::None {
                actions.push(Action::LandFence(fencer, slot));
            }
        }
        match phase {
            Phase::Idle => actions.push(Action::ListMarkers(fencer)),
            Phase::Markers(before) => {
                actions.extend(
                    state
                        .newest_seen(before)
                        .into_iter()
                        .map(|seen| Action::NewestIs(fencer, seen)),
                );
            }
            Phase::Log(_) => actions.push(Action::ListLog(fencer)),
            Phase::Place(slot) => {
                if state.at(slot) != Object::None {
                    actions.push(Action::ResolveFence(fencer));
                }
                if self.conflict_is_loss {
                    actions.push(Action::Conflict(fencer));
                }
            }
            Phase::Check(_) => actions.push(Action::ListAgain(fencer)),
            Phase::Again(_, before) => {
                actions.extend(
                    state
                        .newest_seen(before)
                        .into_iter()
                        .map(|seen| Action::Conclude(fencer, seen)),
                );
            }
            Phase::Done(end, ..) => {
                if self.fence_swept && state.at(end) != Object::None {
                    actions.push(Action::SweepFence(end));
                }
            }
        }
    }

    fn list_log(&self, state: &mut State, fencer: usize, from: u8) {
        let mut slot = from;
        while slot < SLOTS as u8 {
            match state.at(slot) {
                Object::Entry => slot += 1,
                Object::Fence(_) => {
                    state.fencers[fencer].phase = Phase::Check(slot);
                    return;
                }
                Object::None => break,
            }
        }
        if self.highest_plus_one {
            let listed = (from..SLOTS as u8)
                .rev()
                .find(|slot| state.at(*slot) == Object::Entry);
            slot = listed.map_or(from, |listed| listed + 1);
        }
        state.fencers[fencer].phase = Phase::Place(slot);
        state.fencers[fencer].dispatched |= bit(slot) | bit(self.stopper(slot));
    }

    fn conclude(&self, state: &mut State, fencer: usize, end: u8, from: u8) {
        if from > end {
            state.fencers[fencer].phase = Phase::Idle;
            return;
        }
        let read = state.entries(from, end);
        let wanted = bit(end) - bit(from);
        let newest = (0..CHECKPOINTS as u8)
            .rev()
            .find(|marker| state.markers & (1 << marker) != 0);
        let phase = if read == wanted {
            Phase::Done(end, from, read)
        } else if state.covers(newest) > from {
            // F4: what is missing was deleted; begin again.
            Phase::Idle
        } else {
            state.hole = true;
            Phase::Done(end, from, read)
        };
        state.fencers[fencer].phase = phase;
    }
}

impl Model for Wal {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            store: [Object::None; SLOTS],
            dispatched: 0,
            won: 0,
            acked: 0,
            committed: 0,
            next: 0,
            ended: false,
            checkpoints: [None; CHECKPOINTS],
            markers: 0,
            deleted: 0,
            fencers: [Fencer {
                phase: Phase::Idle,
                dispatched: 0,
            }; FENCERS],
            hole: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.owner_actions(state, actions);
        for fencer in 0..self.fencers as u8 {
            self.fencer_actions(state, fencer, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Dispatch | Action::DispatchCheckpoint => {
                let slot = state.next;
                state.next += 1;
                state.dispatched |= bit(slot);
                if action == Action::DispatchCheckpoint {
                    let free = state.checkpoints.iter().position(Option::is_none)?;
                    state.checkpoints[free] = Some((state.committed, slot));
                }
            }
            Action::Land(slot) => state.store[usize::from(slot)] = Object::Entry,
            Action::Resolve(slot) => match state.at(slot) {
                Object::Entry => {
                    state.won |= bit(slot);
                    state.commit(self.acks_by_put);
                }
                Object::Fence(_) => state.ended = true,
                Object::None => return None,
            },
            Action::PutMarker(marker) => state.markers |= 1 << marker,
            Action::DeleteMarker(marker) => state.markers &= !(1 << marker),
            Action::DeleteEntry => {
                // The owner deletes what it knows as its entries; a void fence there stays.
                if state.at(state.deleted) == Object::Entry {
                    state.store[usize::from(state.deleted)] = Object::None;
                }
                state.deleted += 1;
            }
            Action::LandFence(fencer, slot) => state.store[usize::from(slot)] = Object::Fence(fencer),
            Action::SweepFence(slot) => state.store[usize::from(slot)] = Object::None,
            Action::ListMarkers(fencer) => {
                state.fencers[usize::from(fencer)].phase = Phase::Markers(state.markers);
            }
            Action::NewestIs(fencer, seen) => {
                state.fencers[usize::from(fencer)].phase = Phase::Log(state.covers(seen));
            }
            Action::ListLog(fencer) => {
                let Phase::Log(from) = state.fencers[usize::from(fencer)].phase else {
                    return None;
                };
                self.list_log(&mut state, usize::from(fencer), from);
            }
            Action::ResolveFence(fencer) => self.resolve_fence(&mut state, fencer)?,
            Action::Conflict(fencer) => {
                let Phase::Place(slot) = state.fencers[usize::from(fencer)].phase else {
                    return None;
                };
                if slot + 1 + self.window >= SLOTS as u8 {
                    return None;
                }
                state.fencers[usize::from(fencer)].phase = Phase::Place(slot + 1);
                state.fencers[usize::from(fencer)].dispatched |= bit(slot + 1);
            }
            Action::ListAgain(fencer) => {
                let Phase::Check(end) = state.fencers[usize::from(fencer)].phase else {
                    return None;
                };
                if self.no_relist {
                    self.conclude_without_list(&mut state, usize::from(fencer), end);
                } else {
                    state.fencers[usize::from(fencer)].phase = Phase::Again(end, state.markers);
                }
            }
            Action::Conclude(fencer, seen) => {
                let Phase::Again(end, _) = state.fencers[usize::from(fencer)].phase else {
                    return None;
                };
                let from = state.covers(seen);
                self.conclude(&mut state, usize::from(fencer), end, from);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "nothing is acknowledged at or beyond the fence",
                |_, state: &State| done(state).all(|(end, _, _)| state.acked >> end == 0),
            ),
            Property::always("the fencer reads whatever is acknowledged", |_, state: &State| {
                done(state).all(|(end, from, read)| {
                    let below = bit(from) - 1;
                    state.acked & (bit(end) - 1) & !(read | below) == 0
                })
            }),
            Property::always("there is no hole below the fence", |_, state: &State| !state.hole),
            Property::always("fencers agree on the end", |_, state: &State| {
                let mut ends = done(state).map(|(end, _, _)| end);
                let first = ends.next();
                ends.all(|end| Some(end) == first)
            }),
            Property::always(
                "a checkpoint covers committed entries only, and its entry is below the end",
                {
                    |_, state: &State| {
                        state
                            .checkpoints
                            .iter()
                            .flatten()
                            .all(|(covers, _)| *covers <= state.committed)
                            && done(state).all(|(end, from, _)| {
                                let used = state
                                    .checkpoints
                                    .iter()
                                    .flatten()
                                    .find(|(covers, _)| *covers == from);
                                from == 0 || used.is_some_and(|(_, slot)| *slot < end)
                            })
                    }
                },
            ),
        ]
    }
}

impl Wal {
    fn resolve_fence(&self, state: &mut State, fencer: u8) -> Option<()> {
        let Phase::Place(slot) = state.fencers[usize::from(fencer)].phase else {
            return None;
        };
        match state.at(slot) {
            Object::Fence(whose) if whose != fencer && self.adopt_without_relist => {
                self.conclude_without_list(state, usize::from(fencer), slot);
            }
            Object::Fence(_) => state.fencers[usize::from(fencer)].phase = Phase::Check(slot),
            Object::Entry if self.stopper_is_end => {
                state.fencers[usize::from(fencer)].phase = Phase::Check(self.stopper(slot));
            }
            // F3: lost; list again.
            Object::Entry => state.fencers[usize::from(fencer)].phase = Phase::Idle,
            Object::None => return None,
        }
        Some(())
    }

    /// A broken fencer trusts the checkpoint that it began with, as far as it reaches.
    fn conclude_without_list(&self, state: &mut State, fencer: usize, end: u8) {
        let newest = (0..CHECKPOINTS as u8)
            .rev()
            .find(|marker| state.markers & (1 << marker) != 0 && state.covers(Some(*marker)) <= end);
        let from = state.covers(newest);
        let read = state.entries(from, end);
        state.fencers[fencer].phase = Phase::Done(end, from, read);
    }
}

fn done(state: &State) -> impl Iterator<Item = (u8, u8, u16)> + '_ {
    state.fencers.iter().filter_map(|fencer| match fencer.phase {
        Phase::Done(end, from, read) => Some((end, from, read)),
        _ => None,
    })
}

fn base() -> Wal {
    Wal {
        slots: 4,
        window: 2,
        fencers: 2,
        checkpoints: 1,
        ..Wal::default()
    }
}

#[test]
fn a_chain_with_two_fencers_holds() {
    holds(
        "wal, 2 fencers",
        Wal {
            slots: if full() { 5 } else { 3 },
            ..base()
        },
    );
}

#[test]
fn a_chain_with_three_in_flight_and_two_checkpoints_holds() {
    let slots = if full() { 6 } else { 5 };
    holds(
        "wal, 3 in flight",
        Wal {
            slots,
            window: 3,
            fencers: 1,
            checkpoints: 2,
            ..base()
        },
    );
}

#[test]
fn without_the_list_after_the_fence_it_breaks() {
    breaks(
        "no re-list (F2)",
        Wal {
            no_relist: true,
            ..base()
        },
    );
}

#[test]
fn adopting_a_fence_without_a_list_breaks_it() {
    breaks(
        "fence adopted without re-list (F2)",
        Wal {
            adopt_without_relist: true,
            ..base()
        },
    );
}

#[test]
fn a_fence_above_the_highest_listed_slot_breaks_it() {
    breaks(
        "highest listed + 1 (F1)",
        Wal {
            highest_plus_one: true,
            ..base()
        },
    );
}

#[test]
fn taking_a_conflict_for_the_owners_win_breaks_it() {
    breaks(
        "409 taken as the owner's win (F1)",
        Wal {
            conflict_is_loss: true,
            ..base()
        },
    );
}

#[test]
fn deleting_superseded_markers_at_once_breaks_it() {
    let wal = Wal {
        markers_deleted: true,
        slots: 5,
        window: 3,
        checkpoints: 2,
        fencers: 1,
        ..base()
    };
    breaks("markers deleted under a torn list (F2)", wal);
}

#[test]
fn taking_the_stopper_for_the_end_breaks_it() {
    breaks(
        "stopper taken as the end (F3)",
        Wal {
            stopper_is_end: true,
            ..base()
        },
    );
}

#[test]
fn acknowledging_puts_out_of_order_breaks_it() {
    breaks(
        "acks by put instead of prefix (A3)",
        Wal {
            acks_by_put: true,
            ..base()
        },
    );
}

#[test]
fn deleting_before_the_marker_breaks_it() {
    breaks(
        "deletion before the marker (D1)",
        Wal {
            delete_before_marker: true,
            ..base()
        },
    );
}

#[test]
fn sweeping_a_fence_while_its_owner_sleeps_breaks_it() {
    breaks(
        "fence swept with its chain (F4)",
        Wal {
            fence_swept: true,
            ..base()
        },
    );
}
