//! A first-in-first-out line of waiters, kept in one slab.

use std::num::NonZeroU64;

/// A place in the line. It names one waiter for as long as its slot is kept, and nothing afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    index: u32,
    sequence: NonZeroU64,
}

const NONE: u32 = u32::MAX;

/// A slab of waiters whose order is a doubly linked list through the slots.
///
/// A slot is taken by [`push`](Self::push) and given back by [`remove`](Self::remove) alone, so that a waiter finds its outcome
/// however late it looks. A waiter with an outcome is out of the line. Each brings a note of type `D` along.
#[derive(Clone, Debug)]
pub(crate) struct Waiters<W, O, D = ()> {
    slots: Vec<Slot<W, O, D>>,
    head: u32,
    tail: u32,
    /// The last of those who have come back; all before it have, and nobody after it.
    last_returned: u32,
    free: u32,
    in_line: usize,
    kept: usize,
    sequence: u64,
}

#[derive(Clone, Debug)]
struct Slot<W, O, D> {
    /// The ticket's sequence number; a free slot has none.
    sequence: Option<NonZeroU64>,
    previous: u32,
    next: u32,
    waker: Option<W>,
    /// The attempt number under which this waiter was given a role or a turn.
    role: u64,
    outcome: Option<O>,
    /// What the waiter brought along, for as long as its slot is kept.
    note: Option<D>,
}

impl<W, O> Waiters<W, O> {
    /// Joins the line at its end.
    pub(crate) fn push(&mut self) -> Ticket {
        self.push_with(())
    }

    /// Joins the line behind those who have come back before and ahead of those who wait for the first time.
    ///
    /// Whoever comes back is older than they are: at the end of the line, one that is always a little late would be late for ever.
    pub(crate) fn push_returned(&mut self) -> Ticket {
        let ticket = self.insert_after(self.last_returned, ());
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
            in_line: 0,
            kept: 0,
            sequence: 0,
        }
    }

    /// How many stand in the line.
    pub(crate) fn len(&self) -> usize {
        self.in_line
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_line == 0
    }

    /// Whether no slot is kept at all, not even for an outcome that nobody has fetched.
    #[cfg(test)]
    pub(crate) fn is_vacant(&self) -> bool {
        self.kept == 0
    }

    /// Joins the line at its end, with a note.
    pub(crate) fn push_with(&mut self, note: D) -> Ticket {
        self.insert_after(self.tail, note)
    }

    /// Links a new slot behind `previous`, or at the head if that is none.
    fn insert_after(&mut self, previous: u32, note: D) -> Ticket {
        self.sequence += 1;
        let sequence = NonZeroU64::new(self.sequence).expect("it grows");
        let next = match previous {
            NONE => self.head,
            previous => self.slots[previous as usize].next,
        };
        let slot = Slot {
            sequence: Some(sequence),
            previous,
            next,
            waker: None,
            role: 0,
            outcome: None,
            note: Some(note),
        };
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
        self.in_line += 1;
        self.kept += 1;
        Ticket { index, sequence }
    }

    /// Gives the slot back. The waker is returned so that the caller drops it outside its lock.
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
            // A crowd came and went: its memory goes with it.
            self.slots = Vec::new();
            self.free = NONE;
        }
        gone
    }

    /// The one that has waited longest.
    pub(crate) fn oldest(&self) -> Option<Ticket> {
        (self.head != NONE).then(|| self.ticket(self.head))
    }

    /// All in line, the oldest first.
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

    pub(crate) fn role(&self, ticket: Ticket) -> u64 {
        self.slot(ticket).role
    }

    pub(crate) fn give_role(&mut self, ticket: Ticket, attempt: u64) {
        self.slot_mut(ticket).role = attempt;
    }

    pub(crate) fn waker_mut(&mut self, ticket: Ticket) -> &mut Option<W> {
        &mut self.slot_mut(ticket).waker
    }

    pub(crate) fn has_outcome(&self, ticket: Ticket) -> bool {
        self.slot(ticket).outcome.is_some()
    }

    /// What a waiter brought along.
    pub(crate) fn note(&self, ticket: Ticket) -> &D {
        self.slot(ticket).note.as_ref().expect("a kept slot has its note")
    }

    /// Gives one in line its outcome, which takes it out of the line, and returns its waker.
    pub(crate) fn end(&mut self, ticket: Ticket, outcome: O) -> Option<W> {
        self.unlink(ticket.index);
        let slot = self.slot_mut(ticket);
        slot.outcome = Some(outcome);
        slot.waker.take()
    }

    /// Takes every waker in line, the oldest first; nobody leaves the line.
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

    /// Gives everyone in line the same outcome; the line is empty afterwards.
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
        self.in_line = 0;
    }

    fn ticket(&self, index: u32) -> Ticket {
        let sequence = self.slots[index as usize].sequence;
        Ticket { index, sequence: sequence.expect("a slot in the line is not free") }
    }

    fn slot(&self, ticket: Ticket) -> &Slot<W, O, D> {
        let slot = &self.slots[ticket.index as usize];
        debug_assert_eq!(
            slot.sequence,
            Some(ticket.sequence),
            "a ticket is used after its slot was given back"
        );
        slot
    }

    fn slot_mut(&mut self, ticket: Ticket) -> &mut Slot<W, O, D> {
        let slot = &mut self.slots[ticket.index as usize];
        debug_assert_eq!(
            slot.sequence,
            Some(ticket.sequence),
            "a ticket is used after its slot was given back"
        );
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
        self.in_line -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_first_in_first_out_whoever_leaves() {
        let mut line: Waiters<u32, ()> = Waiters::new();
        let tickets: Vec<_> = (0..5).map(|_| line.push()).collect();
        line.remove(tickets[0]);
        line.remove(tickets[2]);
        line.remove(tickets[4]);
        let late = line.push();
        assert_eq!(line.iter().collect::<Vec<_>>(), [tickets[1], tickets[3], late]);
        assert_eq!(line.oldest(), Some(tickets[1]));
        assert_eq!(line.len(), 3);
    }

    #[test]
    fn those_who_come_back_stand_ahead_of_those_who_are_new() {
        let mut line: Waiters<u32, ()> = Waiters::new();
        let new = [line.push(), line.push()];
        let back = [line.push_returned(), line.push_returned()];
        assert_eq!(line.iter().collect::<Vec<_>>(), [back[0], back[1], new[0], new[1]]);
        line.remove(back[1]);
        let later = line.push_returned();
        let newer = line.push();
        assert_eq!(line.iter().collect::<Vec<_>>(), [back[0], later, new[0], new[1], newer]);
        line.remove(back[0]);
        line.remove(later);
        let again = line.push_returned();
        assert_eq!(line.iter().collect::<Vec<_>>(), [again, new[0], new[1], newer]);
        line.end_all(|| (), |_| {});
        let last = line.push_returned();
        assert_eq!(line.iter().collect::<Vec<_>>(), [last]);
    }

    #[test]
    fn an_outcome_waits_for_its_owner_outside_the_line() {
        let mut line: Waiters<u32, &str> = Waiters::new();
        let first = line.push();
        *line.waker_mut(first) = Some(7);
        let mut woken = Vec::new();
        line.end_all(|| "over", |waker| woken.push(waker));
        assert_eq!(woken, [7]);
        assert!(line.is_empty() && !line.is_vacant());
        let second = line.push();
        assert_eq!(line.oldest(), Some(second));
        assert_eq!(line.remove(first), (None, Some("over")));
        line.remove(second);
        assert!(line.is_vacant());
    }

    #[test]
    fn one_is_ended_and_the_others_keep_their_places() {
        let mut line: Waiters<u32, &str, char> = Waiters::new();
        let tickets: Vec<_> = ['a', 'b', 'c'].map(|note| line.push_with(note)).into();
        *line.waker_mut(tickets[1]) = Some(7);
        assert_eq!(line.end(tickets[1], "served"), Some(7));
        assert_eq!(line.iter().map(|ticket| *line.note(ticket)).collect::<String>(), "ac");
        assert!(line.has_outcome(tickets[1]));
        assert_eq!(line.remove(tickets[1]), (None, Some("served")));
        assert_eq!(line.len(), 2);
    }

    #[test]
    fn a_crowd_leaves_no_memory_behind() {
        let mut line: Waiters<(), ()> = Waiters::new();
        for (crowd, kept) in [(64, 64), (65, 0), (1000, 0)] {
            let tickets: Vec<_> = (0..crowd).map(|_| line.push()).collect();
            for ticket in tickets {
                line.remove(ticket);
            }
            assert_eq!(line.slots.len(), kept, "{crowd}");
        }
        assert_eq!(line.slots.capacity(), 0);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "after its slot was given back")]
    fn a_ticket_names_nobody_who_came_later() {
        let mut line: Waiters<(), ()> = Waiters::new();
        let first = line.push();
        line.remove(first);
        line.push();
        line.role(first);
    }
}
