//! Golden databases: for each layout of the embedded database the file as a program of that time left it, as SQL, with one
//! document of every entity. Each is brought forward by the present program, and read.
//!
//! That of a new layout is written by `ORCHESTRATOR_WRITE_GOLDEN=1 cargo test -p orchestrator --test it -- --ignored golden::databases`,
//! before the release that brings it, and not changed any more after that.

use std::{fmt::Write as _, fs, path::PathBuf};

use orchestrator::{
    client::db::sqlite::{LAYOUT, Options, SqliteDatabase},
    core::client::{
        database::{Changeset, Committer as _, DatabaseClient as _, DatabaseError, Reader as _},
        schema,
    },
    metadata::{CODECS, Codec},
};
use rusqlite::Connection;
use serde_json::Value;

use super::golden;

fn path(layout: i64) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/databases/layout-{layout}.sql"))
}

/// The golden document of an entity, and its id.
fn document(codec: &Codec) -> (String, String) {
    let body = golden(codec.name, codec.version);
    let (id, _) = (codec.rewrite)(&body).unwrap();
    (id, body)
}

#[tokio::test]
async fn a_file_of_every_layout_is_brought_forward_and_read() {
    for layout in 1..=LAYOUT {
        let sql = fs::read_to_string(path(layout))
            .unwrap_or_else(|error| panic!("layout {layout} has no golden database: {error}"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("orchestrator.db");
        let old = Connection::open(&file).unwrap();
        old.execute_batch(&sql).unwrap();
        let found: i64 = old.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(found, layout);
        old.close().unwrap();

        // Twice: what was brought forward is opened like any other.
        for _ in 0..2 {
            let database = SqliteDatabase::open(&file, Options::default()).unwrap();
            database.connect(schema::ALL).await.unwrap();
            for codec in CODECS.iter().filter(|codec| sql.contains(&format!("'{}'", document(codec).0))) {
                let (id, _) = document(codec);
                let found = database.get(codec.collection, &id).await.unwrap();
                let found = found.unwrap_or_else(|| panic!("{} is lost from layout {layout}", codec.name));
                (codec.rewrite)(&found.body).unwrap_or_else(|error| panic!("{}: {error:?}", codec.name));
            }
            // Unique indexes hold for old documents, too.
            let job: Value = serde_json::from_str(&golden("job", 1)).unwrap();
            let mut twin = Changeset::new();
            twin.insert_json(schema::JOBS, "another".into(), &job);
            assert!(matches!(database.commit(twin).await, Err(DatabaseError::AlreadyExists { .. })));
            database.disconnect().await.unwrap();
        }
        let new = Connection::open(&file).unwrap();
        let found: i64 = new.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(found, LAYOUT);
        let history: i64 = new
            .query_row("SELECT count(*) FROM layout_history WHERE layout = ?1", [LAYOUT], |row| row.get(0))
            .unwrap();
        assert_eq!(history, 1, "from layout {layout}");
    }
}

/// Everything in a file, as statements that make it again.
fn dump(connection: &Connection) -> String {
    let mut sql = String::new();
    let texts = |query: &str| -> Vec<String> {
        let mut statement = connection.prepare(query).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for statement in texts("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name") {
        let _ = writeln!(sql, "{statement};");
    }
    for table in texts("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name") {
        let columns = texts(&format!("SELECT name FROM pragma_table_info('{table}')"));
        let quoted: Vec<_> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
        let rows = texts(&format!("SELECT {} FROM \"{table}\" ORDER BY 1", quoted.join(" || ', ' || ")));
        for row in rows {
            let _ = writeln!(sql, "INSERT INTO \"{table}\" VALUES ({row});");
        }
    }
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let _ = writeln!(sql, "PRAGMA user_version = {version};");
    sql
}

#[tokio::test]
#[ignore = "writes the golden database of a new layout"]
async fn write_the_golden_database_of_the_present_layout() {
    assert_eq!(
        std::env::var("ORCHESTRATOR_WRITE_GOLDEN").as_deref(),
        Ok("1"),
        "say that it shall be written"
    );
    assert!(!path(LAYOUT).exists(), "a golden database is never changed");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("orchestrator.db");
    let database = SqliteDatabase::open(&file, Options::default()).unwrap();
    database.connect(schema::ALL).await.unwrap();
    for codec in CODECS {
        let (id, body) = document(codec);
        database.insert(codec.collection, &id, body).await.unwrap();
    }
    database.disconnect().await.unwrap();
    fs::create_dir_all(path(LAYOUT).parent().unwrap()).unwrap();
    fs::write(path(LAYOUT), dump(&Connection::open(&file).unwrap())).unwrap();
}
