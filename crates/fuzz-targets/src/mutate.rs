//! A small mutator for the ordinary tests: no coverage, but the same inputs on every machine.

/// Words that parsers trip over.
const WORDS: &[&[u8]] = &[
    b"null",
    b"true",
    b"0",
    b"-0",
    b"-1",
    b"+1",
    b"1.5",
    b"1e999",
    b"00",
    b"255",
    b"256",
    b"65536",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"340282366920938463463374607431768211455",
    b"340282366920938463463374607431768211456",
    b"\"\"",
    b"[]",
    b"{}",
    b"[[[[",
    b"{\"a\":",
    b"\"v\":",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
    b"\xe2\x80\xae",
    b"%00",
    b"%2f",
    b"%zz",
    b"..",
    b"../",
    b"?",
    b"&",
    b"=",
    b"#",
    b":",
    b"\r\n",
    b"\n",
    b" ",
    b"\t",
    b"'",
    b"\"",
    b"\\",
    b"9999-12-31T23:59:59Z",
    b"-009999-01-01T00:00:00Z",
    b"unit_",
    b"Bearer ",
    b"0x",
    b"inf",
    b"NaN",
];

/// Chance from a number.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The same number gives the same chance.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % (end.max(1) as u64)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }

    /// A range of an input, at most 32 bytes long.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        from..(from + self.below(33)).min(len)
    }
}

/// An input made from some seed by a few changes, at most `max_len` bytes long.
pub fn mutate(chance: &mut Chance, seeds: &[Vec<u8>], max_len: usize) -> Vec<u8> {
    let mut input = seeds.get(chance.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..=chance.below(4) {
        change(chance, &mut input, seeds);
    }
    input.truncate(max_len);
    input
}

fn change(chance: &mut Chance, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = chance.below(input.len() + 1);
    match chance.below(9) {
        0 => {
            let bit = chance.below(8);
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        1 => {
            let new = chance.byte();
            if let Some(byte) = input.get_mut(at) {
                *byte = new;
            }
        }
        2 => drop(input.drain(chance.range(input.len()))),
        3 => {
            let copied = input.get(chance.range(input.len())).unwrap_or_default().to_vec();
            drop(input.splice(at..at, copied));
        }
        4 => input.insert(at, chance.byte()),
        5 => {
            let word = WORDS.get(chance.below(WORDS.len())).copied().unwrap_or_default();
            drop(input.splice(at..at, word.iter().copied()));
        }
        6 => number(chance, input),
        7 => {
            let other = seeds.get(chance.below(seeds.len())).map(Vec::as_slice).unwrap_or_default();
            let part = other.get(chance.range(other.len())).unwrap_or_default();
            let over = (at + part.len()).min(input.len());
            drop(input.splice(at..over, part.iter().copied()));
        }
        _ => input.truncate(at),
    }
}

/// Puts a word in place of a number, if there is one.
fn number(chance: &mut Chance, input: &mut Vec<u8>) {
    let from = chance.below(input.len() + 1);
    let digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = input.iter().skip(from).position(digit).map(|at| at + from) else { return };
    let end = input.iter().skip(start).position(|byte| !digit(byte)).map_or(input.len(), |at| at + start);
    let word = WORDS.get(chance.below(WORDS.len())).copied().unwrap_or_default();
    drop(input.splice(start..end, word.iter().copied()));
}
