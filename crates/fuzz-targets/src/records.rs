//! State diffs: the event records that a block publishes, and what they do to the committed state.

use orchestrator::core::market::{
    state::{
        LedgerState, Record, decode_records, encode_records,
        record::{RECORD_BYTES, events_root},
    },
    terms::DomainId,
};

/// Every byte counts; what is applied keeps the books balanced, what is refused changes nothing, and what is taken back was
/// never there.
///
/// The input is the block's number in eight bytes, and its data. The same bytes are also taken for bare cells, so that the
/// rules are reached without a right head.
pub fn records(data: &[u8]) {
    let Some((number, rest)) = data.split_first_chunk::<8>() else { return };
    let number = u64::from_be_bytes(*number);
    if let Ok(read) = decode_records(number, rest) {
        assert_eq!(encode_records(number, &read), rest);
        assert_eq!(events_root(&decode_records(number, rest).unwrap()), events_root(&read));
        assert!(decode_records(number.wrapping_add(1), rest).is_err());
        execute(&read);
    }
    let cells = rest.as_chunks::<RECORD_BYTES>().0;
    let bare: Vec<Record> = cells.iter().filter_map(Record::decode).collect();
    for record in &bare {
        assert_eq!(Record::decode(&record.encode()).as_ref(), Some(record));
    }
    execute(&bare);
}

fn execute(records: &[Record]) {
    let mut state = LedgerState::new(DomainId::local());
    let (empty, begin) = (state.root(), state.mark());
    let (mut applied, mut total) = (Vec::new(), state.total());
    for (at, record) in records.iter().enumerate() {
        // Hashing dominates: the root of a refusal is looked at now and then.
        let before = at.is_multiple_of(8).then(|| state.root());
        match state.apply(record) {
            Ok(()) => applied.push(*record),
            Err(_) => {
                if let Some(before) = before {
                    assert_eq!(state.root(), before, "{record:?} was refused and changed something");
                }
            }
        }
        assert!(state.is_balanced(), "{record:?}");
        assert!(state.total() >= total);
        total = state.total();
    }
    let root = state.root();
    state.rollback(begin);
    assert_eq!(state.root(), empty, "a rollback left something");
    assert!(state.is_complete() && state.next_index() == 0 && state.last_deposit() == 0);
    for record in &applied {
        assert_eq!(state.apply(record), Ok(()), "{record:?} was applied before");
    }
    assert_eq!(state.root(), root);
}
