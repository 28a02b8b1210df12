//! The real binary, as a process: started, asked over HTTP, stopped by signals, killed, and used by clients that nobody
//! here wrote.

mod backup;
mod cli;
mod commands;
pub(crate) mod crash;
mod data_dir;
mod full_disk;
pub(crate) mod harness;
pub(crate) mod judge;
pub(crate) mod load;
mod overload;
mod run;
mod soak;
mod stock;
mod unfinished;
