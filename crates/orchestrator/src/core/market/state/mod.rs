//! The committed state of a settlement domain: event records, the two index trees, the one transition function, headers
//! and proofs. Sealer, prover, settlement layer and verifier all use what is here and nothing else.
//!
//! Hashes are keccak-256 with a domain-separation byte in front, so that no leaf can be passed off as a node.

pub mod commitment;
pub mod fraud;
pub mod hash;
pub mod header;
pub mod ledger_state;
pub mod proof;
pub mod record;
pub mod step;
pub mod tree;

pub use hash::{ShortHash, account_key_hash, keccak, market_key_hash, owned_key_hash};
pub use header::{evidence_root, header_hash, state_root};
pub use ledger_state::{ApplyError, LedgerState};
pub use proof::{AccountProof, AccountsProof, MarketProof, verify_account, verify_accounts, verify_market};
pub use record::{Record, decode_records, encode_records};
pub use step::{STEP_RECORDS, Step, StepState, execute, registered_steps, step_sizes, steps_root};
pub use tree::IndexTree;

#[cfg(test)]
mod tests;
