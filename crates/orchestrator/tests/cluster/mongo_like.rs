//! A server that says of itself what a MongoDB server would in a state that the test server can't be put into. It has no
//! data: every command gets the same answer.

use std::net::SocketAddr;

use mongodb::bson::{self, Document, doc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A message with a command, and its answer.
const MESSAGE: i32 = 2013;
/// The answer to the older form, which a driver's first greeting has.
const REPLY: i32 = 1;

/// The server; ends with the test.
pub struct MongoLike {
    pub url: String,
    task: tokio::task::JoinHandle<()>,
}

impl MongoLike {
    /// A replica set whose answers have these fields too.
    pub async fn start(more: Document) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, address, more.clone()));
            }
        });
        Self { url: format!("mongodb://{address}/?directConnection=true"), task }
    }
}

impl Drop for MongoLike {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, address: SocketAddr, more: Document) -> std::io::Result<()> {
    loop {
        let (length, id) = (client.read_i32_le().await?, client.read_i32_le().await?);
        let (_, kind) = (client.read_i32_le().await?, client.read_i32_le().await?);
        let mut body = vec![0; usize::try_from(length).unwrap() - 16];
        client.read_exact(&mut body).await?;
        let mut answer = doc! {
            "ok": 1.0, "isWritablePrimary": true, "ismaster": true, "helloOk": true, "setName": "rs0",
            "hosts": [address.to_string()], "me": address.to_string(), "primary": address.to_string(),
            "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
            "localTime": bson::DateTime::now(), "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0, "maxWireVersion": 21, "version": "7.0.0",
            "cursor": { "id": 0_i64, "ns": "any.$cmd", "firstBatch": [] },
        };
        answer.extend(more.clone());
        let document = bson::serialize_to_vec(&answer).unwrap();
        let (kind, head) = match kind {
            // No flags, one section of the kind 0.
            MESSAGE => (MESSAGE, vec![0; 5]),
            // No flags, no cursor, from the start, one document.
            _ => (REPLY, [0_i32, 0, 0, 0, 1].iter().flat_map(|word| word.to_le_bytes()).collect()),
        };
        let length = i32::try_from(16 + head.len() + document.len()).unwrap();
        let mut bytes: Vec<u8> = [length, 0, id, kind].iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(head);
        bytes.extend(document);
        client.write_all(&bytes).await?;
    }
}
