//! The values of a generation in the order they came, under the numbers 0, 1, 2, …: its slots.
//!
//! sled keeps up to sixteen values in a leaf of its tree, splits it in two when one more comes, and
//! then writes all of them again; a value that is simply appended is written 2.9 times so, and 4.5
//! times (measured) if it comes in a batch, which has no order. What is split here is empty: slots
//! are *reserved* ahead of use with values of no bytes, so that the leaf of a slot has its final
//! bounds before anything is put there. A leaf is left with nine slots and takes nine changes before
//! sled writes it anew, so that each value is written once, and nothing becomes garbage that sled
//! would move to clean up.
//!
//! A slot without a value was reserved and not used; only the last ones of a generation are.

use std::ops::ControlFlow;

use super::engine::{Database, EngineError};

/// How far slots are reserved ahead: a leaf is split when it holds seventeen and the next one comes.
const AHEAD: u32 = 18;

/// How far a generation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots {
    /// The first that has no value yet.
    pub(super) used: u32,
    /// The first that is not reserved yet.
    pub(super) reserved: u32,
}

/// The key of a slot.
pub(super) fn key(slot: u32) -> [u8; 4] {
    slot.to_be_bytes()
}

/// The slot of a key.
pub(super) fn split_key(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.try_into().ok()?))
}

impl Slots {
    /// Looks at the end of a database.
    pub(super) fn of(database: &Database) -> Result<Self, EngineError> {
        let mut slots = Self::default();
        database.scan_back(|key, value| {
            let Some(slot) = split_key(key) else {
                return ControlFlow::Break(());
            };
            slots.reserved = slots.reserved.max(slot.saturating_add(1));
            if value.is_empty() {
                return ControlFlow::Continue(());
            }
            slots.used = slot.saturating_add(1);
            ControlFlow::Break(())
        })?;
        Ok(slots)
    }

    /// Those to reserve before `count` more are used.
    pub(super) fn missing(self, count: u32) -> std::ops::Range<u32> {
        let wanted = self.used.saturating_add(count).saturating_add(AHEAD);
        self.reserved..wanted.max(self.reserved)
    }
}

/// The slot whose value begins at or before `place`, going by what `position` says of a slot (place
/// and part; nothing if it is damaged) and searching from `hint` on: the last such, and of a record
/// in parts the first part. Nothing if there is none.
pub(super) fn find<E>(
    place: u64,
    hint: u32,
    used: u32,
    mut position: impl FnMut(u32) -> Result<Option<(u64, u32)>, E>,
) -> Result<Option<u32>, E> {
    // Everything below `low` begins at or before `place`, everything from `high` on after it; what
    // is damaged belongs to what stands before it.
    let (mut low, mut high) = (hint.min(used), used);
    let mut found = None;
    // Who reads on in order is at most a step away.
    let mut is_near = true;
    while low < high {
        let middle = if is_near { low } else { low + (high - low) / 2 };
        let (mut probe, mut seen) = (middle, None);
        while probe < high {
            seen = position(probe)?;
            if seen.is_some() {
                break;
            }
            probe += 1;
        }
        match seen {
            Some((first, part)) if first <= place => {
                is_near = is_near && found.is_none();
                found = Some(probe - part.min(probe));
                low = probe + 1;
            }
            Some(_) | None => high = middle,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_slot_of_a_place_is_found_whatever_the_hint_and_the_damage(
            steps in proptest::collection::vec((1_u64..5, 1_u32..4, any::<bool>()), 0..40),
            place in 0_u64..200,
            hint in 0_u32..130,
        ) {
            // Values begin at growing places, some in parts, some damaged.
            let mut slots = Vec::new();
            let mut first = 10;
            for (step, parts, damaged) in steps {
                first += step;
                for part in 0..parts {
                    slots.push((!damaged).then_some((first, part)));
                }
            }
            let used = u32::try_from(slots.len()).unwrap();
            let position = |slot: u32| Ok::<_, Infallible>(slots[usize::try_from(slot).unwrap()]);
            let expected = (0..used).zip(&slots).rev().find_map(|(slot, position)| match position {
                Some((first, part)) if *first <= place => Some(slot - part),
                _ => None,
            });
            let Ok(found) = find(place, 0, used, position);
            prop_assert_eq!(found, expected);
            // A hint is a slot that begins at or before the place.
            let good = (0..=hint.min(used)).rev().find(|slot| {
                slots.get(usize::try_from(*slot).unwrap()).is_some_and(|position| {
                    position.is_some_and(|(first, part)| first <= place && part == 0)
                })
            });
            if let Some(hint) = good {
                let Ok(found) = find(place, hint, used, position);
                prop_assert_eq!(found, expected);
            }
        }
    }
}
