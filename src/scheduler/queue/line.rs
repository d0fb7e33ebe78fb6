//! The executions of one lane that are ready, in order of arrival.
//!
//! Mostly there is none, or one that is taken at once; then nothing is allocated.
//!
//! **Invariant:** the first one stands apart, before all others; there are others only if there is a first one.

use std::collections::BTreeMap;

use super::Item;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Line {
    first: Option<(u64, Item)>,
    rest: BTreeMap<u64, Item>,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn first(&self) -> Option<(u64, Item)> {
        self.first
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Item)> {
        let rest = self.rest.iter();
        let rest = rest.map(|(&sequence, &item)| (sequence, item));
        self.first.into_iter().chain(rest)
    }

    pub(super) fn insert(&mut self, sequence: u64, item: Item) {
        let next = match self.first {
            None => return self.first = Some((sequence, item)),
            Some(first) if first.0 <= sequence => (sequence, item),
            Some(first) => {
                self.first = Some((sequence, item));
                first
            }
        };
        self.rest.insert(next.0, next.1);
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<Item> {
        match self.first {
            Some((first, item)) if first == sequence => {
                self.first = self.rest.pop_first();
                Some(item)
            }
            _ => self.rest.remove(&sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Class, Company, Lane};
    use super::*;
    use crate::model::{ExecutionId, Timestamp};

    fn item(number: u64) -> Item {
        Item {
            id: ExecutionId::of(Timestamp(0), [0; 10]),
            class: Class::Guest,
            lane: Lane::Caller,
            company: Company::Any,
            input_bytes: number,
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_in_order(steps in prop::collection::vec((any::<bool>(), 0_u64..12), 0..60)) {
            let (mut line, mut map) = (Line::default(), BTreeMap::new());
            for (inserts, sequence) in steps {
                // A sequence number is never given twice.
                if inserts && !map.contains_key(&sequence) {
                    line.insert(sequence, item(sequence));
                    map.insert(sequence, item(sequence));
                } else {
                    prop_assert_eq!(line.remove(sequence), map.remove(&sequence));
                }
                prop_assert!(line.iter().eq(map.iter().map(|(&sequence, &item)| (sequence, item))));
                prop_assert_eq!(line.first(), line.iter().next());
                prop_assert_eq!((line.len(), line.is_empty()), (map.len(), map.is_empty()));
            }
        }
    }
}
