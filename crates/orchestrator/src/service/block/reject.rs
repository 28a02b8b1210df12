//! A refused block takes those after it along; what they carried is sealed again. Not built: reversing transfers that
//! are themselves the reason of the refusal. The same refusal coming again stops the sealing and calls a person.

use serde_json::json;

use super::{BlockPorts, RejectedBlock, SealedEntry};
use crate::{
    core::{
        client::{
            database::{Changeset, Expect, Filter, ReaderExt, Stored},
            schema,
        },
        market::{
            account::{Account, AccountKey, Transfer},
            block::{Block, BlockState, Hash32},
            event::Audience,
            money::Amount,
        },
    },
    error::{Error, Result},
    service::{
        ledger::{UnsealedKind, UnsealedMarker},
        outbox,
    },
};

/// The changes that reject a block and its descendants.
pub(super) async fn from(ports: &BlockPorts, first: &Block, reason: &str) -> Result<Changeset> {
    let BlockPorts { store, ids, settings, .. } = ports;
    let domain = &first.header.domain;
    let Stored { version, value: mut tip } = store.tip(domain).await?;
    let mut changes = Changeset::new();
    let mut taken_back = Vec::new();
    for number in first.header.number..=tip.number {
        let found = store.reader().load::<Block>(&Block::id_of(domain, number)).await?;
        let Some(Stored { version, value: mut block }) = found else { continue };
        block.state = BlockState::Rejected;
        block.rejection = Some(if number == first.header.number {
            reason.to_owned()
        } else {
            format!("block {} before it was refused", first.header.number)
        });
        let id = Block::id_of(domain, number);
        changes.delete(schema::BLOCKS, &id, Expect::Version(version));
        let entries = store.reader().list_all::<SealedEntry>(Filter::eq("block", id.as_str())).await?;
        for Stored { version, value } in entries {
            changes.delete(schema::SEALED_ENTRIES, &value.id, Expect::Version(version));
            if value.kind == UnsealedKind::Transfer {
                taken_back.push(value.id.clone());
            }
            changes.insert(&UnsealedMarker { id: value.id, domain: value.domain, kind: value.kind });
        }
        let data = json!({ "hash": block.hash, "reason": block.rejection });
        outbox::event(&mut changes, ids, "block.rejected", id, Audience::Public, data);
        changes.insert(&RejectedBlock(block));
    }
    unmaterialise(ports, &mut changes, first, &taken_back).await?;
    tip.number = first.header.number - 1;
    tip.hash = if tip.number == 0 { Hash32::default() } else { first.header.parent };
    tip.round += 1;
    tip.rejections += 1;
    if tip.rejections >= settings.max_rejections {
        tip.halted = Some(reason.to_owned());
    }
    let title = format!("block {} of `{domain}` was refused", first.header.number);
    let halted = tip.halted.is_some();
    outbox::alert(&mut changes, ids, title, json!({ "reason": reason, "sealing_stopped": halted }));
    changes.replace(version, &tip);
    Ok(changes)
}

/// Takes what the rejected blocks carried out of the stored balances of the summed accounts again.
async fn unmaterialise(
    ports: &BlockPorts,
    changes: &mut Changeset,
    first: &Block,
    transfers: &[String],
) -> Result<()> {
    let reader = ports.store.reader();
    let mut sums = [(AccountKey::Fees, 0_u128, 0_u64), (AccountKey::External, 0, 0)];
    for chunk in transfers.chunks(500) {
        for transfer in reader.list_all::<Transfer>(Filter::Ids(chunk.to_vec())).await? {
            let transfer = transfer.value;
            for (key, amount, count) in &mut sums {
                if transfer.credit == *key || transfer.debit == *key {
                    *amount = amount.saturating_add(transfer.amount.0);
                    *count += 1;
                }
            }
        }
    }
    for (key, amount, count) in sums.into_iter().filter(|sum| sum.2 > 0) {
        let id = Account::id_of(&first.header.domain, &key);
        let found = reader.load::<Account>(&id).await?;
        let Stored { version, value: mut account } = found.ok_or_else(|| Error::not_found("account", &id))?;
        account.balance = account.balance.saturating_sub(Amount(amount));
        account.sequence = account.sequence.saturating_sub(count);
        changes.replace(version, &account);
    }
    Ok(())
}
