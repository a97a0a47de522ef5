//! Merges cookies that several processes change within one version: the last writer of a cookie
//! wins.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    cookies::{StoredCookie, Timestamp},
    hash::Fnv1a,
};

/// The last change of a cookie after its version was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CookieChange {
    cookie: Key,
    at: Timestamp,
}

/// A hash of what identifies a cookie, the same in every process.
type Key = u64;

/// How many changes a record lists. The last write wins for others, whenever its change was made.
const MAX_CHANGES: usize = 1000;

/// An expiry time that moves less than this is no change: sites move it with every response.
pub(super) const DRIFT: Duration = Duration::from_secs(60);

fn is_changed(before: Option<&StoredCookie>, after: Option<&StoredCookie>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => !before.eq_within(after, DRIFT),
        (before, after) => before.is_some() || after.is_some(),
    }
}

fn key(cookie: &StoredCookie) -> Key {
    let scope: &[u8] = if cookie.host_only() { b"h" } else { b"d" };
    let partition = cookie.partition_key().unwrap_or("").as_bytes();
    let parts = [cookie.domain().as_bytes(), scope, cookie.path_bytes(), cookie.name_bytes(), partition];
    // A length before each part, so that no two lists of parts have the same bytes.
    parts
        .iter()
        .fold(Fnv1a::new(), |hash, part| {
            hash.with((part.len() as u64).to_le_bytes()).with(part.iter().copied())
        })
        .finish()
}

fn by_key(cookies: &[StoredCookie]) -> HashMap<Key, &StoredCookie> {
    cookies.iter().map(|cookie| (key(cookie), cookie)).collect()
}

/// Applies the changes between `base` and `mine`, made at `at`, to `theirs`.
///
/// A cookie that `changes` lists with a later time is left alone. Returns whether `theirs` has
/// changed.
pub(super) fn apply(
    theirs: &mut Vec<StoredCookie>,
    changes: &mut Vec<CookieChange>,
    base: &[StoredCookie],
    mine: &[StoredCookie],
    at: Timestamp,
) -> bool {
    let (base, mine) = (by_key(base), by_key(mine));
    let changed_at: HashMap<Key, Timestamp> =
        changes.iter().map(|change| (change.cookie, change.at)).collect();
    let mut wanted: HashMap<Key, Option<&StoredCookie>> = HashMap::new();
    for key in base.keys().chain(mine.keys()) {
        let (before, after) = (base.get(key).copied(), mine.get(key).copied());
        if is_changed(before, after) && changed_at.get(key).is_none_or(|last| *last <= at) {
            wanted.insert(*key, after);
        }
    }
    // A change that `theirs` has already needs no write.
    let stored = by_key(theirs);
    wanted.retain(|key, cookie| is_changed(stored.get(key).copied(), *cookie));
    if wanted.is_empty() {
        return false;
    }
    let replaced: HashSet<Key> = wanted.keys().copied().collect();
    theirs.retain(|cookie| !replaced.contains(&key(cookie)));
    changes.retain(|change| !replaced.contains(&change.cookie));
    for (cookie, wanted) in wanted {
        theirs.extend(wanted.cloned());
        changes.push(CookieChange { cookie, at });
    }
    if changes.len() > MAX_CHANGES {
        changes.sort_by_key(|change| std::cmp::Reverse(change.at));
        changes.truncate(MAX_CHANGES);
    }
    true
}

/// Returns the cookies to set and those to remove for a jar to become `merged`.
///
/// A cookie that has changed between `was` and `is` is left alone: its change comes with the next
/// batch.
pub(super) fn diff<'c>(
    was: &[StoredCookie],
    is: &'c [StoredCookie],
    merged: &'c [StoredCookie],
) -> (Vec<&'c StoredCookie>, Vec<&'c StoredCookie>) {
    let (was, is_now, target) = (by_key(was), by_key(is), by_key(merged));
    let is_unchanged = |key: &Key| was.get(key) == is_now.get(key);
    let set = target
        .iter()
        .filter(|(key, cookie)| is_unchanged(key) && is_changed(is_now.get(*key).copied(), Some(cookie)));
    let removed = is_now.iter().filter(|(key, _)| is_unchanged(key) && !target.contains_key(key));
    (set.map(|(_, cookie)| *cookie).collect(), removed.map(|(_, cookie)| *cookie).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(name: &str, value: &str) -> StoredCookie {
        StoredCookie::for_host(name, value, "shop.example").path("/").build().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_secs(1_700_000_000 + second)
    }

    fn shown(cookies: &[StoredCookie]) -> Vec<String> {
        let mut shown: Vec<_> =
            cookies.iter().map(|it| format!("{}={}", it.name().unwrap(), it.value().unwrap())).collect();
        shown.sort();
        shown
    }

    #[test]
    fn changes_of_different_cookies_are_all_merged() {
        let base = [cookie("a", "0"), cookie("b", "0"), cookie("c", "0")];
        let (mut stored, mut changes) = (base.to_vec(), Vec::new());
        let one = [cookie("a", "1"), cookie("b", "0"), cookie("c", "0"), cookie("new", "1")];
        let other = [cookie("a", "0"), cookie("b", "2")];
        assert!(apply(&mut stored, &mut changes, &base, &one, at(1)));
        assert!(apply(&mut stored, &mut changes, &base, &other, at(2)));
        assert_eq!(shown(&stored), ["a=1", "b=2", "new=1"]);
        assert!(!apply(&mut stored, &mut changes, &base, &other, at(3)), "no change is written twice");
    }

    #[test]
    fn the_later_of_two_changes_wins_in_either_order_of_writing() {
        for late_first in [false, true] {
            let base = [cookie("a", "0")];
            let (mut stored, mut changes) = (base.to_vec(), Vec::new());
            let mut edits = [(vec![cookie("a", "early")], at(1)), (vec![cookie("a", "late")], at(2))];
            if late_first {
                edits.reverse();
            }
            for (mine, at) in edits {
                apply(&mut stored, &mut changes, &base, &mine, at);
            }
            assert_eq!(shown(&stored), ["a=late"]);
        }
    }

    #[test]
    fn a_removal_is_merged_like_any_other_change() {
        let base = [cookie("a", "0"), cookie("b", "0")];
        let (mut stored, mut changes) = (base.to_vec(), Vec::new());
        assert!(apply(&mut stored, &mut changes, &base, &[cookie("b", "0")], at(5)));
        assert!(!apply(&mut stored, &mut changes, &base, &[cookie("a", "old"), cookie("b", "0")], at(4)));
        assert_eq!(shown(&stored), ["b=0"]);
        assert!(apply(&mut stored, &mut changes, &base, &[cookie("a", "new"), cookie("b", "0")], at(6)));
        assert_eq!(shown(&stored), ["a=new", "b=0"]);
    }

    #[test]
    fn a_slightly_later_expiry_is_no_change() {
        let until =
            |second| StoredCookie::for_host("a", "0", "shop.example").expires(at(second)).build().unwrap();
        let (mut stored, mut changes) = (vec![until(1000)], Vec::new());
        assert!(!apply(&mut stored, &mut changes, &[until(1000)], &[until(1060)], at(1)));
        assert!(apply(&mut stored, &mut changes, &[until(1000)], &[until(1061)], at(1)));
        assert_eq!(stored[0].expires(), Some(at(1061)));
        assert!(
            apply(&mut stored, &mut changes, &[until(1061)], &[cookie("a", "0")], at(2)),
            "a session cookie has no expiry"
        );
    }

    #[test]
    fn only_the_latest_changes_are_listed_up_to_a_maximum() {
        let (mut stored, mut changes) = (Vec::new(), Vec::new());
        for second in 0..3 {
            let mine: Vec<_> = (0..600).map(|number| cookie(&format!("{second}-{number}"), "x")).collect();
            apply(&mut stored, &mut changes, &[], &mine, at(second));
        }
        assert_eq!(changes.len(), MAX_CHANGES);
        assert!(changes.iter().filter(|change| change.at == at(2)).count() == 600);
        assert!(changes.iter().all(|change| change.at >= at(1)));
    }

    #[test]
    fn a_jar_gets_remote_changes_except_where_it_has_changed_itself() {
        let was = [cookie("a", "0"), cookie("b", "0"), cookie("c", "0")];
        let is = [cookie("a", "0"), cookie("b", "mine"), cookie("c", "0")];
        let merged = [cookie("a", "1"), cookie("b", "theirs"), cookie("d", "1")];
        let (set, removed) = diff(&was, &is, &merged);
        let owned = |cookies: Vec<&StoredCookie>| cookies.into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(shown(&owned(set)), ["a=1", "d=1"]);
        assert_eq!(shown(&owned(removed)), ["c=0"]);
    }

    #[test]
    fn the_key_depends_on_every_part_of_a_cookies_identity() {
        let plain = cookie("a", "0");
        let others = [
            cookie("b", "0"),
            StoredCookie::for_host("a", "0", "shop.example").path("/x").build().unwrap(),
            StoredCookie::for_host("a", "0", "other.example").path("/").build().unwrap(),
            StoredCookie::for_domain("a", "0", "shop.example").path("/").build().unwrap(),
        ];
        assert_eq!(key(&plain), key(&cookie("a", "1")));
        for other in others {
            assert_ne!(key(&plain), key(&other), "{other}");
        }
    }
}
