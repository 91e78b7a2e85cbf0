//! From names to the numbers of what bears them: a table made in two passes over the names, without
//! sorting, since a kernel has a hundred thousand and a few are asked for.

use xxhash_rust::xxh3::xxh3_64;

/// Numbers in buckets by the hashes of their names, rising in each bucket.
#[derive(Debug)]
pub(crate) struct ByName {
    /// Where each bucket ends in `numbers`.
    ends: Vec<u32>,
    numbers: Vec<u32>,
}

impl ByName {
    /// Of the names of 0, 1, 2 …; those without one are left out.
    pub(crate) fn new<'n>(names: impl ExactSizeIterator<Item = &'n [u8]>) -> Self {
        let buckets = names.len().max(1).next_power_of_two();
        let bucket = |name: &[u8]| match name {
            [] => u32::MAX,
            _ => xxh3_64(name) as u32 & (buckets - 1) as u32,
        };
        let of_each: Vec<u32> = names.map(bucket).collect();
        let mut ends = vec![0u32; buckets];
        for &bucket in &of_each {
            if let Some(count) = ends.get_mut(bucket as usize) {
                *count += 1;
            }
        }
        let mut total = 0;
        for end in &mut ends {
            // The start for now; it moves to the end as the bucket fills.
            total += std::mem::replace(end, total);
        }
        let mut numbers = vec![0; total as usize];
        for (number, &bucket) in (0..).zip(&of_each) {
            if let Some(end) = ends.get_mut(bucket as usize) {
                numbers[*end as usize] = number;
                *end += 1;
            }
        }
        Self { ends, numbers }
    }

    /// The numbers of all that may be called `name`, in rising order.
    pub(crate) fn candidates(&self, name: &str) -> &[u32] {
        let bucket = xxh3_64(name.as_bytes()) as usize & (self.ends.len() - 1);
        let end = self.ends[bucket] as usize;
        let start = bucket.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.numbers[start as usize..end]
    }

    /// Bytes of heap in use.
    pub(crate) fn heap_bytes(&self) -> usize {
        4 * (self.ends.capacity() + self.numbers.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_name_are_found_in_order() {
        let names: Vec<String> = (0..1000).map(|i| format!("n{}", i % 300)).collect();
        let table = ByName::new(names.iter().map(String::as_bytes));
        for wanted in 0..300 {
            let name = format!("n{wanted}");
            let found = table.candidates(&name).iter();
            let found: Vec<u32> = found
                .copied()
                .filter(|i| names[*i as usize] == name)
                .collect();
            let expected: Vec<u32> = (0..1000).filter(|i| i % 300 == wanted).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_has_no_name_is_not_found() {
        let table = ByName::new([&b""[..], b"a", b""].into_iter());
        assert_eq!(table.candidates("a"), [1]);
        assert!(table.candidates("").iter().all(|i| *i == 1));
        assert!(
            ByName::new(std::iter::empty::<&[u8]>())
                .candidates("a")
                .is_empty()
        );
    }
}
