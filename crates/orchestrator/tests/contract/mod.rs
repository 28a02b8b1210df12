//! Contract suites of the ports.

mod da;
mod settlement;
