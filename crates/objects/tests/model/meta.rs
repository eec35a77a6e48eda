//! The metadata chain, which goes on after a change of controller (rule F5).
//!
//! Controllers take over by an entry of their own, `NewController`, in the first empty slot; puts may land at any
//! later time, replies may be lost, everybody may pause anywhere.

use stateright::{Model, Property};

use super::{breaks, full, holds};

const SLOTS: usize = 7;
const CONTROLLERS: usize = 3;

#[derive(Clone, Debug)]
struct Meta {
    slots: u8,
    controllers: usize,
    /// Puts in flight.
    window: u8,
    /// Readers skip entries of a lower epoch than one before.
    filter: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    by: u8,
    takes_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Has not tried, or lost the slot that it tried.
    Idle,
    Running,
    Deposed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Controller {
    phase: Phase,
    /// Bits of the slots it put into, and of those among them that take over.
    dispatched: u8,
    takeovers: u8,
    won: u8,
    committed: u8,
    next: u8,
    /// Bits of the slots whose decisions somebody was told of.
    told: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    log: [Option<Entry>; SLOTS],
    controllers: [Controller; CONTROLLERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    TakeOver(u8),
    Dispatch(u8),
    Land(u8, u8),
    Resolve(u8, u8),
}

fn bit(slot: u8) -> u8 {
    1 << slot
}

impl Model for Meta {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let idle = Controller {
            phase: Phase::Idle,
            dispatched: 0,
            takeovers: 0,
            won: 0,
            committed: 0,
            next: 0,
            told: 0,
        };
        let mut state = State {
            log: [None; SLOTS],
            controllers: [idle; CONTROLLERS],
        };
        // The first has taken over already.
        state.log[0] = Some(Entry {
            by: 0,
            takes_over: true,
        });
        state.controllers[0] = Controller {
            phase: Phase::Running,
            dispatched: 1,
            takeovers: 1,
            won: 1,
            committed: 1,
            next: 1,
            told: 1,
        };
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (who, controller) in (0_u8..).zip(&state.controllers[..self.controllers]) {
            if controller.phase == Phase::Idle {
                actions.push(Action::TakeOver(who));
            }
            let room = controller.next < self.slots && controller.next < controller.committed + self.window;
            if controller.phase == Phase::Running && room {
                actions.push(Action::Dispatch(who));
            }
            for slot in 0..self.slots {
                if controller.dispatched & bit(slot) == 0 {
                    continue;
                }
                if state.log[usize::from(slot)].is_none() {
                    actions.push(Action::Land(who, slot));
                } else if controller.phase == Phase::Running && controller.won & bit(slot) == 0 {
                    actions.push(Action::Resolve(who, slot));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::TakeOver(who) => {
                let slot = (0..self.slots).find(|slot| state.log[usize::from(*slot)].is_none())?;
                let controller = &mut state.controllers[usize::from(who)];
                controller.phase = Phase::Running;
                controller.dispatched |= bit(slot);
                controller.takeovers |= bit(slot);
                controller.committed = slot;
                controller.next = slot + 1;
            }
            Action::Dispatch(who) => {
                let controller = &mut state.controllers[usize::from(who)];
                controller.dispatched |= bit(controller.next);
                controller.next += 1;
            }
            Action::Land(who, slot) => {
                let takes_over = state.controllers[usize::from(who)].takeovers & bit(slot) != 0;
                state.log[usize::from(slot)] = Some(Entry { by: who, takes_over });
            }
            Action::Resolve(who, slot) => {
                let found = state.log[usize::from(slot)]?;
                let controller = &mut state.controllers[usize::from(who)];
                if found.by == who {
                    controller.won |= bit(slot);
                    while controller.won & bit(controller.committed) != 0 {
                        controller.told |= bit(controller.committed);
                        controller.committed += 1;
                    }
                } else if controller.takeovers & bit(slot) != 0 {
                    // Lost the slot to an entry: the next empty one.
                    controller.phase = Phase::Idle;
                } else {
                    controller.phase = Phase::Deposed;
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was told of is in effect", |model: &Meta, state: &State| {
                let valid = model.valid(state);
                state
                    .controllers
                    .iter()
                    .all(|controller| controller.told & !valid == 0)
            }),
            Property::always(
                "an entry in effect is its controller's",
                |model: &Meta, state: &State| {
                    let valid = model.valid(state);
                    let mut controller = None;
                    for (slot, entry) in (0_u8..).zip(&state.log) {
                        let Some(entry) = entry else { break };
                        if valid & bit(slot) == 0 {
                            continue;
                        }
                        if entry.takes_over {
                            controller = Some(entry.by);
                        } else if controller != Some(entry.by) {
                            return false;
                        }
                    }
                    true
                },
            ),
        ]
    }
}

impl Meta {
    /// Slots that a reader takes: all up to the first empty one, but for lower epochs where it filters.
    fn valid(&self, state: &State) -> u8 {
        let (mut valid, mut epoch) = (0, 0);
        for (slot, entry) in (0_u8..).zip(&state.log) {
            let Some(entry) = entry else { break };
            if self.filter && entry.by < epoch {
                continue;
            }
            epoch = epoch.max(entry.by);
            valid |= bit(slot);
        }
        valid
    }
}

fn base() -> Meta {
    Meta {
        slots: 5,
        controllers: 3,
        window: 1,
        filter: true,
    }
}

#[test]
fn one_put_in_flight_holds() {
    holds(
        "metadata, one in flight",
        Meta {
            slots: if full() { 7 } else { 5 },
            filter: false,
            ..base()
        },
    );
}

#[test]
fn two_puts_in_flight_break_it() {
    breaks(
        "metadata, two in flight (F5)",
        Meta {
            window: 2,
            filter: false,
            ..base()
        },
    );
}

#[test]
fn two_puts_in_flight_break_it_whatever_readers_skip() {
    breaks(
        "metadata, two in flight, filtered by epoch (F5)",
        Meta { window: 2, ..base() },
    );
}
