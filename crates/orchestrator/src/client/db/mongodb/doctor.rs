//! What a person must know about the server before anything works: what it is, how far away, whose clock, and what the
//! user may not.

use std::time::{Duration, Instant};

use ::mongodb::{
    Database,
    bson::{Bson, Document as BsonDocument, doc},
};

use super::{
    MongoDatabase,
    commit::number,
    fault::fault,
    layout::{self, Drift},
};
use crate::core::{
    client::{
        clock::Clock,
        database::{DatabaseError, Result},
        schema::CollectionSpec,
    },
    market::quantity::Micros,
};

/// The oldest protocol that is spoken: that of MongoDB 5.0, from which on every server reads what a majority has.
const OLDEST_WIRE_VERSION: i64 = 13;

/// What kind of server it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// A replica set, by its name.
    ReplicaSet(String),
    /// A sharded cluster.
    Sharded,
    /// A server alone, without transactions: it is refused.
    Standalone,
}

/// What [`MongoDatabase::inspect`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The server's version.
    pub version: String,
    /// What kind of server it is.
    pub topology: Topology,
    /// Why the server can't be used, with the fix; `None` when it can.
    pub unusable: Option<String>,
    /// The shortest of a few round trips.
    pub round_trip: Duration,
    /// How far the server's clock is from ours, within half a round trip and a millisecond.
    pub clock_skew: Micros,
    /// Whether the server's clock is ahead of ours.
    pub server_ahead: bool,
    /// Collections and indexes that are missing or different; `connect` mends them. Empty, too, when the user may not
    /// look: then that is among the missing permissions.
    pub drift: Vec<Drift>,
    /// What the user may not do in the database but must: names of actions, such as `createIndex`. Empty, too, when the
    /// server asks for no user, or does not tell.
    pub missing_permissions: Vec<&'static str>,
}

/// What the daemon does to its collections.
const RUN: [&str; 4] = ["find", "insert", "update", "remove"];
/// What it does when it starts or sets up.
const SETUP: [&str; 4] = ["createCollection", "createIndex", "listCollections", "listIndexes"];

pub(super) async fn hello(database: &Database) -> Result<BsonDocument> {
    database.run_command(doc! { "hello": 1 }).await.map_err(fault)
}

/// What kind of server answered.
fn topology(hello: &BsonDocument) -> Topology {
    match (hello.get_str("setName"), hello.get_str("msg")) {
        (Ok(name), _) => Topology::ReplicaSet(name.to_owned()),
        (_, Ok("isdbgrid")) => Topology::Sharded,
        _ => Topology::Standalone,
    }
}

/// Why a server can't be used, with the fix.
fn unusable(hello: &BsonDocument) -> Option<String> {
    if topology(hello) == Topology::Standalone {
        return Some(
            "the MongoDB server stands alone and so has no transactions: start it with `--replSet rs0` and run \
             `rs.initiate()` once, also for a single server"
                .to_owned(),
        );
    }
    let wire = number(hello, "maxWireVersion");
    if wire < OLDEST_WIRE_VERSION {
        return Some(format!(
            "the MongoDB server is too old for reads of what a majority has (protocol {wire}): upgrade it to 5.0 or later"
        ));
    }
    if !hello.contains_key("logicalSessionTimeoutMinutes") {
        return Some(
            "the MongoDB server has no sessions, and so no transactions: use a replica set of MongoDB 5.0 or later"
                .to_owned(),
        );
    }
    None
}

/// Refuses servers that can't keep the port's promises.
pub(super) async fn check_server(database: &Database) -> Result<()> {
    match unusable(&hello(database).await?) {
        Some(reason) => Err(DatabaseError::Invalid(reason)),
        None => Ok(()),
    }
}

/// Actions that none of the user's privileges allows.
fn missing(privileges: &[Bson], database: &str) -> Vec<&'static str> {
    let covers = |resource: &BsonDocument| {
        let any = resource.get_bool("anyResource").unwrap_or(false);
        // An empty name means all of them. What holds for one collection only is not enough.
        let named = resource.get_str("db").is_ok_and(|name| name.is_empty() || name == database);
        any || (named && resource.get_str("collection").is_ok_and(str::is_empty))
    };
    let allowed: Vec<&str> = privileges
        .iter()
        .filter_map(Bson::as_document)
        .filter(|privilege| privilege.get_document("resource").is_ok_and(covers))
        .filter_map(|privilege| privilege.get_array("actions").ok())
        .flatten()
        .filter_map(Bson::as_str)
        .collect();
    let lacks = |action: &&str| !allowed.contains(action) && !allowed.contains(&"anyAction");
    RUN.into_iter().chain(SETUP).filter(lacks).collect()
}

async fn permissions(database: &Database) -> Result<Vec<&'static str>> {
    let reply =
        database.run_command(doc! { "connectionStatus": 1, "showPrivileges": true }).await.map_err(fault)?;
    let Ok(about) = reply.get_document("authInfo") else { return Ok(Vec::new()) };
    if about.get_array("authenticatedUsers").map_or(true, Vec::is_empty) {
        // Without users everything is allowed, or nothing, which other commands tell.
        return Ok(Vec::new());
    }
    let privileges = about.get_array("authenticatedUserPrivileges").map(Vec::as_slice).unwrap_or_default();
    let roles = about.get_array("authenticatedUserRoles").map(Vec::as_slice).unwrap_or_default();
    if privileges.is_empty() && !roles.is_empty() {
        // Some servers speak of roles only, and these mean what somebody made them mean.
        return Ok(Vec::new());
    }
    Ok(missing(privileges, database.name()))
}

impl MongoDatabase {
    /// Looks at the server without changing anything. Needs no [`connect`](crate::core::client::database::DatabaseClient::connect)
    /// before, so that it also tells why that fails.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn inspect(&self, schema: &[CollectionSpec], clock: &dyn Clock) -> Result<Inspection> {
        self.within(self.look(schema, clock)).await
    }

    async fn look(&self, schema: &[CollectionSpec], clock: &dyn Clock) -> Result<Inspection> {
        let client = self.client()?;
        let database = client.database(&self.settings.name);
        // The first one may have to connect.
        let mut greeting = hello(&database).await?;
        let (mut round_trip, mut skew) = (Duration::MAX, 0);
        for _ in 0..3 {
            let (started, before) = (Instant::now(), clock.now().as_micros());
            greeting = hello(&database).await?;
            let took = started.elapsed();
            let middle = before + i64::try_from(took.as_micros() / 2).unwrap_or(0);
            if took < round_trip {
                round_trip = took;
                skew =
                    greeting.get_datetime("localTime").map_or(0, |at| at.timestamp_millis() * 1_000 - middle);
            }
        }
        let missing_permissions = permissions(&database).await?;
        let blind = missing_permissions.iter().any(|action| action.starts_with("list"));
        let drift =
            if blind { Vec::new() } else { layout::drift(&database, schema, self.settings.expire).await? };
        let build = database.run_command(doc! { "buildInfo": 1 }).await.map_err(fault)?;
        Ok(Inspection {
            version: build.get_str("version").unwrap_or("unknown").to_owned(),
            topology: topology(&greeting),
            unusable: unusable(&greeting),
            round_trip,
            clock_skew: Micros(skew.unsigned_abs()),
            server_ahead: skew > 0,
            drift,
            missing_permissions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_cannot_keep_the_promises_are_named_with_the_fix() {
        let good = doc! { "setName": "rs0", "maxWireVersion": 21, "logicalSessionTimeoutMinutes": 30 };
        assert_eq!(unusable(&good), None);
        assert_eq!(topology(&good), Topology::ReplicaSet("rs0".to_owned()));
        let routed = doc! { "msg": "isdbgrid", "maxWireVersion": 21, "logicalSessionTimeoutMinutes": 30 };
        assert_eq!((unusable(&routed), topology(&routed)), (None, Topology::Sharded));
        for (hello, word) in [
            (doc! { "maxWireVersion": 21, "logicalSessionTimeoutMinutes": 30 }, "--replSet"),
            (doc! { "setName": "rs0", "maxWireVersion": 9, "logicalSessionTimeoutMinutes": 30 }, "5.0"),
            (doc! { "setName": "rs0", "maxWireVersion": 21 }, "sessions"),
        ] {
            let reason = unusable(&hello).unwrap();
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn privileges_must_cover_the_whole_database() {
        let privilege = |resource: BsonDocument, actions: &[&str]| {
            Bson::Document(doc! { "resource": resource, "actions": actions.to_vec() })
        };
        let all: Vec<&str> = RUN.into_iter().chain(SETUP).collect();
        let whole = |db: &str| doc! { "db": db, "collection": "" };
        assert!(missing(&[privilege(whole("market"), &all)], "market").is_empty());
        assert!(missing(&[privilege(whole(""), &all)], "market").is_empty());
        assert!(missing(&[privilege(doc! { "anyResource": true }, &["anyAction"])], "market").is_empty());
        assert_eq!(missing(&[privilege(whole("other"), &all)], "market"), all);
        assert_eq!(missing(&[privilege(doc! { "db": "market", "collection": "jobs" }, &all)], "market"), all);
        let reads = [privilege(whole("market"), &["find", "listCollections", "listIndexes"])];
        assert_eq!(
            missing(&reads, "market"),
            ["insert", "update", "remove", "createCollection", "createIndex"]
        );
    }
}
