//! One question in each server's own protocol, small enough to be written by hand.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// LocalStack loads a service when it is first asked for.
const PATIENCE: Duration = Duration::from_secs(20);

fn connect(port: u16) -> Result<TcpStream, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    let stream = stream.map_err(|error| format!("no connection to {address}: {error}"))?;
    let patience = Some(PATIENCE);
    stream
        .set_read_timeout(patience)
        .and_then(|()| stream.set_write_timeout(patience))
        .map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Sends bytes and returns the answer: as many bytes as `enough` wants to see.
fn ask(port: u16, question: &[u8], enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, String> {
    let mut stream = connect(port)?;
    stream.write_all(question).map_err(|error| error.to_string())?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while !enough(&answer) {
        let read = stream.read(&mut chunk).map_err(|error| format!("no answer: {error}"))?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    Ok(answer)
}

/// A signed-looking request; the status line of its answer.
fn aws(port: u16, key: &str, service: &str, headers: &str, body: &str) -> Result<String, String> {
    let request = format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/{service}/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={:064}\r\nX-Amz-Date: 20260101T000000Z\r\n{headers}\r\n{body}",
        body.len(),
        0
    );
    let answer = ask(port, request.as_bytes(), |answer| answer.contains(&b'\n'))?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// Lists the queues.
pub fn aws_queues(port: u16) -> Result<(), String> {
    let headers = "Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n";
    let status = aws(port, "test", "sqs", headers, "{}")?;
    if status.contains(" 200") { Ok(()) } else { Err(format!("ListQueues answers {status:?}")) }
}

/// Works for the root key, and refuses one that nobody issued.
pub fn aws_enforces(port: u16) -> Result<(), String> {
    aws_queues(port)?;
    let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
    let body = "Action=GetCallerIdentity&Version=2011-06-15";
    let status = aws(port, "AKIAIOSFODNN7EXAMPLE", "sts", headers, body)?;
    if status.contains(" 403") { Ok(()) } else { Err(format!("an unknown key is answered {status:?}")) }
}

/// `hello`: a primary.
pub fn mongodb(port: u16) -> Result<(), String> {
    let mut document = Vec::new();
    document.extend_from_slice(b"\x10hello\0\x01\0\0\0");
    document.extend_from_slice(b"\x02$db\0\x06\0\0\0admin\0");
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or_default().to_le_bytes();
    // OP_MSG: length, request id, answer to, opcode, flags, one section of kind 0.
    let mut message = size(16 + 5 + 4 + document.len() + 1).to_vec();
    message.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(&2013_u32.to_le_bytes());
    message.extend_from_slice(&[0; 5]);
    message.extend_from_slice(&size(4 + document.len() + 1));
    message.extend_from_slice(&document);
    message.push(0);
    let whole = |answer: &[u8]| {
        answer.first_chunk().is_some_and(|length| answer.len() >= u32::from_le_bytes(*length) as usize)
    };
    let answer = ask(port, &message, whole)?;
    let primary = b"isWritablePrimary\0\x01";
    if answer.windows(primary.len()).any(|window| window == primary) {
        Ok(())
    } else {
        Err("`hello` doesn't answer as a primary".to_owned())
    }
}

/// `PING`.
pub fn redis(port: u16) -> Result<(), String> {
    let answer = ask(port, b"PING\r\n", |answer| answer.ends_with(b"\n"))?;
    if answer == b"+PONG\r\n" { Ok(()) } else { Err(format!("PING answers {answer:?}")) }
}

/// `ApiVersions`: no error, and some versions.
pub fn kafka(port: u16) -> Result<(), String> {
    // Length, key 18, version 0, correlation id 7, client id "xtask".
    let question = b"\0\0\0\x0f\0\x12\0\0\0\0\0\x07\0\x05xtask";
    let whole = |answer: &[u8]| {
        answer.first_chunk().is_some_and(|length| answer.len() >= u32::from_be_bytes(*length) as usize + 4)
    };
    let answer = ask(port, question, whole)?;
    // Length, correlation id, error code, count.
    match answer.get(4..14) {
        Some([0, 0, 0, 7, 0, 0, a, b, c, d]) if [a, b, c, d] != [&0; 4] => Ok(()),
        _ => Err("ApiVersions is not answered".to_owned()),
    }
}
