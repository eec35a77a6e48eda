//! Panics, caught where a task or blocking work begins, with the message and the place.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};
use std::pin::pin;

use futures::FutureExt;

thread_local! {
    /// Somebody above on this thread's stack catches a panic and reports it.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// The last panic here that was caught, as the hook saw it.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic that was caught. If it is dropped before anybody was told of it, it is logged.
pub(crate) struct Panicked {
    what: String,
    told: bool,
}

impl Panicked {
    fn new(payload: Box<dyn Any + Send>) -> Self {
        // One that was resumed did not pass the hook again.
        let what = match payload.downcast::<Self>() {
            Ok(mut earlier) => {
                earlier.told = true;
                std::mem::take(&mut earlier.what)
            }
            Err(payload) => LAST.take().unwrap_or_else(|| message_of(&*payload)),
        };
        Self { what, told: false }
    }

    /// It was logged, or decided about.
    pub(crate) fn told(mut self) {
        self.told = true;
    }

    /// Goes on with the panic, at whoever waits for the work.
    pub(crate) fn resume(self) -> ! {
        resume_unwind(Box::new(self))
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Drop for Panicked {
    fn drop(&mut self) {
        if !self.told {
            tracing::error!(what = %self.what, "a panic in work that nobody waits for any more");
        }
    }
}

/// Marks a stretch of this thread's work whose panics are caught.
struct Caught {
    before: bool,
}

impl Caught {
    fn enter() -> Self {
        Self {
            before: IS_CAUGHT.replace(true),
        }
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        IS_CAUGHT.set(self.before);
    }
}

/// Runs a future whose panic is an outcome.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut work = pin!(AssertUnwindSafe(future).catch_unwind());
    let outcome = poll_fn(|cx| {
        let _caught = Caught::enter();
        work.as_mut().poll(cx)
    });
    outcome.await.map_err(Panicked::new)
}

/// Runs work whose panic is an outcome.
pub(crate) fn caught_now<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let _caught = Caught::enter();
    catch_unwind(AssertUnwindSafe(work)).map_err(Panicked::new)
}

/// Has panics logged: those of tasks by their supervisor, in one line, all others where they happen.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let what = describe(panic);
        if IS_CAUGHT.get() {
            LAST.set(Some(what));
        } else {
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or("?");
            tracing::error!(thread, %what, "a panic outside of the broker's tasks");
        }
    }));
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let mut what = message_of(panic.payload());
    if let Some(place) = panic.location() {
        what.push_str(&format!(", at {place}"));
    }
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        what.push_str(&format!("\n{backtrace}"));
    }
    what
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
