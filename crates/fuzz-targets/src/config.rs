//! The configuration: file, environment and flags.

use orchestrator::config::{Config, Layers, load};

/// What is accepted can be written down, and is then read as the same; what is refused says where and why.
///
/// The input is the file; behind a line `---` come variables (`NAME=VALUE`), behind a second one flags (`KEY=VALUE`).
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, "\n---\n");
    let file = parts.next().unwrap_or_default().to_owned();
    let pairs = |part: Option<&str>| {
        let lines = part.unwrap_or_default().lines();
        lines.filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let (environment, flags) = (pairs(parts.next()), pairs(parts.next()));
    let layers = Layers { file: Some(("f.toml".to_owned(), file)), environment, flags };
    match load(&layers) {
        Ok(config) => accepted(&config),
        Err(error) => {
            assert!(!error.faults.is_empty());
            for fault in &error.faults {
                assert!(!fault.place.is_empty() && !fault.problem.is_empty(), "{fault:?}");
            }
            assert!(error.to_string().lines().count() > error.faults.len());
        }
    }
}

fn accepted(config: &Config) {
    let text = toml::to_string(config).unwrap();
    let file = Some(("again.toml".to_owned(), text));
    let again = load(&Layers { file, ..Layers::default() });
    assert_eq!(again.as_ref(), Ok(config));
    let shown = config.masked();
    assert_eq!(shown.masked(), shown);
}
