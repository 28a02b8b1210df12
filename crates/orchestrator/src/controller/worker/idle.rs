//! How long a loop waits for news that nobody told it of: the longer nothing happened, the longer.

use parking_lot::Mutex;

use crate::core::market::quantity::Micros;

/// The pause of a loop that looks by itself now and then, beside being called.
#[derive(Debug)]
pub struct IdlePause {
    shortest: Micros,
    longest: Micros,
    next: Mutex<Micros>,
}

impl IdlePause {
    /// A pause that begins at `shortest` and doubles with each fruitless look, up to `longest`.
    #[must_use]
    pub fn new(shortest: Micros, longest: Micros) -> Self {
        let longest = longest.max(shortest);
        Self { shortest, longest, next: Mutex::new(shortest) }
    }

    /// The pause after a look; `found` says whether there was anything.
    pub fn after(&self, found: bool) -> Micros {
        let mut next = self.next.lock();
        if found {
            *next = self.shortest;
        }
        let pause = *next;
        *next = Micros(pause.get().saturating_mul(2)).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_while_nothing_is_found_and_starts_again_with_the_first_find() {
        let idle = IdlePause::new(Micros(3), Micros(10));
        let pauses: Vec<u64> = [false, false, false, false, true, false]
            .into_iter()
            .map(|found| idle.after(found).get())
            .collect();
        assert_eq!(pauses, [3, 6, 10, 10, 3, 6]);
    }
}
