//! The members that are ready, in the order in which they are leased.

use std::collections::BTreeSet;

/// The order of the ready members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelectionOrder {
    /// The member that was leased longest ago comes first.
    RoundRobin,
    /// The member with the fewest requests in flight comes first; among equals, the one leased
    /// longest ago.
    LeastLoaded,
    /// The member of the first slot comes first.
    FillFirst,
    /// A random member comes first.
    Random,
}

/// The rank of a ready member; the smallest comes first.
pub(crate) type Rank = (u64, u64);

/// The ready members. Lookup, insertion and removal take logarithmic time; for `Random` constant
/// time.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    by: SelectionOrder,
    ranked: BTreeSet<(Rank, u32)>,
    /// Used instead of `ranked` for `Random`, together with the position of each member.
    listed: Vec<u32>,
    positions: Vec<u32>,
}

impl Ready {
    pub(crate) fn new(by: SelectionOrder) -> Self {
        Self { by, ranked: BTreeSet::new(), listed: Vec::new(), positions: Vec::new() }
    }

    pub(crate) fn insert(&mut self, index: u32, rank: Rank) {
        if self.by != SelectionOrder::Random {
            self.ranked.insert((rank, index));
            return;
        }
        let slots = self.positions.len().max(index as usize + 1);
        self.positions.resize(slots, 0);
        self.positions[index as usize] = self.listed.len() as u32;
        self.listed.push(index);
    }

    /// Removes a member that was inserted with this rank.
    pub(crate) fn remove(&mut self, index: u32, rank: Rank) {
        if self.by != SelectionOrder::Random {
            self.ranked.remove(&(rank, index));
            return;
        }
        let position = self.positions[index as usize];
        self.listed.swap_remove(position as usize);
        if let Some(moved) = self.listed.get(position as usize) {
            self.positions[*moved as usize] = position;
        }
    }

    /// Returns the first accepted member; `random` is used for `Random` only.
    pub(crate) fn first(&self, random: u64, accepts: impl Fn(u32) -> bool) -> Option<u32> {
        if self.by != SelectionOrder::Random {
            return self.ranked.iter().map(|(_, index)| *index).find(|index| accepts(*index));
        }
        if self.listed.is_empty() {
            return None;
        }
        let start = (random % self.listed.len() as u64) as usize;
        let (before, after) = self.listed.split_at(start);
        after.iter().chain(before).copied().find(|index| accepts(*index))
    }

    /// Returns all ready members.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranked.iter().map(|(_, index)| *index).chain(self.listed.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_rank_comes_first() {
        let mut ready = Ready::new(SelectionOrder::RoundRobin);
        for (index, rank) in [(0, (0, 5)), (1, (0, 3)), (2, (0, 4))] {
            ready.insert(index, rank);
        }
        assert_eq!(ready.first(0, |_| true), Some(1));
        assert_eq!(ready.first(0, |index| index != 1), Some(2));
        ready.remove(1, (0, 3));
        assert_eq!(ready.first(0, |_| true), Some(2));
    }

    #[test]
    fn a_random_order_selects_all_members_evenly_after_removals() {
        let mut ready = Ready::new(SelectionOrder::Random);
        (0..6).for_each(|index| ready.insert(index, (0, 0)));
        ready.remove(0, (0, 0));
        ready.remove(5, (0, 0));
        let mut counts = [0; 6];
        (0..400).for_each(|random| counts[ready.first(random, |_| true).unwrap() as usize] += 1);
        assert_eq!(counts, [0, 100, 100, 100, 100, 0]);
        assert_eq!(ready.first(3, |index| index == 2), Some(2));
        assert_eq!(ready.first(3, |_| false), None);
    }
}
