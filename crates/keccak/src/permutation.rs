//! Keccak-f[1600] over lanes of any width: of one state, or of several side by side. FIPS 202 names its parts theta, rho, pi,
//! chi and iota.
//!
//! Everything is inlined into whoever has the vector instructions, and the 25 lanes are named by constants only, so that they
//! stay in registers: with a loop over their places the compiler keeps them in memory, which takes three times as long.

/// The lanes of a state in the order of FIPS 202: `x + 5 * y`.
pub(crate) type State<L> = [L; 25];

/// What is added to the first lane by each round.
const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// The same 64 bits of one or more states.
pub(crate) trait Lane: Copy {
    /// Bit by bit, either.
    fn xor(self, other: Self) -> Self;
    /// The same number to each.
    fn xor_all(self, number: u64) -> Self;
    /// To the left, by 1 to 63 bits.
    fn rotate(self, bits: u32) -> Self;
    /// `self ^ (!off & on)`.
    fn xor_masked(self, off: Self, on: Self) -> Self;
}

/// The permutation.
#[inline(always)]
pub(crate) fn permute<L: Lane>(state: &State<L>) -> State<L> {
    let mut state = *state;
    for number in ROUNDS {
        state = round(&state, number);
    }
    state
}

#[inline(always)]
fn round<L: Lane>(a: &State<L>, number: u64) -> State<L> {
    let c = [column(a, 0), column(a, 1), column(a, 2), column(a, 3), column(a, 4)];
    let d = &[
        c[4].xor(c[1].rotate(1)),
        c[0].xor(c[2].rotate(1)),
        c[1].xor(c[3].rotate(1)),
        c[2].xor(c[4].rotate(1)),
        c[3].xor(c[0].rotate(1)),
    ];
    let first = a[0].xor(d[0]);
    let k = row([first, moved(a, d, 6, 44), moved(a, d, 12, 43), moved(a, d, 18, 21), moved(a, d, 24, 14)]);
    let l = row([
        moved(a, d, 3, 28),
        moved(a, d, 9, 20),
        moved(a, d, 10, 3),
        moved(a, d, 16, 45),
        moved(a, d, 22, 61),
    ]);
    let m = row([
        moved(a, d, 1, 1),
        moved(a, d, 7, 6),
        moved(a, d, 13, 25),
        moved(a, d, 19, 8),
        moved(a, d, 20, 18),
    ]);
    let n = row([
        moved(a, d, 4, 27),
        moved(a, d, 5, 36),
        moved(a, d, 11, 10),
        moved(a, d, 17, 15),
        moved(a, d, 23, 56),
    ]);
    let o = row([
        moved(a, d, 2, 62),
        moved(a, d, 8, 55),
        moved(a, d, 14, 39),
        moved(a, d, 15, 41),
        moved(a, d, 21, 2),
    ]);
    let first = k[0].xor_all(number);
    [
        first, k[1], k[2], k[3], k[4], l[0], l[1], l[2], l[3], l[4], m[0], m[1], m[2], m[3], m[4], n[0],
        n[1], n[2], n[3], n[4], o[0], o[1], o[2], o[3], o[4],
    ]
}

/// Theta: the parity of a column.
#[inline(always)]
fn column<L: Lane>(a: &State<L>, x: usize) -> L {
    a[x].xor(a[x + 5]).xor(a[x + 10]).xor(a[x + 15]).xor(a[x + 20])
}

/// Theta's other half, rho and pi: the lane that moves from `place`.
#[inline(always)]
fn moved<L: Lane>(a: &State<L>, d: &[L; 5], place: usize, bits: u32) -> L {
    a[place].xor(d[place % 5]).rotate(bits)
}

/// Chi.
#[inline(always)]
fn row<L: Lane>(b: [L; 5]) -> [L; 5] {
    [
        b[0].xor_masked(b[1], b[2]),
        b[1].xor_masked(b[2], b[3]),
        b[2].xor_masked(b[3], b[4]),
        b[3].xor_masked(b[4], b[0]),
        b[4].xor_masked(b[0], b[1]),
    ]
}
