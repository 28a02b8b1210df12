//! Blobs: the published bytes of a block as elements of blobs, and back; commitments, cell proofs and openings.
//!
//! The bytes are cells of 31 bytes, the first of which says how many follow. Cell `c` is element `c % 4096` of blob
//! `c / 4096`, and an element is a zero byte and its cell. At most six blobs go with one transaction: they are a *part* of the
//! block. Nothing here knows a network; everything is a function of its input.

use alloy::{
    eips::{
        eip4844::{BYTES_PER_BLOB, Blob, c_kzg, kzg_to_versioned_hash},
        eip7594::BlobTransactionSidecarEip7594,
    },
    primitives::{B256, keccak256},
};
use ruint::aliases::U256;

use crate::core::market::{
    block::Hash32,
    state::record::{RECORD_BYTES, encode_records},
};

/// Elements in a blob.
pub const ELEMENTS: usize = 4096;
/// Blobs in one transaction, at most.
pub const PART_BLOBS: usize = 6;
/// Proofs of cells that belong to a blob.
const CELL_PROOFS: usize = 128;
/// Bytes of an element.
const ELEMENT_BYTES: usize = 32;

/// Why bytes are no block, or blobs are none.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The bytes are not cells, or not as many as the first one says.
    #[error("the data is no block: it is not made of cells, or not of as many as its first cell says")]
    NoBlock,
    /// An element has a byte in front of its cell.
    #[error("element {0} of the blobs is no cell")]
    NoCell(usize),
    /// There is no such element.
    #[error("a blob has no element {0}")]
    NoElement(usize),
    /// The library for commitments failed.
    #[error("the commitment can't be computed: {0}")]
    Kzg(String),
}

impl From<c_kzg::Error> for BlobError {
    fn from(error: c_kzg::Error) -> Self {
        Self::Kzg(format!("{error:?}"))
    }
}

/// The trusted set-up, without the tables that would make proofs somewhat faster: they take a hundred megabytes, and seconds to
/// make, and a daemon has a few blobs a minute.
fn settings() -> &'static c_kzg::KzgSettings {
    c_kzg::ethereum_kzg_settings(0)
}

/// How many records the first cell of block `number` announces.
fn announced(number: u64, data: &[u8]) -> Option<usize> {
    let first = data.get(..RECORD_BYTES)?;
    let count: [u8; 8] = first.get(10..18)?.try_into().ok()?;
    // What the first cell of an empty block has before the count, and zeros behind it.
    let head = encode_records(number, &[]);
    let agrees = first.get(..10) == head.get(..10) && first.get(18..) == head.get(18..);
    agrees.then(|| usize::try_from(u64::from_be_bytes(count)).ok()).flatten()
}

/// The blobs of a block; none when it has no records.
///
/// # Errors
/// [`BlobError::NoBlock`] for bytes that are not what a block publishes.
pub fn encode(number: u64, data: &[u8]) -> Result<Vec<Blob>, BlobError> {
    let records = announced(number, data).ok_or(BlobError::NoBlock)?;
    if records.checked_add(1).and_then(|cells| cells.checked_mul(RECORD_BYTES)) != Some(data.len()) {
        return Err(BlobError::NoBlock);
    }
    if records == 0 {
        return Ok(Vec::new());
    }
    Ok(data.chunks(ELEMENTS * RECORD_BYTES).map(blob_of).collect())
}

fn blob_of(cells: &[u8]) -> Blob {
    let mut bytes = vec![0_u8; BYTES_PER_BLOB];
    for (element, cell) in bytes.chunks_exact_mut(ELEMENT_BYTES).zip(cells.chunks(RECORD_BYTES)) {
        if let Some(place) = element.get_mut(1..=cell.len()) {
            place.copy_from_slice(cell);
        }
    }
    Blob::from_slice(&bytes)
}

/// The bytes of block `number`, out of its blobs in their order. Without blobs it is the block without records. What stands
/// behind the last record has no meaning.
///
/// # Errors
/// [`BlobError`] when they hold no such block.
pub fn decode(number: u64, blobs: &[&[u8]]) -> Result<Vec<u8>, BlobError> {
    if blobs.is_empty() {
        return Ok(encode_records(number, &[]));
    }
    let elements = || blobs.iter().flat_map(|blob| blob.chunks_exact(ELEMENT_BYTES)).enumerate();
    let cell = |(at, element): (usize, &[u8])| match element.split_first() {
        Some((0, cell)) => Ok(cell.to_vec()),
        _ => Err(BlobError::NoCell(at)),
    };
    let first = elements().next().ok_or(BlobError::NoBlock).and_then(cell)?;
    let records = announced(number, &first).ok_or(BlobError::NoBlock)?;
    if records == 0 || records / ELEMENTS + 1 != blobs.len() {
        return Err(BlobError::NoBlock);
    }
    let mut data = Vec::with_capacity((records + 1) * RECORD_BYTES);
    for element in elements().take(records + 1) {
        data.extend_from_slice(&cell(element)?);
    }
    Ok(data)
}

/// What travels with a transaction that carries these blobs: in the form with cell proofs, which is the only one that the network
/// takes since Osaka. Some nodes for tests take others; so it is checked here.
///
/// # Errors
/// [`BlobError::Kzg`].
pub fn sidecar(blobs: Vec<Blob>) -> Result<BlobTransactionSidecarEip7594, BlobError> {
    let count = blobs.len();
    let sidecar = BlobTransactionSidecarEip7594::try_from_blobs_with_settings(blobs, settings())?;
    if sidecar.commitments.len() == count && sidecar.cell_proofs.len() == count * CELL_PROOFS {
        Ok(sidecar)
    } else {
        Err(BlobError::Kzg("the sidecar has another form than that of EIP-7594".to_owned()))
    }
}

/// The versioned hashes of blobs, in their order.
///
/// # Errors
/// [`BlobError::Kzg`].
pub fn versioned_hashes(blobs: &[Blob]) -> Result<Vec<Hash32>, BlobError> {
    blobs.iter().map(|blob| versioned_hash(blob.as_slice())).collect()
}

/// The versioned hash of one blob: whoever got it from somewhere compares it with the one that he asked for.
///
/// # Errors
/// [`BlobError::Kzg`] when an element is no element of the field.
pub fn versioned_hash(blob: &[u8]) -> Result<Hash32, BlobError> {
    let commitment = settings().blob_to_kzg_commitment(&c_kzg::Blob::from_bytes(blob)?)?;
    Ok(Hash32(kzg_to_versioned_hash(commitment.to_bytes().as_ref()).0))
}

/// Keccak-256 over versioned hashes, one after the other: how the contract keeps the blobs of a block.
#[must_use]
pub fn blobs_root(hashes: &[Hash32]) -> Hash32 {
    Hash32(keccak256(hashes.iter().flat_map(|hash| hash.0).collect::<Vec<_>>()).0)
}

/// An element of a blob with the proof that it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The blob's commitment.
    pub commitment: [u8; 48],
    /// The element.
    pub value: [u8; 32],
    /// The proof.
    pub proof: [u8; 48],
}

impl Opening {
    /// As `challengeData` takes it: the element, then its proof.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.value[..], &self.proof[..]].concat()
    }
}

/// Opens element `element` of a blob.
///
/// # Errors
/// [`BlobError`].
pub fn open(blob: &[u8], element: usize) -> Result<Opening, BlobError> {
    let blob = c_kzg::Blob::from_bytes(blob)?;
    let point = c_kzg::Bytes32::new(point(element)?);
    let (proof, value) = settings().compute_kzg_proof(&blob, &point)?;
    let commitment = settings().blob_to_kzg_commitment(&blob)?;
    Ok(Opening {
        commitment: commitment.to_bytes().into_inner(),
        value: *value,
        proof: proof.to_bytes().into_inner(),
    })
}

/// Where the polynomial of a blob has the value of an element: `ω ^ bitreverse12(element)`.
///
/// # Errors
/// [`BlobError::NoElement`].
pub fn point(element: usize) -> Result<[u8; 32], BlobError> {
    let small = u16::try_from(element).ok().filter(|_| element < ELEMENTS);
    let small = small.ok_or(BlobError::NoElement(element))?;
    let reversed = small.reverse_bits() >> 4;
    // The order of the field's multiplicative group is `modulus − 1`; ω generates its subgroup of 4096 elements.
    let modulus = U256::from_be_bytes(MODULUS);
    let exponent = (modulus - U256::from(1)) / U256::from(ELEMENTS);
    let omega = U256::from(7).pow_mod(exponent, modulus);
    Ok(omega.pow_mod(U256::from(reversed), modulus).to_be_bytes())
}

/// The order of the field that elements are of.
const MODULUS: [u8; 32] = [
    0x73, 0xed, 0xa7, 0x53, 0x29, 0x9d, 0x7d, 0x48, 0x33, 0x39, 0xd8, 0x08, 0x09, 0xa1, 0xd8, 0x05, 0x53,
    0xbd, 0xa4, 0x02, 0xff, 0xfe, 0x5b, 0xfe, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01,
];

/// The hash in the chain's own type.
#[must_use]
pub fn to_chain(hash: Hash32) -> B256 {
    B256::from(hash.0)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::core::market::state::Record;

    fn vectors(name: &str) -> Value {
        let path = format!("{}/../../contracts/ethereum/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn slices(blobs: &[Blob]) -> Vec<&[u8]> {
        blobs.iter().map(|blob| blob.as_slice()).collect()
    }

    fn records(count: u32) -> Vec<Record> {
        let record = |i| Record::Transfer { kind: 5, from: i, to: i + 1, amount: u128::from(i) };
        (0..count).map(record).collect()
    }

    #[test]
    fn blocks_of_all_sizes_round_trip() {
        for (count, blobs) in [(0, 0), (1, 1), (4095, 1), (4096, 2), (4097, 2), (8191, 2), (8192, 3)] {
            let data = encode_records(9, &records(count));
            let encoded = encode(9, &data).unwrap();
            assert_eq!(encoded.len(), blobs, "{count}");
            assert_eq!(decode(9, &slices(&encoded)).unwrap(), data);
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let data = encode_records(9, &records(3));
        assert!(encode(8, &data).is_err());
        assert!(encode(9, &data[..data.len() - 1]).is_err());
        assert!(encode(9, &[&data[..], &[0; RECORD_BYTES]].concat()).is_err());
        assert!(encode(9, b"records").is_err() && encode(9, b"").is_err());
        let mut blobs = encode(9, &data).unwrap();
        assert!(decode(8, &slices(&blobs)).is_err());
        blobs[0][ELEMENT_BYTES] = 1;
        assert!(matches!(decode(9, &slices(&blobs)), Err(BlobError::NoCell(1))));
        assert!(matches!(point(ELEMENTS), Err(BlobError::NoElement(_))));
    }

    #[test]
    fn points_are_those_of_the_contract() {
        for row in vectors("blobs.json")["points"].as_array().unwrap() {
            let element = usize::try_from(row["element"].as_u64().unwrap()).unwrap();
            assert_eq!(format!("0x{}", hex::encode(point(element).unwrap())), row["point"]);
        }
    }

    /// The first block of the vectors: its cells in a blob give the commitment, the hash and every opening.
    #[test]
    fn openings_are_those_of_the_contract() {
        let format = vectors("format.json");
        let cells = format["blocks"][0]["cells"].as_array().unwrap();
        let data: Vec<u8> = cells
            .iter()
            .flat_map(|cell| hex::decode(cell.as_str().unwrap().trim_start_matches("0x")).unwrap())
            .collect();
        let blobs = encode(1, &data).unwrap();
        let right = &vectors("blobs.json")["right"];
        let hash = versioned_hash(blobs[0].as_slice()).unwrap();
        assert_eq!(right["versionedHash"], hash.to_string());
        for element in [0, 1, 14] {
            let opening = open(blobs[0].as_slice(), element).unwrap();
            assert_eq!(right["openings"][element], format!("0x{}", hex::encode(opening.to_bytes())));
            assert_eq!(right["commitment"], format!("0x{}", hex::encode(opening.commitment)));
        }
        let sidecar = sidecar(blobs).unwrap();
        assert_eq!(sidecar.versioned_hashes().collect::<Vec<_>>(), [to_chain(hash)]);
        sidecar.validate(&[to_chain(hash)], settings()).unwrap();
    }
}
