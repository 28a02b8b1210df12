//! The orchestrator of a storage market: `controller → service → core ← client ← resource`. Only [`setup`] sees all of
//! it and names concrete clients.

pub mod cli;
pub mod client;
pub mod config;
pub mod controller;
pub mod core;
pub mod error;
pub mod metadata;
pub mod resource;
pub mod service;
pub mod setup;
pub mod utils;
