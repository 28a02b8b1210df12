//! One thing is made wrong at a time, on the chain or in the evidence; each is found, and the block is named.

use serde_json::json;

use super::*;

const DOMAIN: &str = "made-up";

/// A chain with every kind of credit: 10 %, all of it with a slash, a penalty behind the third breach in a row; then a period
/// that is met, and blocks in which nothing is late any more.
fn scene() -> Scene {
    let mut scene = Scene::new(BlockFormat::Steps, Some(Address([7; 20])));
    let deal = scene.deal(1, 1, 500);
    for like in [MET, TENTH, ALL, UNKNOWN, ALL, MET] {
        scene.cut();
        scene.period(deal, like, false);
    }
    for _ in 0..2 {
        scene.cut();
    }
    scene
}

type Blocks = Vec<Vec<Record>>;

/// Checks the scene after something was changed in it.
async fn with(change: impl FnOnce(&mut Blocks, &mut Bundles)) -> CreditReport {
    let Scene { mut blocks, mut bundles, .. } = scene();
    change(&mut blocks, &mut bundles);
    check(&DomainId(DOMAIN.into()), BlockFormat::Steps, &blocks, &bundles).await
}

#[track_caller]
fn says(report: &CreditReport, block: u64, words: &str) {
    let found =
        report.problems.iter().any(|it| it.starts_with(&format!("block {block}: ")) && it.contains(words));
    assert!(found, "no `{words}` for block {block} in {:#?}", report.problems);
}

/// The places of a kind of transfer, as block (from 0) and record.
fn places(blocks: &Blocks, wanted: u8) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (block, records) in blocks.iter().enumerate() {
        for (at, record) in records.iter().enumerate() {
            if matches!(record, Record::Transfer { kind, .. } if *kind == wanted) {
                found.push((block, at));
            }
        }
    }
    found
}

fn amount(record: &mut Record) -> &mut u128 {
    match record {
        Record::Transfer { amount, .. } => amount,
        other => panic!("{other:?}"),
    }
}

fn bundle_of(bundles: &mut Bundles, number: u32) -> &mut Bundle {
    let of = |bundle: &&mut Bundle| bundle.period_key.ends_with(&format!("/{number}"));
    bundles.values_mut().find(of).unwrap()
}

#[tokio::test]
async fn nothing_is_wrong_with_the_scene() {
    let report = with(|_, _| {}).await;
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.verdicts, report.payments, report.credits, report.open), (6, 6, 6, 0));
    // 100, twice 980 and 20 out of the collateral, and a quarter of the rest of it.
    assert_eq!(report.credited, Amount(100 + 2 * 1_000 + (500 - 40) / 4));
}

#[tokio::test]
async fn an_amount_that_is_off_by_one() {
    for (kind, words) in [(7_u8, "the credit of period"), (8, "the slash of period"), (14, "penalty")] {
        for by in [-1_i128, 1] {
            let mut block = 0;
            let report = with(|blocks, _| {
                let (at, record) = places(blocks, kind)[0];
                block = at as u64 + 1;
                let amount = amount(&mut blocks[at][record]);
                *amount = amount.checked_add_signed(by).unwrap();
            })
            .await;
            says(&report, block, words);
        }
    }
}

#[tokio::test]
async fn a_movement_that_is_missing() {
    for (kind, words) in [
        (5_u8, "cost"),
        (7, "the credit of period 1 "),
        (8, "the slash of period 2 "),
        (14, "penalty is missing that period 4 "),
    ] {
        let mut block = 0;
        let report = with(|blocks, _| {
            let at = places(blocks, kind)[0];
            block = at.0 as u64 + 1;
            blocks[at.0].remove(at.1);
        })
        .await;
        says(&report, block, words);
    }
}

#[tokio::test]
async fn a_movement_that_is_there_twice_or_goes_elsewhere() {
    for (kind, twice, elsewhere) in [
        (7_u8, "has 2 of its credit", "the credit of period 1"),
        (8, "has 2 of its slash", "the slash of period 2"),
        (14, "rests on no verdict", "rests on no verdict"),
        (5, "cost", "went to another account"),
    ] {
        let mut block = 0;
        let report = with(|blocks, _| {
            let at = places(blocks, kind)[0];
            block = at.0 as u64 + 1;
            let record = blocks[at.0][at.1];
            blocks[at.0].insert(at.1, record);
        })
        .await;
        assert!(!report.problems.is_empty());
        says(&report, block, twice);
        let report = with(|blocks, _| {
            let at = places(blocks, kind)[0];
            let Record::Transfer { to, .. } = &mut blocks[at.0][at.1] else { panic!() };
            // The escrow.
            *to = 3;
        })
        .await;
        says(&report, block, elsewhere);
    }
}

#[tokio::test]
async fn money_that_rests_on_no_verdict() {
    let report = with(|blocks, _| {
        blocks[3].push(Record::Transfer { kind: 5, from: 0, to: 1, amount: 10 });
        blocks[3].push(Record::Transfer { kind: 7, from: 1, to: 0, amount: 10 });
    })
    .await;
    says(&report, 4, "the payment of 10 out of account 0 has no verdict");
    // A penalty after a breach that is no third one.
    let report =
        with(|blocks, _| blocks[2].push(Record::Transfer { kind: 14, from: 2, to: 0, amount: 125 })).await;
    says(&report, 3, "the penalty of 125 from account 2 to account 0 rests on no verdict");
    // Past the verdicts, out of the escrow.
    for kind in [4_u8, 9, 11, 13] {
        let report =
            with(|blocks, _| blocks[2].push(Record::Transfer { kind, from: 3, to: 1, amount: 5 })).await;
        says(&report, 3, "past every verdict");
    }
    let report =
        with(|blocks, _| blocks[2].push(Record::Transfer { kind: 9, from: 3, to: 0, amount: 5 })).await;
    assert_eq!(report.problems, Vec::<String>::new(), "a refund");
}

/// Replaces the two records of a period's verdict.
fn set_verdict(blocks: &mut Blocks, number: usize, change: impl Fn(&mut Record, &mut Record)) {
    let records = &mut blocks[number + 1];
    let at = records.iter().position(|record| matches!(record, Record::Verdict { .. })).unwrap();
    let (verdict, evidence) = records.split_at_mut(at + 1);
    change(&mut verdict[at], &mut evidence[0]);
}

#[tokio::test]
async fn a_verdict_that_does_not_follow_from_its_evidence() {
    let report = with(|blocks, _| {
        set_verdict(blocks, 1, |verdict, _| {
            let Record::Verdict { status, credit, .. } = verdict else { panic!() };
            (*status, *credit) = (VerdictStatus::Met, 0);
        });
        // The operator is consistent: no credit.
        let at = places(blocks, 7)[0];
        blocks[at.0].remove(at.1);
    })
    .await;
    says(&report, 3, "its status is Met on the chain, and Breached by the evidence");
    says(&report, 3, "its credit in ppm is 0 on the chain, and 100000 by the evidence");
    let report = with(|blocks, _| {
        set_verdict(blocks, 3, |verdict, _| {
            let Record::Verdict { coverage, .. } = verdict else { panic!() };
            *coverage = 900_000;
        });
    })
    .await;
    says(&report, 5, "its coverage is 900000 on the chain, and 300000 by the evidence");
    let report = with(|blocks, _| {
        set_verdict(blocks, 1, |_, evidence| *evidence = Record::VerdictEvidence { root: [1; 30] });
    })
    .await;
    says(&report, 3, "another root");
}

#[tokio::test]
async fn a_verdict_that_is_missing_or_there_twice() {
    for number in 1..=5_usize {
        let report = with(|blocks, _| blocks[number + 1].retain(|it| !is_verdict(it))).await;
        let words = if number < 5 { format!("period {number} of") } else { "the payment of 980".to_owned() };
        let block = if number < 5 { number + 3 } else { number + 2 };
        says(&report, block as u64, &words);
    }
    let report = with(|blocks, _| {
        let again: Vec<_> = blocks[3].iter().filter(|it| is_verdict(it)).copied().collect();
        blocks[5].extend(again);
    })
    .await;
    says(&report, 6, "has two verdicts");
}

fn is_verdict(record: &Record) -> bool {
    matches!(record, Record::Verdict { .. } | Record::VerdictEvidence { .. })
}

type Change = fn(&mut Bundle);

#[tokio::test]
async fn evidence_that_was_changed() {
    let changes: Vec<(&str, Change)> = vec![
        ("another root", |it| {
            let bucket = &mut it.file.evidence.buckets[0];
            bucket.qos.operations.values_mut().next().unwrap().attempts += 1;
        }),
        ("another root", |it| drop(it.file.evidence.buckets.pop())),
        ("about another unit", |it| it.file.evidence.buckets[0].subject = "unit_x".into()),
        ("other terms", |it| it.file.terms.error_rate = Ppm(1_000_000)),
        ("of another verdict", |it| it.period_key = it.period_key.replace("/1", "/9")),
        ("of another verdict", |it| it.domain = DomainId("another".into())),
        ("unknown form", |it| it.version = 2),
        ("lacks the allocation's terms", |it| it.allocation = None),
        ("can't be read", |it| it.allocation.as_mut().unwrap().terms.push('x')),
        ("of another allocation", |it| {
            let terms = &mut it.allocation.as_mut().unwrap().terms;
            *terms = terms.replace("\"provider\":\"prov_0", "\"provider\":\"prov_1");
        }),
        ("does not begin where the one before ends", |it| {
            it.file.window.from = it.file.window.from.plus(Micros(1))
        }),
        ("cost 1000 on the chain, and 999 by the evidence", |it| it.payment = Amount(999)),
        ("other terms or owners", |it| {
            it.allocation.as_mut().unwrap().consumer_owner = Some(Address([8; 20]))
        }),
    ];
    for (words, change) in changes {
        let report = with(|_, bundles| change(bundle_of(bundles, 1))).await;
        says(&report, 3, words);
    }
    let report = with(|_, bundles| {
        let gone: Vec<_> =
            bundles.iter().filter(|(_, it)| it.period_key.ends_with("/1")).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| drop(bundles.remove(key)));
    })
    .await;
    says(&report, 3, "its evidence is not there");
    // All of them alike: nothing of the chain has these names.
    let report = with(|_, bundles| {
        let all = bundles.values_mut().filter_map(|it| it.allocation.as_mut());
        all.for_each(|it| it.consumer_owner = Some(Address([8; 20])));
    })
    .await;
    says(&report, 2, "has no verdict");
}

#[tokio::test]
async fn terms_that_the_chain_does_not_hold() {
    // Milder ones, in every bundle, with the verdicts that they lead to.
    let report = with(|_, bundles| {
        for bundle in bundles.values_mut() {
            let allocation = bundle.allocation.as_mut().unwrap();
            let mut terms: AllocationTerms = serde_json::from_str(&allocation.terms).unwrap();
            terms.sla.latency_avg = Micros::from_secs(1);
            bundle.file.terms = terms.sla.clone();
            allocation.terms = terms.commitment().text;
        }
    })
    .await;
    says(&report, 1, "are not those that its verdicts were given by");
    // Changed on the chain for a while.
    let report = with(|blocks, _| blocks[3].push(Record::MarketSet { index: 0, digest: [9; 26] })).await;
    says(&report, 4, "are not those that its verdicts were given by");
    let report = with(|blocks, _| {
        blocks[0].retain(|it| !matches!(it, Record::MarketOpen { .. } | Record::MarketSet { .. }));
    })
    .await;
    says(&report, 2, "the chain has no terms of");
    // What a renewal replaced is left out.
    let mut scene = scene();
    let deal = 0;
    scene.renew(deal);
    scene.period(deal, MET, false);
    assert_eq!(scene.check().await.problems, Vec::<String>::new());
    for bundle in scene.bundles.values_mut() {
        bundle.allocation.as_mut().unwrap().earlier.clear();
    }
    let report = scene.check().await;
    assert_eq!(report.problems, Vec::<String>::new(), "other bundles show the allocation as it was");
    let last = scene.bundles.values().find(|it| it.period_key.ends_with("/6")).unwrap().allocation.clone();
    scene.bundles.values_mut().for_each(|it| it.allocation.clone_from(&last));
    says(&scene.check().await, 1, "are not those that its verdicts were given by");
}

/// In the first format credits stand anywhere behind their payment.
#[tokio::test]
async fn blocks_of_the_first_format_are_checked_as_well() {
    let mut scene = Scene::new(BlockFormat::Records, None);
    let deals = [scene.deal(1, 1, 500), scene.deal(1, 1, 500)];
    for like in [TENTH, ALL, ALL, MET] {
        scene.cut();
        deals.iter().for_each(|deal| scene.period(*deal, like, false));
    }
    for _ in 0..2 {
        scene.cut();
    }
    // Two penalties, which were slashes then.
    let report = scene.check().await;
    assert_eq!(
        (report.problems.len(), report.credits, report.open),
        (0, 6 + 4 + 2, 0),
        "{:#?}",
        report.problems
    );
    let total = 6 + 4 + 2;
    let all: Vec<_> = [7, 8].into_iter().flat_map(|kind| places(&scene.blocks, kind)).collect();
    assert_eq!(all.len(), total);
    for (block, record) in all {
        for off_by_one in [true, false] {
            let mut blocks = scene.blocks.clone();
            if off_by_one {
                *amount(&mut blocks[block][record]) += 1;
            } else {
                blocks[block].remove(record);
            }
            let report = check(&scene.domain, BlockFormat::Records, &blocks, &scene.bundles).await;
            assert!(!report.problems.is_empty(), "block {block}, record {record}, {off_by_one}");
        }
    }
}

#[tokio::test]
async fn many_problems_are_counted() {
    let mut scene = Scene::new(BlockFormat::Steps, None);
    let deal = scene.deal(1, 1, 500);
    for _ in 0..(TOLD + 20) {
        scene.period(deal, MET, false);
    }
    scene.bundles.values_mut().for_each(|it| it.file.evidence.buckets.clear());
    let report = scene.check().await;
    assert_eq!(report.problems.len(), TOLD);
    assert!(report.more_problems > 20, "{}", report.more_problems);
}

/// Every number, text and list of a bundle, one at a time, at its extremes: whatever a mirror says, the check goes on.
#[test]
fn no_bundle_stops_the_check() {
    fn places(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Array(all) => {
                all.iter().take(1).for_each(|it| places(it, &format!("{at}/0"), found));
            }
            serde_json::Value::Object(all) => {
                all.iter()
                    .for_each(|(key, it)| places(it, &format!("{at}/{}", key.replace('/', "~1")), found));
            }
            _ => {}
        }
        found.push(at.to_owned());
    }
    let Scene { domain, bundles, blocks, .. } = scene();
    let (subject, bundle) = bundles.iter().next().unwrap();
    let mut bundle = serde_json::to_value(bundle).unwrap();
    // Long windows have many buckets, and cost a second each.
    bundle["file"]["evidence"]["buckets"].as_array_mut().unwrap().truncate(1);
    let mut book = Book::default();
    (1..).zip(&blocks).for_each(|(number, records)| book.block(number, BlockFormat::Steps, records));
    let claim = book.claims.iter().find(|it| it.subject == *subject).unwrap();
    let mut found = Vec::new();
    places(&bundle, "", &mut found);
    let extremes =
        [json!(0), json!(u64::MAX), json!(i64::MAX), json!(i64::MIN), json!(u32::MAX), json!("x"), json!([])];
    let mut known = 0;
    for place in &found {
        for extreme in &extremes {
            let mut changed = bundle.clone();
            *changed.pointer_mut(place).unwrap() = extreme.clone();
            let judged = judged(&domain, claim, &serde_json::to_vec(&changed).unwrap());
            known += usize::from(judged.period.is_some());
            if let Some(period) = judged.period {
                let mut report = CreditReport::default();
                money::Money::new(&domain, &book, &mut report).check(vec![period], false);
            }
        }
    }
    assert!(found.len() > 50 && known > 50, "{} {known}", found.len());
}
