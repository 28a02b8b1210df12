//! Payouts by the daemon: many by one transaction, fewer where the gas does not suffice, and without those that can't be paid.

use alloy::{
    hex,
    primitives::{Address as ChainAddress, U256},
    sol_types::SolCall as _,
};
use orchestrator::{
    client::settlement::ethereum::payout,
    core::{
        client::{
            database::{Filter, Reader as _, ReaderExt as _},
            schema,
        },
        market::{
            account::AccountKey,
            block::{Block, BlockState},
            money::Amount,
            payout::{Payout, PayoutState},
        },
    },
    service::{
        ledger::audit::LayerAudit,
        proof::{PayoutService, ProofAt, ProvedAccounts},
        work::{Call, Draft},
    },
};
use serde_json::json;

use super::{
    market::{Daemon, FUNDS, Market},
    world::{OWNER, domain},
};

alloy::sol! {
    function transfer(address to, uint256 amount) external returns (bool);
}

/// Owners that nobody has a key of.
fn owners(count: u8) -> Vec<String> {
    (1..=count).map(|n| format!("{:#x}", ChainAddress::repeat_byte(n))).collect()
}

async fn market(count: u8) -> Option<Market> {
    let owners = owners(count);
    Market::start(&owners.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Turns until something holds.
async fn until(market: &Market, daemon: &Daemon, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..100 {
        if holds().await {
            return;
        }
        daemon.turn().await;
        market.pass().await;
    }
    panic!("not in time: {what}: {:?}", market.payouts().await);
}

/// Everybody releases so much.
async fn release(market: &Market, daemon: &Daemon, amount: u128) {
    let mut asked = vec![false; market.consumers.len()];
    until(market, daemon, "everything is released", async || {
        for (n, asked) in asked.iter_mut().enumerate() {
            *asked = *asked || market.withdraw(daemon, n, amount).await.is_ok();
        }
        asked.iter().all(|asked| *asked)
    })
    .await;
}

/// What a token does with a recipient that it does not like.
enum Dislike {
    /// Reverts without a word.
    Refuses,
    /// Takes more gas first than the contract lets a payment of a batch have.
    Dawdles,
}

/// A token that dislikes two recipients: in front of the code that it has, which goes to another address, comes a look at whom a
/// `transfer` is for.
async fn poison(market: &Market, refused: [ChainAddress; 2], dislike: Dislike) {
    let (token, behind) = (format!("{:#x}", market.world.token), ChainAddress::repeat_byte(0xcc));
    let anvil = &market.world.anvil;
    let code = anvil.ask("eth_getCode", json!([token, "latest"])).await;
    anvil.ask("anvil_setCode", json!([format!("{behind:#x}"), code])).await;
    // The call data to memory; whether it is a `transfer` whose first argument is one of the two.
    let mut front = hex!("36 5f 5f 37  5f 35 60 e0 1c 63 a9059cbb 14  60 04 35 73").to_vec();
    front.extend(refused[0].as_slice());
    front.extend(hex!("14  60 04 35 73"));
    front.extend(refused[1].as_slice());
    // If so, jump to the end.
    front.extend(hex!("14 17 16 60 00 57"));
    let refusal = front.len() - 2;
    // Else what the token did before, with its own storage.
    let before = u8::try_from(front.len()).unwrap();
    front.extend(hex!("5b 5f 5f 36 5f 73"));
    front.extend(behind.as_slice());
    front.extend(hex!("5a f4 3d 5f 5f 3e 60 00 57 3d 5f fd"));
    let success = front.len() - 5;
    front[success] = u8::try_from(front.len()).unwrap();
    front.extend(hex!("5b 3d 5f f3"));
    front[refusal] = u8::try_from(front.len()).unwrap();
    match dislike {
        Dislike::Refuses => front.extend(hex!("5b 5f 5f fd")),
        Dislike::Dawdles => {
            // Counts 15,400 down, 26 gas each, and goes on as before.
            front.extend(hex!("5b 61 3c28 5b 60 01 90 03 80 60"));
            let again = u8::try_from(front.len() - 7).unwrap();
            front.extend([again, 0x57, 0x50, 0x60, before, 0x56]);
        }
    }
    anvil.ask("anvil_setCode", json!([token, format!("0x{}", hex::encode(front))])).await;
}

/// The token is as it was.
async fn mend(market: &Market) {
    let behind = format!("{:#x}", ChainAddress::repeat_byte(0xcc));
    let code = market.world.anvil.ask("eth_getCode", json!([behind, "latest"])).await;
    market.world.anvil.ask("anvil_setCode", json!([format!("{:#x}", market.world.token), code])).await;
}

async fn audit(daemon: &Daemon) -> LayerAudit {
    daemon.accounts.audit(&Call::system("test"), &domain()).await.unwrap().layer.unwrap()
}

fn ended(payouts: &[Payout]) -> bool {
    payouts.iter().all(|it| matches!(it.state, PayoutState::Paid | PayoutState::SetAside { .. }))
}

/// What the API does for a claim.
async fn ask_again(payouts: &PayoutService, daemon: &Daemon, call: &Call, account: AccountKey) {
    let ask = || async {
        let (mut receipt, domain) = daemon.proofs.claim(call, account).await?;
        let changes = payouts.ask(&mut receipt, &domain).await?;
        Ok(Draft::new(changes, receipt))
    };
    let receipt = daemon.work.run(call, "account.claim", ask).await.unwrap().value;
    assert_eq!(receipt.payout.unwrap().state, PayoutState::Waiting);
}

#[tokio::test]
async fn who_cannot_be_paid_is_set_aside_and_the_rest_goes_on() {
    let Some(market) = market(12).await else { return };
    let daemon = market.daemon().await;
    let refused = [3, 8].map(|n: u8| ChainAddress::repeat_byte(n));
    poison(&market, refused, Dislike::Refuses).await;
    release(&market, &daemon, 10).await;
    until(&market, &daemon, "all are paid or set aside", async || ended(&market.payouts().await)).await;
    let payouts = market.payouts().await;
    for (n, payout) in (1..).zip(&payouts) {
        let tokens = market.tokens(&daemon, ChainAddress::repeat_byte(n)).await;
        match &payout.state {
            PayoutState::Paid => assert_eq!((payout.paid.0, tokens), (10, 10)),
            PayoutState::SetAside { reason } => {
                assert!(refused.contains(&ChainAddress::repeat_byte(n)), "{payout:?}");
                assert_eq!((payout.paid.0, tokens), (0, 0));
                assert!(reason.contains("the token refused"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    let aside = |it: &&Payout| matches!(it.state, PayoutState::SetAside { .. });
    assert_eq!(payouts.iter().filter(aside).count(), 2);
    let batches = market.called("withdrawMany").await;
    assert!(batches <= 3, "{batches} transactions for ten");

    // What is late is not what is missing.
    let layer = audit(&daemon).await;
    assert_eq!((layer.lag.0, layer.paid.0, layer.solvent), (20, 100, true));
    assert_eq!((layer.held.0, layer.owed.0), (12 * FUNDS - 100, 12 * FUNDS - 100));

    // Nothing more is sent for them by itself. Anybody may pay one when the token takes it again; the other's owner asks once more.
    let sent = market.world.mined().await;
    daemon.turn().await;
    assert_eq!(market.world.mined().await, sent);
    mend(&market).await;
    let accounts = [3, 8].map(|n| AccountKey::Consumer(market.consumers[n - 1]));
    let proved: ProvedAccounts =
        daemon.proofs.accounts_proof(&Call::system("test"), &accounts[..1], ProofAt::Final).await.unwrap();
    let named: Vec<_> = proved.accounts.iter().map(|it| (it.account, it.owner)).collect();
    let call = payout::call(proved.header.number, &named, &proved.proof).unwrap();
    let contract = format!("{:#x}", market.world.contract);
    market.world.anvil.send(OWNER, Some(&contract), &call).await;
    ask_again(&daemon.payouts, &daemon, &market.call(7, "again"), accounts[1]).await;
    let paid = async || market.payouts().await.iter().all(|it| it.state == PayoutState::Paid);
    until(&market, &daemon, "all are paid", paid).await;
    for owner in refused {
        assert_eq!(market.tokens(&daemon, owner).await, 10);
    }

    // Somebody takes the contract's tokens: that is no lag.
    assert_eq!(audit(&daemon).await.lag.0, 0);
    market.world.anvil.ask("anvil_impersonateAccount", json!([contract])).await;
    market.world.anvil.ask("anvil_setBalance", json!([contract, "0xde0b6b3a7640000"])).await;
    let theft = transferCall { to: OWNER.parse().unwrap(), amount: U256::from(1) };
    market
        .world
        .anvil
        .send(&contract, Some(&format!("{:#x}", market.world.token)), &theft.abi_encode())
        .await;
    let layer = audit(&daemon).await;
    assert_eq!((layer.lag.0, layer.solvent, layer.owed.0 - layer.held.0), (0, false, 1));
}

#[tokio::test]
async fn a_batch_is_halved_while_it_takes_too_much_gas_and_small_sums_wait() {
    let Some(mut market) = market(12).await else { return };
    (market.gas, market.least) = (900_000, Amount(15));
    let daemon = market.daemon().await;
    release(&market, &daemon, 10).await;
    let sealed = async || {
        let blocks = market.world.database.list_all::<Block>(Filter::All).await.unwrap();
        let unsealed = market.world.database.count(schema::UNSEALED, Filter::All).await.unwrap();
        unsealed == 0 && blocks.iter().all(|block| block.value.state == BlockState::Final)
    };
    until(&market, &daemon, "all is final", sealed).await;
    daemon.turn().await;
    let layer = audit(&daemon).await;
    assert_eq!((layer.lag.0, layer.paid.0, market.called("withdrawMany").await), (120, 0, 0), "too little");

    release(&market, &daemon, 11).await;
    until(&market, &daemon, "all are paid", async || {
        market.payouts().await.iter().all(|it| (it.released.0, &it.state) == (21, &PayoutState::Paid))
    })
    .await;
    for n in 1..=12 {
        assert_eq!(market.tokens(&daemon, ChainAddress::repeat_byte(n)).await, 21);
    }
    let batches = market.called("withdrawMany").await;
    assert!((2..12).contains(&batches), "{batches} transactions for twelve");
    let layer = audit(&daemon).await;
    assert_eq!((layer.lag.0, layer.paid.0, layer.solvent), (0, 252, true));
}

#[tokio::test]
async fn who_is_left_out_by_three_transactions_is_set_aside_and_paid_when_asked_for_again() {
    let Some(market) = market(3).await else { return };
    let daemon = market.daemon().await;
    poison(&market, [ChainAddress::repeat_byte(2); 2], Dislike::Dawdles).await;
    release(&market, &daemon, 10).await;
    until(&market, &daemon, "all are paid or set aside", async || ended(&market.payouts().await)).await;
    let payouts = market.payouts().await;
    assert_eq!([&payouts[0].state, &payouts[2].state], [&PayoutState::Paid; 2], "{payouts:?}");
    let PayoutState::SetAside { reason } = &payouts[1].state else { panic!("{payouts:?}") };
    assert!(reason.contains("left it out"), "{reason}");
    // With the others, and twice alone, each time by another transaction.
    assert_eq!((payouts[1].attempts, market.called("withdrawMany").await), (3, 3));

    mend(&market).await;
    let account = AccountKey::Consumer(market.consumers[1]);
    ask_again(&daemon.payouts, &daemon, &market.call(1, "again"), account).await;
    let paid = async || market.payouts().await.iter().all(|it| it.state == PayoutState::Paid);
    until(&market, &daemon, "all are paid", paid).await;
    assert_eq!(market.tokens(&daemon, ChainAddress::repeat_byte(2)).await, 10);
    assert_eq!(market.called("withdrawMany").await, 4);
}
