//! Bugs on purpose: what a run is given to see that it would be found.

use std::str::FromStr;

/// A bug that is put into a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// Now and then a commit is acknowledged that was not made.
    LostCommit,
    /// The fencing token of a job is not looked at.
    NoToken,
    /// A provider takes every generation.
    NoGeneration,
    /// Capacity may fall below zero.
    NoFloor,
    /// A settlement layer that does not know its keys again, and a provider that does what it is asked each time.
    NoKeys,
    /// Now and then a transfer is worth one unit more.
    WrongAmount,
    /// The marker of a request is not kept.
    NoMarker,
}

impl Sabotage {
    /// Every bug, with its name.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::LostCommit, "lost-commit"),
        (Self::NoToken, "no-token"),
        (Self::NoGeneration, "no-generation"),
        (Self::NoFloor, "no-floor"),
        (Self::NoKeys, "no-keys"),
        (Self::WrongAmount, "wrong-amount"),
        (Self::NoMarker, "no-marker"),
    ];
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(bug, _)| *bug).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("`{text}` is none of {}", names.join(", "))
        })
    }
}
