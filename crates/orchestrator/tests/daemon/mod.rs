//! The real binary, as a process: started, asked over HTTP, stopped by signals, killed, and used by clients that nobody
//! here wrote.

mod cli;
mod commands;
mod crash;
mod data_dir;
mod directory;
pub(crate) mod harness;
mod kill;
mod load;
mod process;
mod restart;
mod run;
mod stock;
mod unfinished;
