//! A first-in-first-out queue of waiters, kept in one slab.

use std::num::NonZeroU64;

/// Names one waiter until its slot is freed, and no waiter afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    index: u32,
    sequence: NonZeroU64,
}

const NONE: u32 = u32::MAX;

/// A slab of waiters whose order is a doubly linked list through the slots.
///
/// A slot is taken by [`push`](Self::push) and freed only by [`remove`](Self::remove), so that a
/// waiter finds its outcome however late it is polled. A waiter with an outcome is no longer in the
/// queue. Each waiter has a note of type `D`.
#[derive(Clone, Debug)]
pub(crate) struct Waiters<W, O, D = ()> {
    slots: Vec<Slot<W, O, D>>,
    head: u32,
    tail: u32,
    /// The last of the waiters that have returned; they are all in front of the others.
    last_returned: u32,
    free: u32,
    queued: usize,
    kept: usize,
    sequence: u64,
}

#[derive(Clone, Debug)]
struct Slot<W, O, D> {
    /// The sequence number of the ticket; a free slot has none.
    sequence: Option<NonZeroU64>,
    previous: u32,
    next: u32,
    waker: Option<W>,
    outcome: Option<O>,
    /// The waiter's note, until the slot is freed.
    note: Option<D>,
}

impl<W, O, D: Default> Waiters<W, O, D> {
    /// Adds a waiter at the end.
    pub(crate) fn push(&mut self) -> Ticket {
        self.push_with(D::default())
    }

    /// Adds a waiter that has waited before: behind all others that have returned, and ahead of
    /// those that wait for the first time.
    ///
    /// It is older than those. At the end of the queue, a request that is always a little late
    /// would starve.
    pub(crate) fn push_returned(&mut self) -> Ticket {
        let ticket = self.insert_after(self.last_returned, D::default());
        self.last_returned = ticket.index;
        ticket
    }
}

impl<W, O, D> Waiters<W, O, D> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            head: NONE,
            tail: NONE,
            last_returned: NONE,
            free: NONE,
            queued: 0,
            kept: 0,
            sequence: 0,
        }
    }

    /// Returns the length of the queue.
    pub(crate) fn len(&self) -> usize {
        self.queued
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Returns whether no slot is in use, not even for an outcome that was not fetched.
    #[cfg(test)]
    pub(crate) fn is_vacant(&self) -> bool {
        self.kept == 0
    }

    /// Adds a waiter at the end, with a note.
    pub(crate) fn push_with(&mut self, note: D) -> Ticket {
        self.insert_after(self.tail, note)
    }

    /// Links a new slot behind `previous`, or at the head if that is `NONE`.
    fn insert_after(&mut self, previous: u32, note: D) -> Ticket {
        self.sequence += 1;
        let sequence = NonZeroU64::new(self.sequence).expect("it grows");
        let next = match previous {
            NONE => self.head,
            previous => self.slots[previous as usize].next,
        };
        let slot =
            Slot { sequence: Some(sequence), previous, next, waker: None, outcome: None, note: Some(note) };
        let index = if self.free == NONE {
            let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 waiters");
            self.slots.push(slot);
            index
        } else {
            let index = self.free;
            self.free = self.slots[index as usize].next;
            self.slots[index as usize] = slot;
            index
        };
        match previous {
            NONE => self.head = index,
            previous => self.slots[previous as usize].next = index,
        }
        match next {
            NONE => self.tail = index,
            next => self.slots[next as usize].previous = index,
        }
        self.queued += 1;
        self.kept += 1;
        Ticket { index, sequence }
    }

    /// Frees the slot. The waker is returned so that the caller drops it outside its lock.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> (Option<W>, Option<O>) {
        if self.slot(ticket).outcome.is_none() {
            self.unlink(ticket.index);
        }
        let free = self.free;
        let slot = &mut self.slots[ticket.index as usize];
        slot.sequence = None;
        slot.next = free;
        slot.note = None;
        let gone = (slot.waker.take(), slot.outcome.take());
        self.free = ticket.index;
        self.kept -= 1;
        if self.kept == 0 && self.slots.len() > 64 {
            // The memory that many waiters needed is freed with the last of them.
            self.slots = Vec::new();
            self.free = NONE;
        }
        gone
    }

    /// Returns the waiter that has waited longest.
    pub(crate) fn oldest(&self) -> Option<Ticket> {
        (self.head != NONE).then(|| self.ticket(self.head))
    }

    /// Returns all queued waiters, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Ticket> + '_ {
        let mut at = self.head;
        std::iter::from_fn(move || {
            (at != NONE).then(|| {
                let ticket = self.ticket(at);
                at = self.slots[at as usize].next;
                ticket
            })
        })
    }

    pub(crate) fn waker_mut(&mut self, ticket: Ticket) -> &mut Option<W> {
        &mut self.slot_mut(ticket).waker
    }

    pub(crate) fn has_outcome(&self, ticket: Ticket) -> bool {
        self.slot(ticket).outcome.is_some()
    }

    /// Returns a waiter's outcome.
    #[cfg(test)]
    pub(crate) fn outcome(&self, ticket: Ticket) -> Option<&O> {
        self.slot(ticket).outcome.as_ref()
    }

    /// Returns a waiter's note.
    pub(crate) fn note(&self, ticket: Ticket) -> &D {
        self.slot(ticket).note.as_ref().expect("a used slot has a note")
    }

    pub(crate) fn note_mut(&mut self, ticket: Ticket) -> &mut D {
        self.slot_mut(ticket).note.as_mut().expect("a used slot has a note")
    }

    /// Gives a queued waiter its outcome, which removes it from the queue, and returns its waker.
    pub(crate) fn end(&mut self, ticket: Ticket, outcome: O) -> Option<W> {
        self.unlink(ticket.index);
        let slot = self.slot_mut(ticket);
        slot.outcome = Some(outcome);
        slot.waker.take()
    }

    /// Takes the waker of every queued waiter, the oldest first; the queue does not change.
    pub(crate) fn wake_all(&mut self, mut wake: impl FnMut(W)) {
        let mut at = self.head;
        while at != NONE {
            let slot = &mut self.slots[at as usize];
            if let Some(waker) = slot.waker.take() {
                wake(waker);
            }
            at = slot.next;
        }
    }

    /// Gives every queued waiter an outcome; the queue is empty afterwards.
    pub(crate) fn end_all(&mut self, mut outcome: impl FnMut() -> O, mut wake: impl FnMut(W)) {
        let mut at = self.head;
        while at != NONE {
            let slot = &mut self.slots[at as usize];
            slot.outcome = Some(outcome());
            if let Some(waker) = slot.waker.take() {
                wake(waker);
            }
            at = slot.next;
        }
        self.head = NONE;
        self.tail = NONE;
        self.last_returned = NONE;
        self.queued = 0;
    }

    fn ticket(&self, index: u32) -> Ticket {
        let sequence = self.slots[index as usize].sequence;
        Ticket { index, sequence: sequence.expect("a queued slot is not free") }
    }

    fn slot(&self, ticket: Ticket) -> &Slot<W, O, D> {
        let slot = &self.slots[ticket.index as usize];
        debug_assert_eq!(slot.sequence, Some(ticket.sequence), "a ticket was used after its slot was freed");
        slot
    }

    fn slot_mut(&mut self, ticket: Ticket) -> &mut Slot<W, O, D> {
        let slot = &mut self.slots[ticket.index as usize];
        debug_assert_eq!(slot.sequence, Some(ticket.sequence), "a ticket was used after its slot was freed");
        slot
    }

    fn unlink(&mut self, index: u32) {
        let Slot { previous, next, .. } = self.slots[index as usize];
        if self.last_returned == index {
            self.last_returned = previous;
        }
        match previous {
            NONE => self.head = next,
            previous => self.slots[previous as usize].next = next,
        }
        match next {
            NONE => self.tail = previous,
            next => self.slots[next as usize].previous = previous,
        }
        self.queued -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_first_in_first_out_when_waiters_leave() {
        let mut queue: Waiters<u32, ()> = Waiters::new();
        let tickets: Vec<_> = (0..5).map(|_| queue.push()).collect();
        queue.remove(tickets[0]);
        queue.remove(tickets[2]);
        queue.remove(tickets[4]);
        let late = queue.push();
        assert_eq!(queue.iter().collect::<Vec<_>>(), [tickets[1], tickets[3], late]);
        assert_eq!(queue.oldest(), Some(tickets[1]));
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn waiters_that_return_are_ahead_of_new_ones() {
        let mut queue: Waiters<u32, ()> = Waiters::new();
        let new = [queue.push(), queue.push()];
        let back = [queue.push_returned(), queue.push_returned()];
        assert_eq!(queue.iter().collect::<Vec<_>>(), [back[0], back[1], new[0], new[1]]);
        queue.remove(back[1]);
        let later = queue.push_returned();
        let newer = queue.push();
        assert_eq!(queue.iter().collect::<Vec<_>>(), [back[0], later, new[0], new[1], newer]);
        queue.remove(back[0]);
        queue.remove(later);
        let again = queue.push_returned();
        assert_eq!(queue.iter().collect::<Vec<_>>(), [again, new[0], new[1], newer]);
        queue.end_all(|| (), |_| {});
        let last = queue.push_returned();
        assert_eq!(queue.iter().collect::<Vec<_>>(), [last]);
    }

    #[test]
    fn an_outcome_is_kept_for_its_waiter_outside_the_queue() {
        let mut queue: Waiters<u32, &str> = Waiters::new();
        let first = queue.push();
        *queue.waker_mut(first) = Some(7);
        let mut woken = Vec::new();
        queue.end_all(|| "over", |waker| woken.push(waker));
        assert_eq!(woken, [7]);
        assert!(queue.is_empty() && !queue.is_vacant());
        let second = queue.push();
        assert_eq!(queue.oldest(), Some(second));
        assert_eq!(queue.remove(first), (None, Some("over")));
        queue.remove(second);
        assert!(queue.is_vacant());
    }

    #[test]
    fn ending_one_waiter_keeps_the_order_of_the_others() {
        let mut queue: Waiters<u32, &str, char> = Waiters::new();
        let tickets: Vec<_> = ['a', 'b', 'c'].map(|note| queue.push_with(note)).into();
        *queue.waker_mut(tickets[1]) = Some(7);
        assert_eq!(queue.end(tickets[1], "served"), Some(7));
        assert_eq!(queue.iter().map(|ticket| *queue.note(ticket)).collect::<String>(), "ac");
        assert!(queue.has_outcome(tickets[1]));
        assert_eq!(queue.remove(tickets[1]), (None, Some("served")));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn the_memory_of_many_waiters_is_freed() {
        let mut queue: Waiters<(), ()> = Waiters::new();
        for (count, kept) in [(64, 64), (65, 0), (1000, 0)] {
            let tickets: Vec<_> = (0..count).map(|_| queue.push()).collect();
            for ticket in tickets {
                queue.remove(ticket);
            }
            assert_eq!(queue.slots.len(), kept, "{count}");
        }
        assert_eq!(queue.slots.capacity(), 0);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "after its slot was freed")]
    fn a_ticket_does_not_name_a_later_waiter() {
        let mut queue: Waiters<(), ()> = Waiters::new();
        let first = queue.push();
        queue.remove(first);
        queue.push();
        queue.note(first);
    }
}
