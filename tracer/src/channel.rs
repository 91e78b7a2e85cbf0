//! Bounded channels, threads and locks: the ones to use, and the ones of which every order is tried.
//!
//! Built with `--cfg loom`, a channel is a queue under a lock of loom's, with the promises of
//! crossbeam's: a full one waits, what was sent is received in order after its sender is gone, and
//! what no receiver is left to take is dropped.

#[cfg(not(loom))]
pub(crate) use crossbeam_channel::{Receiver, Sender, bounded};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::{Arc, Mutex},
    thread,
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Arc, Mutex},
    thread,
};
#[cfg(loom)]
pub(crate) use modelled::{Receiver, Sender, bounded};

#[cfg(loom)]
mod modelled {
    use std::collections::VecDeque;
    use std::sync::PoisonError;

    use loom::sync::{Arc, Condvar, Mutex, MutexGuard};

    struct State<T> {
        queue: VecDeque<T>,
        sender: bool,
        receiver: bool,
    }

    struct Channel<T> {
        state: Mutex<State<T>>,
        capacity: usize,
        changed: Condvar,
    }

    impl<T> Channel<T> {
        fn lock(&self) -> MutexGuard<'_, State<T>> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
            let woken = self.changed.wait(state);
            woken.unwrap_or_else(PoisonError::into_inner)
        }
    }

    pub(crate) struct Sender<T>(Arc<Channel<T>>);

    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Channel {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                sender: true,
                receiver: true,
            }),
            capacity,
            changed: Condvar::new(),
        });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(&self, value: T) -> Result<(), T> {
            let mut state = self.0.lock();
            while state.receiver && state.queue.len() >= self.0.capacity {
                state = self.0.wait(state);
            }
            self.put(state, value)
        }

        pub(crate) fn try_send(&self, value: T) -> Result<(), T> {
            let state = self.0.lock();
            if state.queue.len() >= self.0.capacity {
                return Err(value);
            }
            self.put(state, value)
        }

        fn put(&self, mut state: MutexGuard<'_, State<T>>, value: T) -> Result<(), T> {
            if !state.receiver {
                return Err(value);
            }
            state.queue.push_back(value);
            self.0.changed.notify_all();
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, ()> {
            let mut state = self.0.lock();
            loop {
                if let Some(value) = state.queue.pop_front() {
                    self.0.changed.notify_all();
                    return Ok(value);
                }
                if !state.sender {
                    return Err(());
                }
                state = self.0.wait(state);
            }
        }

        pub(crate) fn try_recv(&self) -> Result<T, ()> {
            let value = self.0.lock().queue.pop_front().ok_or(())?;
            self.0.changed.notify_all();
            Ok(value)
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
            std::iter::from_fn(|| self.recv().ok())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.lock().sender = false;
            self.0.changed.notify_all();
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let mut state = self.0.lock();
            state.receiver = false;
            let left = std::mem::take(&mut state.queue);
            drop(state);
            self.0.changed.notify_all();
            // Outside the lock: what is dropped may be the end of another channel.
            drop(left);
        }
    }
}
