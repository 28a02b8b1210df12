//! The steps of a block. Its records are cut into steps of [`STEP_RECORDS`], and the events root commits to the state after
//! each, so that whoever doubts a block need show one step only. What is hashed is in `docs/ethereum.md`.

use serde::{Deserialize, Serialize};
use sha3::{Digest, Keccak256};

use super::{
    hash::{Tag, keccak_each, keccak_of, message},
    ledger_state::{ApplyError, LedgerState},
    record::{RECORD_BYTES, Record},
    tree::list_root,
};
use crate::core::market::block::{BlockFormat, BlockHeader, Hash32};

/// How many records a step has; the last one of a block may have fewer.
pub const STEP_RECORDS: usize = 48;

/// A step, as it is registered with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Keccak-256 of its records' cells, one after the other.
    pub cells: Hash32,
    /// How many records it has.
    pub count: u32,
    /// The step state after it.
    pub state: Hash32,
}

impl Step {
    /// Bytes of a step as it is registered.
    pub const REGISTERED_BYTES: usize = 64;

    /// As it is registered: the hash of its cells and the state after it. How many records it has follows from its place.
    #[must_use]
    pub fn registered(&self) -> [u8; Self::REGISTERED_BYTES] {
        let mut bytes = [0; Self::REGISTERED_BYTES];
        let (cells, state) = bytes.split_at_mut(32);
        cells.copy_from_slice(&self.cells.0);
        state.copy_from_slice(&self.state.0);
        bytes
    }

    /// The step that was registered so.
    #[must_use]
    pub fn from_registered(bytes: &[u8; Self::REGISTERED_BYTES], count: usize) -> Self {
        let half = |from: usize| Hash32(std::array::from_fn(|i| bytes.get(from + i).copied().unwrap_or(0)));
        Self { cells: half(0), count: u32::try_from(count).unwrap_or(u32::MAX), state: half(32) }
    }

    /// Its leaf in the tree of the events root.
    #[must_use]
    pub fn leaf(&self) -> Hash32 {
        keccak_of(&self.message())
    }

    fn message(&self) -> [u8; 69] {
        message(Tag::Step, &[&self.cells.0, &self.count.to_be_bytes(), &self.state.0])
    }
}

/// How many records each step of a block of so many has.
pub fn step_sizes(records: usize) -> impl ExactSizeIterator<Item = usize> {
    (0..records).step_by(STEP_RECORDS).map(move |at| STEP_RECORDS.min(records - at))
}

/// The steps of a block of so many records, from what each is registered with, one after the other; `None` when there are too few or
/// too many.
#[must_use]
pub fn registered_steps(bytes: &[u8], records: usize) -> Option<Vec<Step>> {
    let (steps, rest) = bytes.as_chunks::<{ Step::REGISTERED_BYTES }>();
    let sizes = step_sizes(records);
    let whole = rest.is_empty() && steps.len() == sizes.len();
    whole.then(|| steps.iter().zip(sizes).map(|(bytes, size)| Step::from_registered(bytes, size)).collect())
}

/// Everything that the next record may depend on, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepState {
    /// Root of both trees.
    pub state_root: Hash32,
    /// Index of the last consumed deposit.
    pub last_deposit: u64,
    /// Index that the next entry of the market tree takes.
    pub next_market: u32,
    /// Whether a verdict waits for its evidence.
    pub open_verdict: bool,
    /// What of the payment just before may still be credited.
    pub creditable: u128,
    /// Index of the account that got the payment.
    pub creditor: u32,
}

impl StepState {
    /// The hash.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        keccak_of(&self.message())
    }

    fn message(&self) -> [u8; 66] {
        message(
            Tag::StepState,
            &[
                &self.state_root.0,
                &self.last_deposit.to_be_bytes(),
                &self.next_market.to_be_bytes(),
                &[u8::from(self.open_verdict)],
                &self.creditable.to_be_bytes(),
                &self.creditor.to_be_bytes(),
            ],
        )
    }

    /// The state that a block ends in, which follows from its header; `None` in the first format.
    #[must_use]
    pub fn end_of(header: &BlockHeader) -> Option<Self> {
        Some(Self {
            state_root: header.state_root,
            last_deposit: header.last_deposit,
            next_market: header.next_market?,
            open_verdict: false,
            creditable: 0,
            creditor: 0,
        })
    }
}

/// Root over the steps of a block.
#[must_use]
pub fn steps_root(steps: &[Step]) -> Hash32 {
    list_root(keccak_each(steps, Step::message))
}

/// Executes the records of a block and says its steps; there are none in the first format. After an error the state is that
/// before the record which can't be applied: the caller rolls back.
///
/// # Errors
/// What is wrong with the first record that can't be applied.
pub fn execute(
    state: &mut LedgerState,
    format: BlockFormat,
    records: &[Record],
) -> Result<Vec<Step>, ApplyError> {
    if format == BlockFormat::Records {
        state.apply_block(format, records)?;
        return Ok(Vec::new());
    }
    let mut states = Vec::with_capacity(records.len().div_ceil(STEP_RECORDS));
    let mut chunks = records.chunks(STEP_RECORDS).peekable();
    while let Some(chunk) = chunks.next() {
        chunk.iter().try_for_each(|record| state.apply(record))?;
        if chunks.peek().is_none() {
            state.end_block();
        }
        states.push(state.step_state());
    }
    // What no later step waits for is hashed for all of them at once.
    let states = keccak_each(&states, StepState::message);
    let steps = step_sizes(records.len()).zip(cells_hashes(records)).zip(states);
    Ok(steps
        .map(|((count, cells), state)| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            Step { cells, count, state }
        })
        .collect())
}

/// The hash of the cells of each step; the last one may be shorter than the others.
fn cells_hashes(records: &[Record]) -> Vec<Hash32> {
    let (whole, last) = records.as_chunks::<STEP_RECORDS>();
    let mut hashes = keccak_each(whole, |step| {
        let mut cells = [0; STEP_RECORDS * RECORD_BYTES];
        for (cell, record) in cells.as_chunks_mut().0.iter_mut().zip(step) {
            *cell = record.encode();
        }
        cells
    });
    if !last.is_empty() {
        let cells: Vec<u8> = last.iter().flat_map(Record::encode).collect();
        hashes.push(Hash32(Keccak256::digest(cells).into()));
    }
    hashes
}
