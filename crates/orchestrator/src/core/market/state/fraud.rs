//! Finds what is wrong with a registered block, and what a contract must be shown to see it, too. The block is judged by what
//! everybody can read: its header and steps as they were registered, and its data.

use sha3::{Digest, Keccak256};

use super::{
    ledger_state::{
        LedgerState,
        witness::{ChainDeposit, WrongCell, witness_of},
    },
    record::{RECORD_BYTES, head_cell},
    step::{STEP_RECORDS, Step, StepState},
    tree::list_proof,
};
use crate::core::market::block::{BlockHeader, Hash32};

/// What is wrong with a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fraud {
    /// The first cell of its data is not that of this block.
    Head,
    /// The cells of a step are not those that were registered.
    Data(DataFraud),
    /// A step was executed wrongly.
    Step(Box<StepFraud>),
}

/// A step whose cells are not those that were registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFraud {
    /// Which step, from 0.
    pub step: u32,
    /// As it was registered.
    pub registered: Step,
    /// Its siblings in the tree of the events root.
    pub proof: Vec<Hash32>,
}

/// A step that was executed wrongly, with all that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFraud {
    /// Which step, from 0.
    pub step: u32,
    /// What is wrong: a cell, or only the state after all of them.
    pub wrong: Option<WrongCell>,
    /// The hash of the cells of the step before with its siblings; `None` for the first step.
    pub before: Option<(Hash32, Vec<Hash32>)>,
    /// The state before the step.
    pub state: FullState,
    /// The step's cells.
    pub cells: Vec<u8>,
    /// The step as it was registered.
    pub registered: Step,
    /// Its siblings in the tree of the events root.
    pub proof: Vec<Hash32>,
    /// The leaves that its records touch.
    pub witness: Vec<u8>,
}

/// A step state with the roots that it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullState {
    /// Root of the accounts tree.
    pub accounts: Hash32,
    /// Root of the market tree.
    pub market: Hash32,
    /// What deposits ever credited.
    pub total: u128,
    /// Number of accounts.
    pub next_index: u32,
    /// The rest.
    pub step: StepState,
}

impl std::fmt::Display for Fraud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Head => f.write_str("its data does not begin as the data of this block must"),
            Self::Data(data) => write!(f, "the data of step {} is not what was registered", data.step),
            Self::Step(step) => match step.wrong {
                Some(wrong) => write!(f, "step {}: {wrong}", step.step),
                None => write!(f, "step {} leads to another state than was registered", step.step),
            },
        }
    }
}

impl LedgerState {
    /// The present state with the roots that it is made of.
    pub fn full_state(&mut self) -> FullState {
        FullState {
            accounts: self.accounts_root(),
            market: self.market_root(),
            total: self.total().0,
            next_index: self.next_index(),
            step: self.step_state(),
        }
    }
}

/// Looks for what is wrong with a block whose parent's end state is `state`, and brings the state to the block's end when nothing
/// is. `cells` are the cells of its data, the first one included; `None` stands for one that is too wide to be a cell.
/// `deposit` says what the chain has under an index.
pub fn find_fraud(
    state: &mut LedgerState,
    header: &BlockHeader,
    steps: &[Step],
    cells: &[Option<[u8; RECORD_BYTES]>],
    deposit: &dyn Fn(u64) -> Option<ChainDeposit>,
) -> Option<Fraud> {
    if steps.is_empty() {
        return None;
    }
    if cells.first() != Some(&Some(head_cell(header.number, u64::from(header.records)))) {
        return Some(Fraud::Head);
    }
    let leaves: Vec<Hash32> = steps.iter().map(Step::leaf).collect();
    let proof_of = |at: usize| list_proof(&leaves, at).unwrap_or_default();
    let mut rest = cells.get(1..).unwrap_or_default();
    for (at, (registered, number)) in steps.iter().zip(0_u32..).enumerate() {
        let (own, behind) = rest.split_at(rest.len().min(STEP_RECORDS.min(registered.count as usize)));
        rest = behind;
        let own: Option<Vec<[u8; RECORD_BYTES]>> = own.iter().copied().collect();
        let own =
            own.filter(|own| own.len() == registered.count as usize && hash_of(own) == registered.cells);
        let Some(own) = own else {
            return Some(Fraud::Data(DataFraud {
                step: number,
                registered: *registered,
                proof: proof_of(at),
            }));
        };
        let before = state.full_state();
        let (witness, wrong) = witness_of(state, &own, deposit);
        if wrong.is_none() && at + 1 == steps.len() {
            state.end_block();
        }
        if wrong.is_some() || state.step_state().hash() != registered.state {
            let earlier = at.checked_sub(1).and_then(|at| Some((steps.get(at)?.cells, proof_of(at))));
            return Some(Fraud::Step(Box::new(StepFraud {
                step: number,
                wrong,
                before: earlier,
                state: before,
                cells: own.concat(),
                registered: *registered,
                proof: proof_of(at),
                witness,
            })));
        }
    }
    None
}

fn hash_of(cells: &[[u8; RECORD_BYTES]]) -> Hash32 {
    let mut hasher = Keccak256::new();
    cells.iter().for_each(|cell| hasher.update(cell));
    Hash32(hasher.finalize().into())
}
