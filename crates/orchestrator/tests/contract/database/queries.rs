//! Questions: filters, sorts, pages.

use super::*;

/// The same values in a field with an index, and in one without.
pub(super) async fn mixed(db: &Db) {
    let values = [
        ("array", json!([1])),
        ("big", json!(u64::MAX)),
        ("empty", json!("")),
        ("false", json!(false)),
        ("half", json!(0.5)),
        ("int-1", json!(-1)),
        ("int1", json!(1)),
        ("int10", json!(10)),
        ("int9", json!(9)),
        ("null", json!(null)),
        ("object", json!({"a": 1})),
        ("one", json!(1.0)),
        ("text1", json!("1")),
        ("text10", json!("10")),
        ("text9", json!("9")),
        ("true", json!(true)),
        ("umlaut", json!("ä")),
    ];
    for (id, value) in values {
        put(db, UNITS, id, json!({"updated_at": value, "plain": value, "in": {"side": value}})).await;
    }
    put(db, UNITS, "without", json!({})).await;
}

pub(super) async fn filters_compare_within_one_type(db: &Db) {
    mixed(db).await;
    type Make = fn(String, Scalar) -> Filter;
    let cases: Vec<(Make, Scalar, &[&str])> = vec![
        (Filter::Eq, 1.into(), &["int1"]),
        (Filter::Eq, 0.into(), &[]),
        (Filter::Eq, "1".into(), &["text1"]),
        (Filter::Eq, "true".into(), &[]),
        (Filter::Eq, "[1]".into(), &[]),
        (Filter::Eq, true.into(), &["true"]),
        (Filter::Eq, false.into(), &["false"]),
        (Filter::Eq, Scalar::Null, &["null", "without"]),
        (Filter::Lt, 9.into(), &["int-1", "int1"]),
        (Filter::Le, 9.into(), &["int-1", "int1", "int9"]),
        (Filter::Gt, 1.into(), &["int10", "int9"]),
        (Filter::Ge, 9.into(), &["int10", "int9"]),
        (Filter::Ge, i64::MIN.into(), &["int-1", "int1", "int10", "int9"]),
        (Filter::Lt, "9".into(), &["empty", "text1", "text10"]),
        (Filter::Le, "".into(), &["empty"]),
        (Filter::Gt, "1".into(), &["text10", "text9", "umlaut"]),
        (Filter::Ge, "".into(), &["empty", "text1", "text10", "text9", "umlaut"]),
        (Filter::Lt, true.into(), &["false"]),
        (Filter::Le, true.into(), &["false", "true"]),
        (Filter::Gt, false.into(), &["true"]),
        (Filter::Ge, false.into(), &["false", "true"]),
        (Filter::Lt, Scalar::Null, &[]),
        (Filter::Le, Scalar::Null, &[]),
        (Filter::Gt, Scalar::Null, &[]),
        (Filter::Ge, Scalar::Null, &[]),
    ];
    for (make, scalar, wanted) in cases {
        for field in ["plain", "updated_at", "in.side"] {
            let filter = make(field.into(), scalar.clone());
            assert_eq!(matching(db, UNITS, filter.clone()).await, wanted, "{filter:?}");
        }
    }
}

pub(super) async fn filters_compare_in_fields_with_an_index_as_in_those_without(db: &Db) {
    mixed(db).await;
    for list in [
        vec![],
        vec![Scalar::Null],
        vec![1.into(), "1".into(), true.into()],
        vec![Scalar::Null, 9.into(), "nothing".into()],
    ] {
        let with = matching(db, UNITS, Filter::In("updated_at".into(), list.clone())).await;
        let without = matching(db, UNITS, Filter::In("plain".into(), list.clone())).await;
        assert_eq!(with, without, "{list:?}");
        assert_eq!(with.is_empty(), list.is_empty());
    }
    for sort in [Sort::Field as fn(String) -> Sort, Sort::FieldDescending] {
        let with = ids(db, Query::new(UNITS).sort(sort("updated_at".into()))).await;
        let without = ids(db, Query::new(UNITS).sort(sort("plain".into()))).await;
        assert_eq!(with, without);
        assert_eq!(with.len(), 18);
    }
}

pub(super) async fn null_is_missing(db: &Db) {
    put(db, UNITS, "a", json!({"x": null, "y": {"z": null}})).await;
    put(db, UNITS, "b", json!({})).await;
    put(db, UNITS, "c", json!({"x": 0, "y": {"z": ""}})).await;
    put(db, UNITS, "d", json!({"x": [], "y": 1})).await;
    assert_eq!(matching(db, UNITS, Filter::Eq("x".into(), Scalar::Null)).await, ["a", "b"]);
    assert_eq!(matching(db, UNITS, Filter::Eq("y.z".into(), Scalar::Null)).await, ["a", "b", "d"]);
    let both = Filter::In("x".into(), vec![Scalar::Null, 0.into()]);
    assert_eq!(matching(db, UNITS, both).await, ["a", "b", "c"]);
}

pub(super) async fn lists_prefixes_and_combinations(db: &Db) {
    for id in ["a", "a%b", "a_1", "a_2", "ab", "b", "ä1", "ä2", "\u{10ffff}"] {
        put(db, UNITS, id, json!({"id": id})).await;
    }
    let all = matching(db, UNITS, Filter::All).await;
    assert_eq!(all.len(), 9);
    assert_eq!(matching(db, UNITS, Filter::And(vec![])).await, all);
    assert!(matching(db, UNITS, Filter::Or(vec![])).await.is_empty());
    assert!(matching(db, UNITS, Filter::Ids(vec![])).await.is_empty());
    let ids = |list: &[&str]| Filter::Ids(list.iter().map(|id| (*id).to_owned()).collect());
    assert_eq!(matching(db, UNITS, ids(&["b", "a", "a", "none", ""])).await, ["a", "b"]);
    let prefix = |text: &str| Filter::IdPrefix(text.to_owned());
    assert_eq!(matching(db, UNITS, prefix("")).await, all);
    assert_eq!(matching(db, UNITS, prefix("a_")).await, ["a_1", "a_2"]);
    assert_eq!(matching(db, UNITS, prefix("a%")).await, ["a%b"]);
    assert_eq!(matching(db, UNITS, prefix("ä")).await, ["ä1", "ä2"]);
    assert_eq!(matching(db, UNITS, prefix("\u{10ffff}")).await, ["\u{10ffff}"]);
    assert!(matching(db, UNITS, prefix("A")).await.is_empty());
    let either = Filter::Or(vec![ids(&["b"]), Filter::And(vec![prefix("a"), Filter::eq("id", "ab")])]);
    assert_eq!(matching(db, UNITS, either.clone()).await, ["ab", "b"]);
    assert_eq!(matching(db, UNITS, either.and(prefix("b"))).await, ["b"]);
    assert_eq!(matching(db, UNITS, Filter::Or(vec![Filter::All, prefix("a")])).await, all);
}

/// All pages of a query.
async fn paged(db: &Db, query: Query) -> Vec<String> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = db.find(query.clone().after(after)).await.unwrap();
        assert!(page.documents.len() <= query.limit);
        all.extend(page.documents.into_iter().map(|document| document.id));
        // Cursors travel as text.
        match page.next {
            Some(cursor) => {
                let text = serde_json::to_string(&cursor).unwrap();
                after = Some(serde_json::from_str::<Cursor>(&text).unwrap());
            }
            None => return all,
        }
    }
}

pub(super) async fn sorts_break_ties_by_id(db: &Db) {
    for (id, at) in [("d", 2), ("a", 1), ("c", 1), ("b", 2), ("e", 1)] {
        put(db, UNITS, id, json!({"updated_at": at, "plain": at})).await;
    }
    for field in ["updated_at", "plain"] {
        for limit in [1, 2, 3, 4, 5, 6] {
            let query = |sort| Query::new(UNITS).sort(sort).limit(limit);
            assert_eq!(paged(db, query(Sort::Field(field.into()))).await, ["a", "c", "e", "b", "d"]);
            assert_eq!(
                paged(db, query(Sort::FieldDescending(field.into()))).await,
                ["d", "b", "e", "c", "a"]
            );
            assert_eq!(paged(db, query(Sort::Id)).await, ["a", "b", "c", "d", "e"]);
            assert_eq!(paged(db, query(Sort::IdDescending)).await, ["e", "d", "c", "b", "a"]);
        }
    }
    // A condition that can't hold, beside one on the field of the sort.
    for never in [
        Filter::Or(vec![]),
        Filter::In("updated_at".into(), vec![]),
        Filter::Lt("updated_at".into(), Scalar::Null),
    ] {
        let filter = Filter::Ge("updated_at".into(), 1.into()).and(never);
        assert!(
            ids(db, Query::new(UNITS).filter(filter).sort(Sort::Field("updated_at".into()))).await.is_empty()
        );
    }
    // A full last page has nothing behind it.
    assert_eq!(db.find(Query::new(UNITS).limit(5)).await.unwrap().next, None);
}

pub(super) async fn sorts_put_missing_fields_first(db: &Db) {
    mixed(db).await;
    put(db, UNITS, "int1b", json!({"updated_at": 1, "plain": 1})).await;
    for field in ["updated_at", "plain"] {
        let up = paged(db, Query::new(UNITS).sort(Sort::Field(field.into()))).await;
        assert_eq!(up[..7], ["null", "without", "int-1", "int1", "int1b", "int9", "int10"]);
        let mut down = paged(db, Query::new(UNITS).sort(Sort::FieldDescending(field.into()))).await;
        down.reverse();
        assert_eq!(up, down);
        for limit in [1, 2, 3, 7] {
            let query = |sort| Query::new(UNITS).sort(sort).limit(limit);
            assert_eq!(paged(db, query(Sort::Field(field.into()))).await, up);
            let mut down = paged(db, query(Sort::FieldDescending(field.into()))).await;
            down.reverse();
            assert_eq!(down, up);
        }
        let some = Query::new(UNITS).sort(Sort::Field(field.into())).limit(2);
        let found = paged(db, some.filter(Filter::Ge(field.into(), 1.into()))).await;
        assert_eq!(found, ["int1", "int1b", "int9", "int10"]);
    }
}

pub(super) async fn pages_skip_nothing_while_others_write(db: &Db) {
    for n in 0..100 {
        put(db, UNITS, &format!("old{n:03}"), json!({"updated_at": n / 10})).await;
    }
    for sort in [
        Sort::Id,
        Sort::IdDescending,
        Sort::Field("updated_at".into()),
        Sort::FieldDescending("updated_at".into()),
    ] {
        let mut seen = Vec::new();
        let mut after = None;
        for round in 0.. {
            let query = Query::new(UNITS).sort(sort.clone()).limit(7).after(after);
            let page = db.find(query).await.unwrap();
            seen.extend(page.documents.iter().map(|d| d.id.clone()).filter(|id| id.starts_with("old")));
            // Before, behind, and between what is there.
            let id = format!("n{sort:?}{round}");
            put(db, UNITS, &id, json!({"updated_at": round % 12})).await;
            put(db, UNITS, &format!("z{id}"), json!({})).await;
            after = page.next;
            if after.is_none() || round > 200 {
                break;
            }
        }
        let distinct: BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (100, 100), "{sort:?}");
    }
}

pub(super) async fn odd_texts_survive(db: &Db) {
    let odd = "quote\" back\\slash \n nul\u{0} é 😀 ' -- ; %";
    put(db, JOBS, "it's \"odd\" ; -- 😀", json!({"dedup": odd, "a-b": {"c_d": odd}, "weird key.": 1})).await;
    let by_index = Filter::eq("dedup", odd);
    assert_eq!(matching(db, JOBS, by_index).await, ["it's \"odd\" ; -- 😀"]);
    assert_eq!(matching(db, JOBS, Filter::eq("a-b.c_d", odd)).await.len(), 1);
    exists_by(db.insert(JOBS, "b", json!({"dedup": odd}).to_string()).await, "by_dedup");
    let taken = db
        .claim(Claim {
            set: vec![("owner".into(), odd.into()), ("a-b.x".into(), true.into())],
            ..claim(Filter::All, 1)
        })
        .await
        .unwrap();
    assert_eq!(
        value(&taken[0]),
        json!({"dedup": odd, "a-b": {"c_d": odd, "x": true}, "weird key.": 1, "owner": odd, "lease_token": 1, "attempts": 1})
    );
}
