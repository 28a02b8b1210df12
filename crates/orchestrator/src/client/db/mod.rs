//! Implementations of the database port, and what they share: how a document's fields are read and compared.

pub mod memory;
mod scan;
pub mod sqlite;
mod value;
