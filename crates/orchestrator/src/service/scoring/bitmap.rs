//! Sets of row numbers as bitmaps, and columns that answer "at most" and "at least" with one.

/// One bit for each row.
pub(super) type Bits = Box<[u64]>;

/// How many bitmaps of prefixes a column keeps at most.
const MARKS: usize = 64;
/// Rows between two such bitmaps, at least.
const LEAST_STEP: usize = 512;

/// No row of `len`.
pub(super) fn none(len: usize) -> Bits {
    vec![0; len.div_ceil(64)].into_boxed_slice()
}

/// Every row of `len`.
pub(super) fn full(len: usize) -> Bits {
    let mut all = vec![u64::MAX; len.div_ceil(64)].into_boxed_slice();
    cut(&mut all, len);
    all
}

/// Clears what lies behind the last row.
fn cut(mask: &mut Bits, len: usize) {
    if !len.is_multiple_of(64)
        && let Some(last) = mask.last_mut()
    {
        *last &= (1 << (len % 64)) - 1;
    }
}

pub(super) fn set(mask: &mut Bits, row: usize) {
    if let Some(word) = mask.get_mut(row / 64) {
        *word |= 1 << (row % 64);
    }
}

pub(super) fn has(mask: &Bits, row: usize) -> bool {
    mask.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
}

pub(super) fn and(a: &Bits, b: &Bits) -> Bits {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

/// How many rows are in both.
pub(super) fn count_both(a: &Bits, b: &Bits) -> u64 {
    a.iter().zip(b).map(|(a, b)| u64::from((a & b).count_ones())).sum()
}

pub(super) fn count(mask: &Bits) -> u64 {
    mask.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// The rows of a set, in ascending order.
pub(super) fn rows(mask: &Bits) -> impl Iterator<Item = usize> {
    mask.iter().enumerate().flat_map(|(i, word)| {
        let mut left = *word;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            Some(i * 64 + bit as usize)
        })
    })
}

/// Row numbers in the order of a key, with bitmaps of some prefixes: the set of the first rows costs one copy and a few
/// bits, whatever the number of rows.
#[derive(Debug, Default)]
pub(super) struct Order {
    rows: Vec<u32>,
    step: usize,
    marks: Vec<Bits>,
}

impl Order {
    /// Orders rows by a key; of equal keys the better ranked comes first. `rows` are all row numbers; the closer they are to
    /// the wanted order, the faster it is made.
    pub(super) fn new<K: Ord>(mut rows: Vec<u32>, key: impl Fn(usize) -> K) -> Self {
        rows.sort_by(|a, b| key(*a as usize).cmp(&key(*b as usize)).then(a.cmp(b)));
        let step = rows.len().div_ceil(MARKS).max(LEAST_STEP);
        let mut marks = Vec::with_capacity(rows.len() / step + 1);
        let mut mark = none(rows.len());
        for chunk in rows.chunks(step) {
            marks.push(mark.clone());
            chunk.iter().for_each(|row| set(&mut mark, *row as usize));
        }
        marks.push(mark);
        Self { rows, step, marks }
    }

    /// The rows, in order.
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The rows that come before the first one that `holds` is false for.
    pub(super) fn while_holds(&self, holds: impl Fn(usize) -> bool) -> Bits {
        let until = self.rows.partition_point(|row| holds(*row as usize));
        let mark = until / self.step.max(1);
        let mut mask = self.marks.get(mark).cloned().unwrap_or_else(|| none(self.rows.len()));
        let rest = self.rows.get(mark * self.step..until).unwrap_or_default();
        rest.iter().for_each(|row| set(&mut mask, *row as usize));
        mask
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn an_order_answers_as_a_scan_does(values in prop::collection::vec(0_u32..50, 0..1_500), most in 0_u32..60) {
            let numbers = (0..values.len() as u32).rev().collect();
            let order = Order::new(numbers, |row| values[row]);
            let mask = order.while_holds(|row| values[row] <= most);
            let wanted: Vec<usize> = (0..values.len()).filter(|row| values[*row] <= most).collect();
            prop_assert_eq!(rows(&mask).collect::<Vec<_>>(), wanted.clone());
            prop_assert_eq!(count(&mask), wanted.len() as u64);
            prop_assert_eq!(count_both(&mask, &full(values.len())), wanted.len() as u64);
            prop_assert_eq!(and(&mask, &none(values.len())), none(values.len()));
            let sorted = order.rows().iter().map(|row| (values[*row as usize], *row)).collect::<Vec<_>>();
            prop_assert!(sorted.is_sorted());
        }
    }
}
