//! Tests that cross modules: contract suites of the ports, the HTTP API, the workers, stock clients.

mod sla;
