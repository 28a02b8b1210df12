//! What commands print: tables for people, JSON for programs. Errors go to standard error.

use std::io::{self, Write};

use comfy_table::{Table, TableStyle};
use serde::Serialize;

use super::{Failure, Outcome};

/// Prints a line.
///
/// # Errors
/// When standard output is closed.
pub fn line(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(closed)
}

/// Prints a value as indented JSON.
///
/// # Errors
/// When standard output is closed.
pub fn json(value: &impl Serialize) -> Outcome {
    line(&serde_json::to_string_pretty(value).map_err(|error| Failure::Failed(error.to_string()))?)
}

/// Prints a table with a head; without rows, prints `empty`.
///
/// # Errors
/// When standard output is closed.
pub fn table(head: &[&str], rows: Vec<Vec<String>>, empty: &str) -> Outcome {
    if rows.is_empty() {
        return line(empty);
    }
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(head.iter().map(|title| title.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    line(&table.trim_fmt())
}

/// Prints an error to standard error.
pub fn error(text: &str) {
    // With standard error gone too, the exit code is all that is left to say.
    let _ = writeln!(io::stderr().lock(), "error: {text}");
}

/// Prints a note on progress to standard error.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn closed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Enough,
        _ => Failure::Failed(format!("standard output: {error}")),
    }
}
