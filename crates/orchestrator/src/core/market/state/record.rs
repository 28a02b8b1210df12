//! Event records: what a block does, in cells of exactly 31 bytes, so that each fits one field element of a blob.
//! Numbers are big-endian; unused bytes are zero and must be.

use super::hash::{ShortHash, Tag, keccak_each, message};
use crate::core::market::{block::Hash32, verdict::VerdictStatus};

/// Bytes in a record.
pub const RECORD_BYTES: usize = 31;
/// Version of the encoding.
pub const ENCODING: u8 = 1;

/// One step of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A new account takes the next index.
    OpenAccount {
        /// Hash of its domain and name.
        key: ShortHash,
    },
    /// Money moves between two accounts, or inside one when it is released for withdrawal (`from == to`).
    Transfer {
        /// What it is for: the number of the `TransferKind`.
        kind: u8,
        /// Index of the debited account.
        from: u32,
        /// Index of the credited account.
        to: u32,
        /// How much.
        amount: u128,
    },
    /// A deposit is credited: indexes follow one another without a gap.
    Deposit {
        /// The chain's index.
        index: u64,
        /// Index of the credited account.
        to: u32,
        /// How much.
        amount: u128,
    },
    /// Something new takes the next index of the market tree.
    MarketOpen {
        /// Hash of its domain and name.
        key: ShortHash,
    },
    /// Something in the market tree has a new content.
    MarketSet {
        /// Its index.
        index: u32,
        /// Hash of its canonical encoding, cut.
        digest: [u8; 26],
    },
    /// A verdict; its evidence follows at once.
    Verdict {
        /// Hash of the judged subject and period, cut.
        subject: [u8; 16],
        /// The outcome.
        status: VerdictStatus,
        /// Share of the payment that is credited, in ppm.
        credit: u32,
        /// Known buckets over all, in ppm.
        coverage: u32,
    },
    /// The evidence of the verdict just before.
    VerdictEvidence {
        /// Root over it, cut.
        root: ShortHash,
    },
}

/// Why bytes are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The length is no multiple of a record, or not the one that the first cell says.
    #[error("the data is cut off or too long")]
    Length,
    /// The first cell is not one that this version reads.
    #[error("the data has another version, or is of another block")]
    Header,
    /// A cell is no record.
    #[error("cell {0} is no record")]
    Cell(usize),
}

/// Writes fields one after the other into a cell.
struct Cell([u8; RECORD_BYTES], usize);

impl Cell {
    const fn new(tag: u8) -> Self {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0] = tag;
        Self(bytes, 1)
    }

    fn put(mut self, field: &[u8]) -> Self {
        let end = self.1 + field.len();
        if let Some(slot) = self.0.get_mut(self.1..end) {
            slot.copy_from_slice(field);
        }
        self.1 = end;
        self
    }
}

/// Reads fields one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    /// The value, if nothing but zeros is left.
    fn end<T>(&self, value: T) -> Option<T> {
        self.0.iter().all(|byte| *byte == 0).then_some(value)
    }
}

const fn status_number(status: VerdictStatus) -> u8 {
    match status {
        VerdictStatus::Met => 1,
        VerdictStatus::Breached => 2,
        VerdictStatus::Unknown => 3,
    }
}

impl Record {
    /// The cell.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        match self {
            Self::OpenAccount { key } => Cell::new(1).put(key),
            Self::Transfer { kind, from, to, amount } => Cell::new(2)
                .put(&[*kind])
                .put(&from.to_be_bytes())
                .put(&to.to_be_bytes())
                .put(&amount.to_be_bytes()),
            Self::Deposit { index, to, amount } => {
                Cell::new(3).put(&index.to_be_bytes()).put(&to.to_be_bytes()).put(&amount.to_be_bytes())
            }
            Self::MarketOpen { key } => Cell::new(4).put(key),
            Self::MarketSet { index, digest } => Cell::new(5).put(&index.to_be_bytes()).put(digest),
            Self::Verdict { subject, status, credit, coverage } => Cell::new(6)
                .put(subject)
                .put(&[status_number(*status)])
                .put(&credit.to_be_bytes())
                .put(&coverage.to_be_bytes()),
            Self::VerdictEvidence { root } => Cell::new(7).put(root),
        }
        .0
    }

    /// The record in a cell; `None` when it is none.
    #[must_use]
    pub fn decode(cell: &[u8; RECORD_BYTES]) -> Option<Self> {
        let (tag, rest) = cell.split_first()?;
        let mut fields = Fields(rest);
        let record = match tag {
            1 => Self::OpenAccount { key: fields.take()? },
            2 => Self::Transfer {
                kind: fields.take::<1>()?[0],
                from: u32::from_be_bytes(fields.take()?),
                to: u32::from_be_bytes(fields.take()?),
                amount: u128::from_be_bytes(fields.take()?),
            },
            3 => Self::Deposit {
                index: u64::from_be_bytes(fields.take()?),
                to: u32::from_be_bytes(fields.take()?),
                amount: u128::from_be_bytes(fields.take()?),
            },
            4 => Self::MarketOpen { key: fields.take()? },
            5 => Self::MarketSet { index: u32::from_be_bytes(fields.take()?), digest: fields.take()? },
            6 => Self::Verdict {
                subject: fields.take()?,
                status: match fields.take::<1>()?[0] {
                    1 => VerdictStatus::Met,
                    2 => VerdictStatus::Breached,
                    3 => VerdictStatus::Unknown,
                    _ => return None,
                },
                credit: u32::from_be_bytes(fields.take()?),
                coverage: u32::from_be_bytes(fields.take()?),
            },
            7 => Self::VerdictEvidence { root: fields.take()? },
            _ => return None,
        };
        fields.end(record)
    }
}

/// What a leaf is the hash of.
#[must_use]
pub fn record_message(record: &Record) -> [u8; 1 + RECORD_BYTES] {
    message(Tag::Record, &[&record.encode()])
}

/// Root over the ordered records.
#[must_use]
pub fn events_root(records: &[Record]) -> Hash32 {
    super::tree::list_root(keccak_each(records, record_message))
}

/// The first cell of what is published for a block: version, number, count.
#[must_use]
pub fn head_cell(number: u64, records: u64) -> [u8; RECORD_BYTES] {
    Cell::new(0).put(&[ENCODING]).put(&number.to_be_bytes()).put(&records.to_be_bytes()).0
}

/// What is published for a block: a first cell with version, number and count, then the records.
#[must_use]
pub fn encode_records(number: u64, records: &[Record]) -> Vec<u8> {
    let mut data = Vec::with_capacity((records.len() + 1) * RECORD_BYTES);
    data.extend_from_slice(&head_cell(number, records.len() as u64));
    for record in records {
        data.extend_from_slice(&record.encode());
    }
    data
}

/// Reads back what [`encode_records`] wrote for block `number`.
///
/// # Errors
/// [`RecordError`]: every byte counts.
pub fn decode_records(number: u64, data: &[u8]) -> Result<Vec<Record>, RecordError> {
    let (cells, rest) = data.as_chunks::<RECORD_BYTES>();
    let (first, cells) = cells.split_first().ok_or(RecordError::Length)?;
    if !rest.is_empty() {
        return Err(RecordError::Length);
    }
    let expected = Cell::new(0).put(&[ENCODING]).put(&number.to_be_bytes());
    if first.get(..10) != expected.0.get(..10) {
        return Err(RecordError::Header);
    }
    if first.as_slice() != expected.put(&(cells.len() as u64).to_be_bytes()).0 {
        return Err(RecordError::Length);
    }
    cells.iter().enumerate().map(|(i, cell)| Record::decode(cell).ok_or(RecordError::Cell(i))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let status = prop_oneof![
            Just(VerdictStatus::Met),
            Just(VerdictStatus::Breached),
            Just(VerdictStatus::Unknown)
        ];
        prop_oneof![
            prop::array::uniform30(any::<u8>()).prop_map(|key| Record::OpenAccount { key }),
            prop::array::uniform30(any::<u8>()).prop_map(|key| Record::MarketOpen { key }),
            prop::array::uniform30(any::<u8>()).prop_map(|root| Record::VerdictEvidence { root }),
            (any::<u8>(), any::<u32>(), any::<u32>(), any::<u128>())
                .prop_map(|(kind, from, to, amount)| Record::Transfer { kind, from, to, amount }),
            (any::<u64>(), any::<u32>(), any::<u128>()).prop_map(|(index, to, amount)| Record::Deposit {
                index,
                to,
                amount
            }),
            (any::<u32>(), prop::array::uniform26(any::<u8>()))
                .prop_map(|(index, digest)| Record::MarketSet { index, digest }),
            (prop::array::uniform16(any::<u8>()), status, any::<u32>(), any::<u32>()).prop_map(
                |(subject, status, credit, coverage)| Record::Verdict { subject, status, credit, coverage }
            ),
        ]
    }

    #[test]
    fn golden_cells() {
        let transfer = Record::Transfer { kind: 5, from: 1, to: 0x0102_0304, amount: 1_000 };
        assert_eq!(
            hex::encode(transfer.encode()),
            "02050000000101020304000000000000000000000000000003e80000000000"
        );
        let deposit = Record::Deposit { index: 7, to: 9, amount: u128::MAX };
        assert_eq!(
            hex::encode(deposit.encode()),
            "03000000000000000700000009ffffffffffffffffffffffffffffffff0000"
        );
        let verdict = Record::Verdict {
            subject: [0xab; 16],
            status: VerdictStatus::Breached,
            credit: 100_000,
            coverage: 1_000_000,
        };
        assert_eq!(
            hex::encode(verdict.encode()),
            "06abababababababababababababababab02000186a0000f42400000000000"
        );
    }

    proptest! {
        #[test]
        fn records_round_trip_and_every_byte_counts(
            records in prop::collection::vec(any_record(), 0..20), number in any::<u64>(), at in any::<usize>(),
            flip in 1_u8..,
        ) {
            let data = encode_records(number, &records);
            let read = decode_records(number, &data);
            prop_assert_eq!(read.as_ref(), Ok(&records));
            prop_assert_eq!(decode_records(number ^ 1, &data), Err(RecordError::Header));
            let mut damaged = data.clone();
            let at = at % damaged.len();
            damaged[at] ^= flip;
            if let Ok(other) = decode_records(number, &damaged) {
                prop_assert_ne!(events_root(&other), events_root(&records));
            }
            prop_assert!(decode_records(number, &data[..data.len() - 1]).is_err());
        }
    }
}
