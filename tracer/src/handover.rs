//! The hand-over of messages to a thread of their own, and what happens when that thread fails.
//!
//! - Messages are taken in the order in which they were given; a full queue makes the giver wait.
//! - Who asks for an answer waits until the message, and all before it, have been dealt with.
//! - After a failure nothing more is dealt with, nobody waits in vain, and whoever gives or asks sees
//!   the reason.
//! - When the giver goes, what it gave is still dealt with.
//!
//! `tests/loom.rs` tries every order in which the two threads can meet here.

#![cfg_attr(
    not(loom),
    allow(unreachable_pub, reason = "public for the model check alone")
)]

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::PoisonError;

use crate::channel::{Arc, Mutex, Receiver, Sender, bounded, thread};

/// Why the thread fails, once it has.
type Slot<E> = Arc<Mutex<Option<E>>>;

/// The giver's end: gives messages `M`, gets used-up batches `B` back, and failures `E`.
///
/// Every error is the failure of the thread, or `None` where it ended without one.
pub struct Handover<M, B, E> {
    queue: Option<Sender<M>>,
    spare: Receiver<B>,
    failure: Slot<E>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The way of an answer; dropped, it tells who waits that there will be none.
pub struct Reply<A>(Sender<A>);

/// The way back of batches.
pub struct Recycler<B>(Sender<B>);

/// What deals with the messages, on the thread.
pub trait Taker<M, B, E>: Send + 'static {
    /// Deals with a message; `Break` if it was the last.
    fn take(&mut self, message: &mut M, recycler: &Recycler<B>) -> Result<ControlFlow<()>, E>;

    /// Leaves things in order after `take` failed.
    fn give_up(self, error: &E);
}

impl<M: Send + 'static, B: Send + 'static, E: Clone + Send + 'static> Handover<M, B, E> {
    /// Starts the thread, with room for so many messages, one at least.
    pub fn start(name: &str, room: usize, taker: impl Taker<M, B, E>) -> io::Result<Self> {
        let (queue, messages) = bounded(room);
        let (recycle, spare) = bounded(room);
        let failure: Slot<E> = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&failure);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(taker, &messages, &Recycler(recycle), &slot))?;
        Ok(Self {
            queue: Some(queue),
            spare,
            failure,
            thread: Some(thread),
        })
    }

    /// Gives a message; waits while the queue is full.
    pub fn give(&self, message: M) -> Result<(), Option<E>> {
        let Some(queue) = &self.queue else {
            return Err(self.failure());
        };
        if let Some(error) = self.failure() {
            return Err(Some(error));
        }
        queue.send(message).map_err(|_| self.failure())
    }

    /// Gives a message and waits for the answer.
    pub fn ask<A>(&self, message: impl FnOnce(Reply<A>) -> M) -> Result<A, Option<E>> {
        let (reply, answer) = bounded(1);
        self.give(message(Reply(reply)))?;
        answer.recv().map_err(|_| self.failure())
    }

    /// A batch that was used before, if one is back.
    pub fn spare(&self) -> Option<B> {
        self.spare.try_recv().ok()
    }

    fn failure(&self) -> Option<E> {
        let slot = self.failure.lock();
        slot.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<M, B, E> Handover<M, B, E> {
    /// Gives nothing more, and waits until the thread has dealt with what it was given.
    pub fn end(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was an error without a reason to whoever waited for it.
            let _ = thread.join();
        }
    }

    /// Whether the thread has been waited for.
    pub fn has_ended(&self) -> bool {
        self.thread.is_none()
    }
}

impl<M, B, E> Drop for Handover<M, B, E> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<M, B, E> fmt::Debug for Handover<M, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Handover");
        debug.field("has_ended", &self.has_ended());
        debug.finish_non_exhaustive()
    }
}

impl<A> Reply<A> {
    /// Answers.
    pub fn answer(&self, answer: A) {
        // Who has gone wants no answer.
        let _ = self.0.send(answer);
    }
}

impl<A> fmt::Debug for Reply<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

impl<B> Recycler<B> {
    /// Gives a batch back; if there is no room for it, it is dropped.
    pub fn recycle(&self, batch: B) {
        let _ = self.0.try_send(batch);
    }
}

impl<B> fmt::Debug for Recycler<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recycler")
    }
}

/// The thread.
fn serve<M, B, E: Clone>(
    mut taker: impl Taker<M, B, E>,
    messages: &Receiver<M>,
    recycler: &Recycler<B>,
    slot: &Slot<E>,
) {
    while let Ok(mut message) = messages.recv() {
        let error = match taker.take(&mut message, recycler) {
            Ok(ControlFlow::Continue(())) => continue,
            Ok(ControlFlow::Break(())) => return,
            Err(error) => error,
        };
        // The reason is in place before the message goes, and with it the end of whoever waits.
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        drop(message);
        taker.give_up(&error);
        // Whoever gives from now on sees the reason; what was under way is let go, so that nobody
        // waits for an answer to it.
        messages.iter().for_each(drop);
        return;
    }
}
