//! Things by stream number.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::ids::IdHasher;

/// A table of what is kept per stream.
///
/// Frames, confirmations and what applications say come in runs of one stream, so the place of the one
/// that was looked up last is remembered: to find it again takes a comparison.
#[derive(Debug)]
pub struct Table<T> {
    places: HashMap<u32, u32, BuildHasherDefault<IdHasher>>,
    entries: Vec<Option<T>>,
    free: Vec<u32>,
    /// Number and place.
    last: Cell<Option<(u32, u32)>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let (places, entries, free) = (HashMap::default(), Vec::new(), Vec::new());
        Self { places, entries, free, last: Cell::new(None) }
    }
}

impl<T> Table<T> {
    #[inline]
    fn place(&self, number: u32) -> Option<usize> {
        match self.last.get() {
            Some((last, place)) if last == number => Some(place as usize),
            _ => self.search(number),
        }
    }

    fn search(&self, number: u32) -> Option<usize> {
        let place = *self.places.get(&number)?;
        self.last.set(Some((number, place)));
        Some(place as usize)
    }

    /// What is kept for a stream.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&T> {
        self.entries.get(self.place(number)?)?.as_ref()
    }

    /// What is kept for a stream.
    #[inline]
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let place = self.place(number)?;
        self.entries.get_mut(place)?.as_mut()
    }

    /// Whether anything is.
    pub fn contains(&self, number: u32) -> bool {
        self.places.contains_key(&number)
    }

    /// Keeps `entry` for a stream for which nothing is kept.
    pub fn insert(&mut self, number: u32, entry: T) {
        debug_assert!(!self.contains(number), "two entries of one stream");
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = Some(entry);
                place
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() as u32 - 1
            }
        };
        self.places.insert(number, place);
    }

    /// Takes out what is kept for a stream.
    pub fn remove(&mut self, number: u32) -> Option<T> {
        let place = self.places.remove(&number)?;
        self.last.set(None);
        self.free.push(place);
        self.entries[place as usize].take()
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The numbers, in no order that means anything.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.places.keys().copied()
    }

    /// Everything, with its number, in no order that means anything.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let mut numbers = vec![0; self.entries.len()];
        for (number, place) in &self.places {
            numbers[*place as usize] = *number;
        }
        numbers
            .into_iter()
            .zip(&mut self.entries)
            .filter_map(|(n, entry)| Some((n, entry.as_mut()?)))
    }

    /// Everything, in no order that means anything.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.entries.into_iter().flatten()
    }

    /// Everything, in no order that means anything.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn places_are_used_again_and_the_last_one_is_forgotten_with_its_stream() {
        let mut table = Table::default();
        (0..10).for_each(|number| table.insert(number, number * 10));
        assert_eq!(table.get(3), Some(&30));
        assert_eq!(table.remove(3), Some(30));
        assert_eq!((table.get(3), table.len()), (None, 9));
        assert_eq!(table.remove(3), None);
        table.insert(u32::MAX, 7);
        assert_eq!(table.entries.len(), 10);
        assert_eq!(table.get_mut(u32::MAX), Some(&mut 7));
        assert_eq!(table.get(3), None);
        table.insert(3, 31);
        assert_eq!((table.get(3), table.values().count()), (Some(&31), 11));

        table.remove(5);
        table.iter_mut().for_each(|(number, entry)| *entry = number);
        let mut numbers: Vec<_> = table.numbers().collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 6, 7, 8, 9, u32::MAX]);
        assert!(numbers.iter().all(|number| table.get(*number) == Some(number)));
        assert_eq!(table.into_values().count(), 10);
    }
}
