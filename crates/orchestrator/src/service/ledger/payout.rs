//! Asks for what an account released to be paid out, on layers where the daemon does it.

use crate::{
    core::{
        client::database::{Changeset, ReaderExt},
        market::{
            account::{Account, AccountKey},
            money::Amount,
            payout::{Payout, PayoutState},
            terms::DomainId,
        },
    },
    error::Result,
    service::work::Work,
};

/// Adds to a changeset that all that an account has released is to be paid; answers how far that is.
///
/// # Errors
/// Database errors.
pub async fn ask(
    work: &Work,
    changes: &mut Changeset,
    domain: &DomainId,
    account: AccountKey,
    released: Amount,
) -> Result<Payout> {
    let found = work.reader.load::<Payout>(&Account::id_of(domain, &account)).await?;
    let now = work.now();
    let (version, mut payout) = found.map_or_else(
        || {
            let none = Payout {
                domain: domain.clone(),
                account,
                released: Amount::ZERO,
                paid: Amount::ZERO,
                state: PayoutState::Paid,
                attempts: 0,
                changed_at: now,
            };
            (0, none)
        },
        |stored| (stored.version, stored.value),
    );
    payout.ask(released, now);
    match version {
        0 => changes.insert(&payout),
        version => changes.replace(version, &payout),
    };
    Ok(payout)
}
