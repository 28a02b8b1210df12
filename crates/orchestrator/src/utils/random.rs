//! Random bytes for what lies outside of the market's own rules: test files, tokens.

/// `length` random bytes.
#[must_use]
#[expect(clippy::expect_used, reason = "without the system's entropy there is nothing to go on with")]
pub fn bytes(length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    getrandom::fill(&mut buffer).expect("the operating system's entropy source failed");
    buffer
}

/// `length` random bytes in lower-case hex.
#[must_use]
pub fn hex(length: usize) -> String {
    hex::encode(bytes(length))
}
