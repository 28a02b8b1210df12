//! SQLite and MongoDB do what memory does: random changesets, claims and questions give the same answers on all.

use orchestrator::core::client::{
    database::{
        Changeset, Claim, DatabaseClient, DatabaseError, Document, Expect, Filter, Query, Scalar, Sort,
        Write, WriteOp,
    },
    schema::{Collection, JOBS, TRANSFERS},
};
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::database::{memory, sqlite};

#[derive(Debug, Clone)]
enum Step {
    Commit(Changeset),
    Claim(Claim),
    Find(Query),
}

fn collection() -> impl Strategy<Value = Collection> {
    prop_oneof![Just(JOBS), Just(TRANSFERS)]
}

/// Fields with a plain, a unique and a compound index, and fields without.
fn field() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["due", "dedup", "domain", "idempotency_key", "subject", "plain", "in.side"])
        .prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        Just(Scalar::Null),
        any::<bool>().prop_map(Scalar::Bool),
        (-2_i64..4).prop_map(Scalar::Int),
        "[ab1]{0,2}".prop_map(Scalar::Text),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => scalar().prop_map(|scalar| match scalar {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => value.into(),
            Scalar::Int(value) => value.into(),
            Scalar::Text(text) => text.into(),
        }),
        1 => prop::sample::select(vec!["[]", "{}", "0.5", "1.0", "{\"side\":1}"])
            .prop_map(|text| serde_json::from_str(text).unwrap()),
    ]
}

fn body() -> impl Strategy<Value = String> {
    let names = vec!["due", "dedup", "domain", "idempotency_key", "subject", "plain", "in"];
    prop_oneof![
        20 => prop::collection::btree_map(prop::sample::select(names), json(), 0..5).prop_map(|fields| {
            let map: Map<String, Value> = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            Value::Object(map).to_string()
        }),
        1 => Just("null".to_owned()),
    ]
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        3 => (1_u64..4).prop_map(Expect::Version),
        1 => (field(), scalar()).prop_map(|(field, scalar)| Expect::Field(field, scalar)),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let op = prop_oneof![
        4 => body().prop_map(|body| WriteOp::Insert { body }),
        3 => (expect(), body()).prop_map(|(expect, body)| WriteOp::Replace { expect, body }),
        2 => (field(), -2_i64..3, -1_i64..1).prop_map(|(field, delta, floor)| WriteOp::Add { field, delta, floor }),
        1 => expect().prop_map(|expect| WriteOp::Delete { expect }),
        1 => expect().prop_map(|expect| WriteOp::Require { expect }),
    ];
    (collection(), "[a-f]", op).prop_map(|(collection, id, op)| Write::new(collection, id, op))
}

fn filter() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        Just(Filter::All),
        (field(), scalar()).prop_map(|(f, s)| Filter::Eq(f, s)),
        (field(), scalar()).prop_map(|(f, s)| Filter::Lt(f, s)),
        (field(), scalar()).prop_map(|(f, s)| Filter::Le(f, s)),
        (field(), scalar()).prop_map(|(f, s)| Filter::Gt(f, s)),
        (field(), scalar()).prop_map(|(f, s)| Filter::Ge(f, s)),
        (field(), prop::collection::vec(scalar(), 0..3)).prop_map(|(f, s)| Filter::In(f, s)),
        prop::collection::vec("[a-f]", 0..3).prop_map(Filter::Ids),
        "[a-f]?".prop_map(Filter::IdPrefix),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
            prop::collection::vec(inner, 0..3).prop_map(Filter::Or),
        ]
    })
}

fn sort() -> impl Strategy<Value = Sort> {
    prop_oneof![
        Just(Sort::Id),
        Just(Sort::IdDescending),
        field().prop_map(Sort::Field),
        field().prop_map(Sort::FieldDescending),
    ]
}

fn claim() -> impl Strategy<Value = Claim> {
    let set = prop::collection::vec((field(), scalar()), 0..3);
    let increment = prop::collection::vec((field(), -1_i64..3), 0..2);
    (collection(), filter(), sort(), 1_usize..4, set, increment).prop_map(
        |(collection, filter, sort, limit, set, increment)| Claim {
            collection,
            filter,
            sort,
            limit,
            set,
            increment,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::collection::vec(write(), 0..4).prop_map(|writes| Step::Commit(Changeset { writes })),
        1 => claim().prop_map(Step::Claim),
        2 => (collection(), filter(), sort(), 1_usize..4).prop_map(|(collection, filter, sort, limit)| {
            Step::Find(Query { collection, filter, sort, limit, after: None })
        }),
    ]
}

/// Documents as text; how a body is written is a back end's own.
fn shown(documents: &[Document]) -> String {
    let value = |document: &Document| serde_json::from_str::<Value>(&document.body).unwrap();
    let shown: Vec<_> = documents.iter().map(|d| (&d.id, d.version, value(d))).collect();
    format!("{shown:?}")
}

/// What a step answers, as text: values and kinds of errors, not their wording.
async fn run(db: &dyn DatabaseClient, step: &Step) -> String {
    let told = |error: DatabaseError| match error {
        DatabaseError::Invalid(_) => "invalid".to_owned(),
        other => format!("{other:?}"),
    };
    match step {
        Step::Commit(changes) => {
            db.commit(changes.clone()).await.map_or_else(told, |()| "committed".to_owned())
        }
        Step::Claim(claim) => db.claim(claim.clone()).await.map_or_else(told, |documents| shown(&documents)),
        Step::Find(query) => {
            let mut all = String::new();
            let mut query = query.clone();
            loop {
                let page = db.find(query.clone()).await.unwrap();
                all.push_str(&format!("{} {:?}", shown(&page.documents), page.next));
                if page.next.is_none() {
                    break;
                }
                query.after = page.next;
            }
            let count = db.count(query.collection, query.filter).await.unwrap();
            format!("{count} {all}")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_answer_alike(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (memory, sqlite) = (memory().await, sqlite().await);
            for step in &steps {
                let wanted = run(&*memory.db, step).await;
                prop_assert_eq!(run(&*sqlite.db, step).await, wanted, "{:?}", step);
            }
            for collection in [JOBS, TRANSFERS] {
                let wanted = memory.db.find(Query::new(collection)).await.unwrap();
                prop_assert_eq!(sqlite.db.find(Query::new(collection)).await.unwrap(), wanted);
            }
            Ok(())
        })?;
    }
}

#[cfg(feature = "mongodb")]
proptest! {
    // Each case takes a database of its own, on a server.
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn mongodb_answers_alike(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (memory, other) = (memory().await, super::database::mongodb().await);
            for step in &steps {
                let wanted = run(&*memory.db, step).await;
                prop_assert_eq!(run(&*other.db, step).await, wanted, "{:?}", step);
            }
            for collection in [JOBS, TRANSFERS] {
                let wanted = memory.db.find(Query::new(collection)).await.unwrap();
                let found = other.db.find(Query::new(collection)).await.unwrap();
                prop_assert_eq!(shown(&found.documents), shown(&wanted.documents));
            }
            Ok(())
        })?;
    }
}
