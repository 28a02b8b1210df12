//! Pure functions over long slices, on all cores.

use std::{num::NonZero, thread};

/// Below this many items a thread costs more than it saves.
const WORTH_A_THREAD: usize = 4_096;

/// What `f` makes of pieces of `items`, in their order. Long slices are cut into one piece for each core; a panic of `f` goes on
/// in the caller.
pub fn pieces<T, U, F>(items: &[T], f: F) -> Vec<U>
where
    T: Sync,
    U: Send,
    F: Fn(&[T]) -> Vec<U> + Sync,
{
    let most = items.len() / WORTH_A_THREAD;
    let threads =
        if most < 2 { 1 } else { thread::available_parallelism().map_or(1, NonZero::get).min(most) };
    if threads < 2 {
        return f(items);
    }
    let piece = items.len().div_ceil(threads);
    let (first, rest) = items.split_at(piece);
    thread::scope(|scope| {
        let others: Vec<_> = rest.chunks(piece).map(|chunk| scope.spawn(|| f(chunk))).collect();
        let mut mapped = f(first);
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
            assert_eq!(pieces(&items, |piece| piece.iter().map(|n| n * 3).collect()), expected);
        }
    }

    #[test]
    #[should_panic(expected = "the last one")]
    fn a_panic_of_any_piece_is_the_callers() {
        let items: Vec<usize> = (0..4 * WORTH_A_THREAD).collect();
        pieces(&items, |piece| {
            assert!(!piece.contains(&(items.len() - 1)), "the last one");
            piece.to_vec()
        });
    }
}
