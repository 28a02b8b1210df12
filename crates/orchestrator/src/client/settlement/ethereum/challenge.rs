//! The calls that show the contract what is wrong with a block.

use alloy::{
    primitives::{B256, Bytes, FixedBytes},
    sol_types::SolCall as _,
};

use super::{
    abi::Settlement,
    blocks::{RegisteredBlock, header_for},
};
use crate::{
    client::da::ethereum::blobs::{BlobError, ELEMENTS, open},
    core::market::{
        block::Hash32,
        state::{
            STEP_RECORDS,
            fraud::{DataFraud, Fraud, StepFraud},
        },
    },
};

/// The elements of a block's blobs, cell by cell: `None` stands for one that is too wide to be a cell. Behind the last record nothing
/// has a meaning.
#[must_use]
pub fn cells(blobs: &[Vec<u8>], records: u32) -> Vec<Option<[u8; 31]>> {
    let elements = blobs.iter().flat_map(|blob| blob.as_chunks::<32>().0);
    let cell = |element: &[u8; 32]| match element.split_first_chunk::<1>() {
        Some(([0], cell)) => <[u8; 31]>::try_from(cell).ok(),
        _ => None,
    };
    elements.take(records as usize + 1).map(cell).collect()
}

/// The call data of the challenge that a fraud calls for.
///
/// # Errors
/// [`BlobError`] when an element can't be opened.
pub fn call(block: &RegisteredBlock, blobs: &[Vec<u8>], fraud: &Fraud) -> Result<Bytes, BlobError> {
    let header = header_for(&block.header).ok_or(BlobError::NoBlock)?;
    let hashes: Vec<B256> = block.blobs.iter().map(word).collect();
    Ok(match fraud {
        Fraud::Head => {
            let opening = open(blobs.first().ok_or(BlobError::NoElement(0))?, 0)?;
            let (commitment, proof) = (opening.commitment.to_vec().into(), opening.proof.to_vec().into());
            let element = B256::from(opening.value);
            Settlement::challengeHeadCall { header, blobs: hashes, element, commitment, proof }.abi_encode()
        }
        Fraud::Data(data) => {
            let (commitments, openings) = openings(blobs, data)?;
            let c = Settlement::DataChallenge {
                header,
                step: data.step,
                cellsHash: word(&data.registered.cells),
                stateAfter: word(&data.registered.state),
                proof: data.proof.iter().map(word).collect(),
                blobs: hashes,
                commitments: commitments.into(),
                openings: openings.into(),
            };
            Settlement::challengeDataCall { c }.abi_encode()
        }
        Fraud::Step(step) => Settlement::challengeStepCall { c: step_challenge(header, step) }.abi_encode(),
    }
    .into())
}

fn word(hash: &Hash32) -> B256 {
    FixedBytes(hash.0)
}

/// The commitments of the one or two blobs that hold the step, and the openings of its cells.
fn openings(blobs: &[Vec<u8>], data: &DataFraud) -> Result<(Vec<u8>, Vec<u8>), BlobError> {
    // Record i lies in cell i + 1.
    let first = data.step as usize * STEP_RECORDS + 1;
    let (mut commitments, mut openings, mut last) = (Vec::new(), Vec::new(), None);
    for cell in first..first + data.registered.count as usize {
        let (at, element) = (cell / ELEMENTS, cell % ELEMENTS);
        let opening = open(blobs.get(at).ok_or(BlobError::NoElement(cell))?, element)?;
        if last.replace(at) != Some(at) {
            commitments.extend_from_slice(&opening.commitment);
        }
        openings.extend(opening.to_bytes());
    }
    Ok((commitments, openings))
}

fn step_challenge(header: Settlement::Header, step: &StepFraud) -> Settlement::StepChallenge {
    let (cells_before, proof_before) = step.before.clone().unwrap_or_default();
    let state = &step.state;
    Settlement::StepChallenge {
        header,
        step: step.step,
        cellsBefore: word(&cells_before),
        proofBefore: proof_before.iter().map(word).collect(),
        state: Settlement::State {
            accounts: word(&state.accounts),
            market: word(&state.market),
            total: state.total,
            nextIndex: state.next_index,
            nextMarket: state.step.next_market,
            lastDeposit: state.step.last_deposit,
            openVerdict: state.step.open_verdict,
            creditable: state.step.creditable,
            creditor: state.step.creditor,
        },
        cells: step.cells.clone().into(),
        stateAfter: word(&step.registered.state),
        proof: step.proof.iter().map(word).collect(),
        witness: step.witness.clone().into(),
    }
}
