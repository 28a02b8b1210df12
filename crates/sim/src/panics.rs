//! Panics of a run. A task that panics is caught by its runtime and might go unnoticed: a hook hears all of them.

use std::{cell::RefCell, sync::Once};

thread_local! {
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Hears the panics of this thread until it is asked what it heard.
pub struct Listening(());

/// Begins to listen.
#[must_use]
pub fn listen() -> Listening {
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let heard = HEARD.with_borrow_mut(|heard| match heard {
                Some(texts) => {
                    texts.push(info.to_string());
                    true
                }
                None => false,
            });
            if !heard {
                usual(info);
            }
        }));
    });
    HEARD.set(Some(Vec::new()));
    Listening(())
}

impl Listening {
    /// What was heard.
    #[must_use]
    pub fn take(self) -> Vec<String> {
        HEARD.take().unwrap_or_default()
    }
}
