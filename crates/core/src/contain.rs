//! Calls foreign code: sinks, encoders, transforms, subscribers, wakers, and the destructors of all
//! of them. A panic in it is caught at the call, and a destructor that blocks runs on a thread of
//! its own.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Longest text of a panic message, in bytes; longer ones are cut.
const LONGEST: usize = 1024;

thread_local! {
    /// Set on a thread of [`run_apart`] while it makes its call.
    static APART: Cell<bool> = const { Cell::new(false) };
}

/// Calls foreign code. A panic becomes an `Err` with its message.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(text)
}

/// The message of a panic. Drops the payload, whose destructor is foreign code and may panic too.
fn text(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<&'static str>() {
        Ok(text) => return bounded(&text),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(text) => bounded(&text),
        Err(payload) => {
            drop_here(payload);
            "without a message".to_owned()
        }
    }
}

fn bounded(text: &str) -> String {
    match text.len() {
        0..=LONGEST => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(LONGEST)]),
    }
}

/// Drops a foreign value on this thread, and catches a panic of its destructor.
pub(crate) fn drop_here<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Dropping the payload could panic again, with another payload that could, and so on.
        std::mem::forget(payload);
    }
}

/// Runs work that may block its thread. A worker of a runtime hands its other tasks to another
/// thread meanwhile.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Drops a foreign value on another thread, where its destructor may panic and block.
pub(crate) fn drop_apart<T: Send + 'static>(value: T) {
    run_apart(move || drop(value));
}

/// Calls foreign code on another thread, where it may panic and block, without waiting for it.
pub(crate) fn run_apart(call: impl FnOnce() + Send + 'static) {
    let call = Call(Some(call));
    if APART.get() {
        return drop(call);
    }
    let work = move || {
        let apart = APART.replace(true);
        drop(call);
        APART.set(apart);
    };
    // If no thread can be started, the call is made on this one; panics are still caught.
    let _ = caught(|| match own_runtime() {
        Some(runtime) => drop(runtime.spawn_blocking(work)),
        None => drop(
            std::thread::Builder::new()
                .name("trace-apart".to_owned())
                .spawn(work),
        ),
    });
}

/// The runtime of the pipeline that this thread belongs to, if any.
fn own_runtime() -> Option<Handle> {
    match crate::delivery_thread::is_current() {
        true => Handle::try_current().ok(),
        false => None,
    }
}

/// Drops one `Arc` of a foreign value. If it is the last, the destructor runs on another thread.
pub(crate) fn release<T: ?Sized + Send + Sync + 'static>(share: Arc<T>) {
    if Arc::strong_count(&share) == 1 {
        drop_apart(share);
    } else {
        drop_here(share);
    }
}

/// Makes its call when it is dropped, for whatever reason, and catches a panic.
struct Call<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Call<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            let _ = caught(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    /// Panics when it is dropped, with itself one less.
    struct Chain(u32);

    impl Drop for Chain {
        fn drop(&mut self) {
            if let Some(left) = self.0.checked_sub(1) {
                std::panic::panic_any(Chain(left));
            }
        }
    }

    #[test]
    fn a_panic_becomes_its_text_whatever_its_payload() {
        assert_eq!(caught(|| 7), Ok(7));
        let texts = [
            caught(|| panic!("plain")),
            caught(|| panic!("number {}", 3)),
            caught(|| std::panic::panic_any(17_u8)),
            caught(|| std::panic::panic_any(Chain(5))),
        ];
        let texts: Vec<_> = texts.into_iter().map(Result::unwrap_err).collect();
        assert_eq!(
            texts,
            [
                "plain",
                "number 3",
                "without a message",
                "without a message"
            ]
        );
        let long = caught(|| panic!("{}", "é".repeat(1 << 20))).unwrap_err();
        assert!(long.len() < 2 * LONGEST && long.starts_with("éé"));
    }

    #[test]
    fn destructors_panic_and_block_elsewhere() {
        struct Slow(std::sync::mpsc::Sender<String>);
        impl Drop for Slow {
            fn drop(&mut self) {
                std::thread::sleep(Duration::from_millis(300));
                let name = std::thread::current().name().map(str::to_owned);
                let _ = self.0.send(name.unwrap_or_default());
                panic!("as told");
            }
        }
        let (send, receive) = channel();
        let began = Instant::now();
        drop_apart(Slow(send.clone()));
        let shared = Arc::new(Slow(send));
        release(shared.clone());
        release(shared);
        drop_apart(Chain(3));
        assert!(began.elapsed() < Duration::from_millis(250));
        for _ in 0..2 {
            assert_eq!(receive.recv().unwrap(), "trace-apart");
        }
    }

    #[test]
    fn what_is_dropped_with_something_dropped_apart_needs_no_thread_of_its_own() {
        struct Inner(std::sync::mpsc::Sender<std::thread::ThreadId>);
        impl Drop for Inner {
            fn drop(&mut self) {
                let _ = self.0.send(std::thread::current().id());
            }
        }
        struct Outer(Option<Inner>);
        impl Drop for Outer {
            fn drop(&mut self) {
                drop_apart(self.0.take());
            }
        }
        let (send, receive) = channel();
        let all: Vec<_> = (0..100).map(|_| Outer(Some(Inner(send.clone())))).collect();
        drop(send);
        drop_apart(all);
        let threads: std::collections::HashSet<_> = receive.iter().collect();
        assert_eq!(threads.len(), 1);
    }
}
