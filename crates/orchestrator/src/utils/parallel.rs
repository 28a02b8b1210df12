//! Pure functions over long slices, on all cores.

use std::{num::NonZero, thread};

/// Below this many items a thread costs more than it saves.
const WORTH_A_THREAD: usize = 4_096;

/// `items` mapped by `f`, in their order. Long slices are cut into one piece for each core; a panic of `f` goes on in the
/// caller.
pub fn map<T, U, F>(items: &[T], f: F) -> Vec<U>
where
    T: Sync,
    U: Send,
    F: Fn(&T) -> U + Sync,
{
    let most = items.len() / WORTH_A_THREAD;
    let threads =
        if most < 2 { 1 } else { thread::available_parallelism().map_or(1, NonZero::get).min(most) };
    if threads < 2 {
        return items.iter().map(f).collect();
    }
    let piece = items.len().div_ceil(threads);
    let (first, rest) = items.split_at(piece);
    thread::scope(|scope| {
        let others: Vec<_> = rest
            .chunks(piece)
            .map(|chunk| scope.spawn(|| chunk.iter().map(&f).collect::<Vec<U>>()))
            .collect();
        let mut mapped = Vec::with_capacity(items.len());
        mapped.extend(first.iter().map(&f));
        for other in others {
            match other.join() {
                Ok(piece) => mapped.extend(piece),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        mapped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_keeps_its_order() {
        for length in
            [0, 1, WORTH_A_THREAD, 2 * WORTH_A_THREAD, 2 * WORTH_A_THREAD + 1, 5 * WORTH_A_THREAD + 7]
        {
            let items: Vec<usize> = (0..length).collect();
            let expected: Vec<usize> = items.iter().map(|n| n * 3).collect();
            assert_eq!(map(&items, |n| n * 3), expected);
        }
    }

    #[test]
    #[should_panic(expected = "the last one")]
    fn a_panic_of_any_piece_is_the_callers() {
        let items: Vec<usize> = (0..4 * WORTH_A_THREAD).collect();
        map(&items, |n| assert!(n + 1 < items.len(), "the last one"));
    }
}
