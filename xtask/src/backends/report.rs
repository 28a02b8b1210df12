//! What `up` and `status` say: a table for people on standard error, and on standard output shell code or JSON.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use super::{install::Installed, server::Server, state::Running};

/// One server.
pub struct Row {
    /// Which.
    pub server: Server,
    /// Where it lies.
    pub installed: Installed,
    /// How it runs, if it does.
    pub running: Option<Running>,
    /// It ran before.
    pub reused: bool,
    /// How long it took to get there.
    pub took: Duration,
}

/// All servers.
pub struct Report {
    /// In the order of the table.
    pub rows: Vec<Row>,
}

impl Report {
    /// The variables for tests; those of servers that run.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables: Vec<(String, String)> = Vec::new();
        for row in &self.rows {
            let Some(running) = &row.running else { continue };
            let template = row.server.template(&row.installed);
            variables.push((row.server.variable().to_owned(), row.server.address(running.port)));
            variables.push((row.server.command_variable().to_owned(), json!(template).to_string()));
        }
        if !variables.is_empty() {
            // The root key of both emulators.
            for (name, value) in [
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_DEFAULT_REGION", "us-east-1"),
            ] {
                variables.push((name.to_owned(), value.to_owned()));
            }
        }
        variables
    }

    /// Prints it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&self, json: bool) -> Result<(), String> {
        let text = if json {
            format!("{:#}\n", self.json())
        } else {
            eprint!("{}", self.table());
            let line = |(name, value): (String, String)| format!("export {name}={}\n", quoted(&value));
            self.environment().into_iter().map(line).collect()
        };
        io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            let running = row.running.as_ref();
            json!({
                "name": row.server.name(),
                "stands_for": row.server.stands_for(),
                "version": row.installed.version,
                "running": running.is_some(),
                "address": running.map(|running| row.server.address(running.port)),
                "port": running.map(|running| running.port),
                "pid": running.map(|running| running.process.pid),
                "log": running.map(|running| &running.log),
                "kept": running.map(|running| running.keep),
                "reused": row.reused,
                "seconds": row.took.as_secs_f64(),
            })
        };
        let backends: Vec<Value> = self.rows.iter().map(row).collect();
        let environment: BTreeMap<String, String> = self.environment().into_iter().collect();
        json!({"backends": backends, "environment": environment})
    }

    fn table(&self) -> String {
        let mut lines = vec![["name", "address", "pid", "took", "version", "log"].map(str::to_owned)];
        for row in &self.rows {
            let running = row.running.as_ref();
            let or_not = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let took = match (running, row.reused) {
                (None, _) => "not running".to_owned(),
                (Some(_), true) => "running".to_owned(),
                (Some(_), false) => format!("{:.1} s", row.took.as_secs_f64()),
            };
            let log = |running: &Running| Path::display(&running.log).to_string();
            lines.push([
                row.server.name().to_owned(),
                or_not(running.map(|running| row.server.address(running.port))),
                or_not(running.map(|running| running.process.pid.to_string())),
                took,
                row.installed.version.clone(),
                or_not(running.map(log)),
            ]);
        }
        let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max();
        let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or_default()).collect();
        let line = |line: &[String; 6]| {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
            format!("{}\n", cells.collect::<String>().trim_end())
        };
        lines.iter().map(line).collect()
    }
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
