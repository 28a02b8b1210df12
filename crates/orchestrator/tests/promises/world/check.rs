//! What must hold of a market, at every moment and in the end.

use super::*;

impl Store {
    /// What must hold at every moment: capacity was never oversold, the counters of the units agree with the allocations,
    /// and the money of all accounts is what deposits brought in.
    pub async fn check(&self) {
        let allocations = self.allocations().await;
        for unit in &self.units {
            let unit = self.db.load::<DataUnit>(&unit.to_string()).await.unwrap().unwrap().value;
            let mine = || allocations.iter().filter(|a| a.unit == unit.id && !a.state.is_terminal());
            let held: i64 = mine().map(|a| a.bytes.signed()).sum();
            assert!(unit.free >= 0, "oversold");
            assert_eq!(unit.free, unit.capacity.signed() - held, "free capacity of a unit");
            assert_eq!(unit.live, i64::try_from(mine().count()).unwrap());
            assert_eq!(unit.active, i64::try_from(mine().filter(|a| a.state.is_in_use()).count()).unwrap());
        }
        let mut sums: BTreeMap<AccountKey, (u128, u128)> = BTreeMap::new();
        let mut released = 0;
        for transfer in self.transfers().await {
            if transfer.kind != TransferKind::Deposit {
                sums.entry(transfer.debit).or_default().1 += transfer.amount.0;
            }
            // What is released for withdrawal leaves the balance, not the account.
            if transfer.kind == TransferKind::Withdraw {
                released += transfer.amount.0;
            } else {
                sums.entry(transfer.credit).or_default().0 += transfer.amount.0;
            }
        }
        for (key, (came, went)) in &sums {
            assert!(came >= went, "{key} was overdrawn");
            if !key.is_summed() {
                assert_eq!(
                    self.balance(*key).await,
                    came - went,
                    "{key}: the balance is not the sum of transfers"
                );
            }
        }
        let deposits = FUNDS * (self.consumers.len() as u128 + 1);
        assert_eq!(sums.values().map(|(came, went)| came - went).sum::<u128>() + released, deposits);
    }

    /// What must hold when all is over: nothing is held any more, by anybody.
    pub async fn check_the_end(&self) {
        self.check().await;
        for allocation in self.allocations().await {
            assert!(allocation.state.is_terminal(), "{}: {:?}", allocation.id, allocation.state);
            assert_eq!(self.balance(AccountKey::Escrow(allocation.id)).await, 0);
            assert_eq!(self.provider.level(allocation.id), None, "still there at the provider");
            assert!(self.provider.keys(allocation.id).is_empty());
        }
        for job in self.db.list_all::<Job>(Filter::All).await.unwrap() {
            assert!(job.value.state.is_terminal(), "{:?}", job.value);
        }
        assert_eq!(self.db.count(schema::UNSEALED, Filter::All).await.unwrap(), 0, "all is sealed");
        let work = self.node().work;
        let evidence = SlaService::new(work, self.storage.clone(), sla_settings());
        let report = verify_with_evidence(&self.settlement, &self.da, Some(&evidence)).await.unwrap();
        assert!(report.holds(), "{:#?}", report.all_problems().collect::<Vec<_>>());
        assert!(report.is_final);
        // Every credit that was posted follows from a verdict, whatever happened on the way.
        let credits = report.credits.unwrap();
        assert_eq!(credits.open, 0);
        assert_eq!(credits.verdicts, self.db.count(schema::VERDICTS, Filter::All).await.unwrap());
        let posted = self.transfers().await.into_iter().filter(|it| {
            matches!(it.kind, TransferKind::Credit | TransferKind::Slash | TransferKind::Penalty)
        });
        assert_eq!(credits.credits, posted.count() as u64);
    }
}
