//! Claims, and many who write at once.

use super::*;

pub(super) async fn claims_change_and_return(db: &Db) {
    assert!(db.claim(claim(due(10), 10)).await.unwrap().is_empty());
    for (id, at) in [("a", 3), ("b", 1), ("c", 2), ("d", 1), ("e", 99)] {
        put(db, JOBS, id, json!({"due": at, "attempts": 4, "kind": "k"})).await;
    }
    put(db, JOBS, "f", json!({"due": null})).await;
    let taken = db.claim(claim(due(10), 3)).await.unwrap();
    let names: Vec<_> = taken.iter().map(|d| (d.id.as_str(), d.version)).collect();
    assert_eq!(names, [("b", 2), ("d", 2), ("c", 2)]);
    assert_eq!(
        value(&taken[0]),
        json!({"due": null, "attempts": 5, "kind": "k", "lease_owner": "me", "lease_token": 1})
    );
    for document in &taken {
        assert_eq!(db.get(JOBS, &document.id).await.unwrap().unwrap(), *document);
    }
    let rest = db.claim(claim(due(10), 3)).await.unwrap();
    assert_eq!(rest.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(db.claim(claim(due(10), 3)).await.unwrap().is_empty());
    assert_eq!(db.claim(claim(due(99), 3)).await.unwrap().len(), 1);
    // The indexes follow.
    assert_eq!(matching(db, JOBS, Filter::Eq("due".into(), Scalar::Null)).await.len(), 6);
    assert!(matching(db, JOBS, Filter::Ge("due".into(), 0.into())).await.is_empty());
    // A claim that sets nothing still takes.
    let bare = Claim { set: vec![], increment: vec![], ..claim(Filter::Ids(vec!["f".into()]), 1) };
    assert_eq!(db.claim(bare).await.unwrap()[0].version, 2);
}

pub(super) async fn claims_are_refused_as_a_whole(db: &Db) {
    for (id, attempts) in [("a", json!(1)), ("b", json!("x")), ("c", json!(1))] {
        put(db, JOBS, id, json!({"due": 1, "attempts": attempts, "dedup": id})).await;
    }
    assert!(matches!(db.claim(claim(due(1), 3)).await, Err(DatabaseError::Invalid(_))));
    let same = Claim { set: vec![("dedup".into(), "same".into())], increment: vec![], ..claim(due(1), 3) };
    let error = db.claim(same).await.unwrap_err();
    assert!(matches!(&error, DatabaseError::AlreadyExists { index, .. } if index == "by_dedup"), "{error:?}");
    for id in ["a", "b", "c"] {
        let found = db.get(JOBS, id).await.unwrap().unwrap();
        assert_eq!((found.version, value(&found)["dedup"].as_str()), (1, Some(id)));
    }
    let full = Claim { increment: vec![("attempts".into(), i64::MAX)], ..claim(Filter::eq("dedup", "a"), 1) };
    assert!(matches!(db.claim(full).await, Err(DatabaseError::Invalid(_))));
    assert_eq!(db.claim(claim(Filter::eq("dedup", "a"), 1)).await.unwrap().len(), 1);
}

pub(super) async fn claims_give_each_document_to_one_caller(db: &Db) {
    let mut all = Changeset::new();
    for n in 0..600 {
        all.writes.push(insert(JOBS, &format!("{n:04}"), json!({"due": n % 7})));
    }
    db.commit(all).await.unwrap();
    let claimers = (0..12).map(|_| {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let taken = db.claim(claim(due(10), 17)).await.unwrap();
                if taken.is_empty() {
                    return mine;
                }
                mine.extend(taken.into_iter().map(|document| document.id));
            }
        })
    });
    let taken: Vec<String> = join_all(claimers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(taken.len(), 600);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 600);
    assert_eq!(db.count(JOBS, Filter::eq("attempts", 1)).await.unwrap(), 600);
}

pub(super) async fn concurrent_adds_never_pass_the_floor(db: &Db) {
    put(db, UNITS, "u", json!({"free": 100})).await;
    let takers = (0..60).map(|n| {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            let mut changes = changes(vec![insert(JOBS, &format!("j{n}"), json!({}))]);
            changes.add(UNITS, "u", "free", -3, 0);
            db.commit(changes).await
        })
    });
    let results: Vec<_> = join_all(takers).await.into_iter().map(Result::unwrap).collect();
    let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (33, 27));
    assert!(bad.iter().all(|result| matches!(result, Err(DatabaseError::BelowFloor { .. }))));
    assert_eq!(body(db, UNITS, "u").await, json!({"free": 1}));
    // What came with a refused add did not happen either.
    assert_eq!(db.count(JOBS, Filter::All).await.unwrap(), 33);
}

pub(super) async fn concurrent_changesets_are_all_or_none(db: &Db) {
    // Each wants a key of its own and one that others want, too, in either order.
    let writers = (0..80).map(|n| {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            let mut writes = vec![
                insert(JOBS, &format!("own{n}"), json!({"dedup": format!("own{n}"), "due": n})),
                insert(JOBS, &format!("shared{n}"), json!({"dedup": format!("shared{}", n % 20)})),
            ];
            if n % 2 == 0 {
                writes.reverse();
            }
            db.commit(changes(writes)).await.is_ok().then_some(n)
        })
    });
    let won: Vec<i32> = join_all(writers).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(won.len(), 20);
    let mut wanted: Vec<String> =
        won.iter().flat_map(|n| [format!("own{n}"), format!("shared{n}")]).collect();
    wanted.sort();
    assert_eq!(matching(db, JOBS, Filter::All).await, wanted);
    assert_eq!(matching(db, JOBS, due(1_000)).await.len(), 20);
}

pub(super) async fn concurrent_replaces_let_one_win(db: &Db) {
    put(db, UNITS, "u", json!({"by": null})).await;
    let writers = (0..30).map(|n| {
        let db = Arc::clone(db);
        tokio::spawn(async move { (n, db.update(UNITS, "u", 1, json!({"by": n}).to_string()).await) })
    });
    let results: Vec<_> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = results.iter().filter(|(_, result)| result.is_ok()).map(|(n, _)| *n).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(body(db, UNITS, "u").await, json!({"by": winners[0]}));
}

pub(super) async fn a_read_sees_what_was_acknowledged(db: &Db) {
    let writers = (0..4).map(|writer| {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            for n in 0..25 {
                let id = format!("{writer}-{n:02}");
                db.insert(UNITS, &id, json!({"provider": writer}).to_string()).await.unwrap();
                assert!(db.get(UNITS, &id).await.unwrap().is_some());
                let mine = Filter::eq("provider", writer);
                assert_eq!(db.count(UNITS, mine.clone()).await.unwrap(), n + 1);
                assert_eq!(ids(&db, Query::new(UNITS).filter(mine)).await.last(), Some(&id));
            }
        })
    });
    join_all(writers).await.into_iter().for_each(Result::unwrap);
}
