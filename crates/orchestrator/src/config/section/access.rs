//! `[access]`.

use super::section;
use crate::config::HumanDuration;

section! {
    /// Credentials.
    Access {
        /// How long old and new keys both work after a rotation.
        rotation_overlap: HumanDuration = HumanDuration::secs(3_600);
        /// How long a repeated request still shows the secret that it issued.
        reveal_window: HumanDuration = HumanDuration::secs(600);
    }
}
