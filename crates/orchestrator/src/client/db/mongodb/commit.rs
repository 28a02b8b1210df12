//! Changesets. One write is one statement, which the driver repeats safely. More are one transaction: first in as few
//! commands as keep the order; when a statement met nothing, once more, one by one, to tell which and why.

use std::sync::Arc;

use ::mongodb::{
    ClientSession,
    bson::{Bson, Document as BsonDocument, doc},
};
use async_trait::async_trait;

use super::{
    Running, Table,
    fault::{self, fault},
    filter,
    statement::{self, Statement},
    transaction::{self, Stop, Work},
};
use crate::{
    client::db::{unknown, value},
    core::client::database::{Changeset, DatabaseError, Result, Write, WriteOp},
};

/// Tries of a single write whose document changes between the statement and the look at why it met nothing.
const TRIES: u32 = 16;
/// The most statements of one command, and the most bytes of bodies; a command is limited like a document is.
pub(super) const BATCH: (usize, usize) = (1_000, 8 << 20);

/// A write that was checked as far as it can be without the server.
pub(super) struct Prepared {
    table: Arc<Table>,
    write: Write,
    statement: Statement,
}

/// Checks a changeset.
pub(super) fn prepare(running: &Running, changeset: Changeset) -> Result<Vec<Prepared>> {
    value::check_changeset(&changeset)?;
    let prepare = |write: Write| {
        let table = running.tables.get(&write.collection).ok_or_else(|| unknown(write.collection))?;
        statement::check(table, &write)?;
        let statement = statement::statement(table, &write);
        Ok(Prepared { table: Arc::clone(table), write, statement })
    };
    changeset.writes.into_iter().map(prepare).collect()
}

/// Applies all writes or none.
pub(super) async fn commit(running: &Running, writes: Vec<Prepared>) -> Result<()> {
    match writes.as_slice() {
        [] => Ok(()),
        [one] => alone(one).await,
        _ => transaction::transact(running, &mut Together { running, writes, one_by_one: false }).await,
    }
}

/// Applies one write.
async fn alone(prepared: &Prepared) -> Result<()> {
    let Prepared { table, write, statement } = prepared;
    for attempt in 1..=TRIES {
        let documents = &table.documents;
        let result = match statement.clone() {
            Statement::Insert(document) => documents.insert_one(document).await.map(|_| 1),
            Statement::Update { filter, update } => {
                documents.update_one(filter, update).await.map(|result| result.matched_count)
            }
            Statement::Delete { filter } => {
                documents.delete_one(filter).await.map(|result| result.deleted_count)
            }
        };
        match result {
            Ok(0) => {}
            Ok(_) => return Ok(()),
            Err(error) => {
                return Err(match fault::duplicate(&error) {
                    Some(message) => statement::duplicate(table, &write.id, message),
                    None => fault(error),
                });
            }
        }
        let present = filter::get(table, &write.id, None).await?;
        if let Some(refusal) = statement::refusal(write, present.as_ref()) {
            return Err(refusal);
        }
        // It holds now; it changed in between.
        transaction::pause(attempt).await;
    }
    Err(DatabaseError::Conflict { collection: write.collection, id: write.id.clone() })
}

/// The writes of a changeset, in one transaction.
struct Together<'a> {
    running: &'a Running,
    writes: Vec<Prepared>,
    one_by_one: bool,
}

/// A command of statements of one kind on one collection.
struct Command<'a> {
    name: &'static str,
    table: &'a Table,
    statements: Vec<BsonDocument>,
}

impl Command<'_> {
    fn document(self) -> BsonDocument {
        let list = match self.name {
            "insert" => "documents",
            "update" => "updates",
            _ => "deletes",
        };
        doc! { self.name: self.table.spec.collection.0, list: self.statements, "ordered": true }
    }
}

fn parts(statement: &Statement) -> (&'static str, BsonDocument) {
    match statement {
        Statement::Insert(document) => ("insert", document.clone()),
        Statement::Update { filter, update } => ("update", doc! { "q": filter.clone(), "u": update.clone() }),
        Statement::Delete { filter } => ("delete", doc! { "q": filter.clone(), "limit": 1 }),
    }
}

/// How many of the writes, from the first on, go into one command, and the command.
fn first_command(writes: &[Prepared], one_by_one: bool) -> Option<(usize, Command<'_>)> {
    let first = writes.first()?;
    let (name, statement) = parts(&first.statement);
    let mut command = Command { name, table: &first.table, statements: vec![statement] };
    let mut bytes = size(&first.write);
    for next in writes.iter().skip(1) {
        bytes += size(&next.write);
        let full = command.statements.len() >= BATCH.0 || bytes > BATCH.1;
        if one_by_one || full || next.write.collection != first.write.collection {
            break;
        }
        let (same, statement) = parts(&next.statement);
        if same != name {
            break;
        }
        command.statements.push(statement);
    }
    Some((command.statements.len(), command))
}

fn size(write: &Write) -> usize {
    match &write.op {
        WriteOp::Insert { body } | WriteOp::Replace { body, .. } => body.len(),
        _ => 0,
    }
}

#[async_trait]
impl Work for Together<'_> {
    type Output = ();

    fn documents(&self) -> Vec<(&'static str, String)> {
        let named = |one: &Prepared| (one.write.collection.0, one.write.id.clone());
        self.writes.iter().filter(|one| !matches!(one.write.op, WriteOp::Insert { .. })).map(named).collect()
    }

    async fn run(&mut self, session: &mut ClientSession) -> std::result::Result<(), Stop> {
        let mut left = self.writes.as_slice();
        let mut written = false;
        while let Some((count, command)) = first_command(left, self.one_by_one) {
            let table = command.table;
            let reply = self.running.database.run_command(command.document()).session(&mut *session).await?;
            if let Some((place, error)) = first_error(&reply) {
                let id = left.get(place).map_or("?", |one| one.write.id.as_str());
                return Err(refused(table, id, error));
            }
            if number(&reply, "n") != count as i64 {
                // One of them met nothing. Alone in its command it is known, else it is found in another run.
                let (1, Some(one)) = (count, left.first()) else {
                    self.one_by_one = true;
                    return Err(Stop::Otherwise);
                };
                return Err(explain(one, session, written).await);
            }
            written = true;
            left = left.get(count..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Why a write met nothing, from what the transaction sees.
async fn explain(one: &Prepared, session: &mut ClientSession, written: bool) -> Stop {
    match filter::get(&one.table, &one.write.id, Some(session)).await {
        Ok(present) => {
            let (collection, id) = (one.write.collection, one.write.id.clone());
            let error = statement::refusal(&one.write, present.as_ref());
            Stop::Refused { error: error.unwrap_or(DatabaseError::Conflict { collection, id }), written }
        }
        Err(trouble) => trouble.into(),
    }
}

/// What the server's refusal of one statement means.
pub(super) fn refused(table: &Table, id: &str, StatementError { code, message }: StatementError) -> Stop {
    match code {
        // The server has ended the transaction: there are no reads left to commit.
        fault::DUPLICATE_KEY => {
            Stop::Refused { error: statement::duplicate(table, id, &message), written: true }
        }
        fault::WRITE_CONFLICT => Stop::Transient(::mongodb::error::Error::custom(message)),
        _ => Stop::Failed(fault::statement_fault(code, &message)),
    }
}

/// What the server says of a statement.
pub(super) struct StatementError {
    /// Its code.
    pub(super) code: i32,
    /// In words.
    pub(super) message: String,
}

/// The first statement that failed, by its place.
pub(super) fn first_error(reply: &BsonDocument) -> Option<(usize, StatementError)> {
    let first = reply.get_array("writeErrors").ok()?.first()?.as_document()?;
    let place = usize::try_from(number(first, "index")).unwrap_or_default();
    let code = i32::try_from(number(first, "code")).unwrap_or_default();
    let message = first.get_str("errmsg").unwrap_or_default().to_owned();
    Some((place, StatementError { code, message }))
}

/// A number of a reply, whichever type the server gave it.
pub(super) fn number(reply: &BsonDocument, name: &str) -> i64 {
    match reply.get(name) {
        Some(Bson::Int32(value)) => i64::from(*value),
        Some(Bson::Int64(value)) => *value,
        #[expect(clippy::cast_possible_truncation, reason = "counts and flags, far below 2^53")]
        Some(Bson::Double(value)) => *value as i64,
        _ => 0,
    }
}
