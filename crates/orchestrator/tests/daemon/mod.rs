//! The real binary, as a process: started, asked over HTTP, stopped by signals and killed.

mod cli;
mod commands;
mod data_dir;
mod directory;
mod harness;
mod kill;
mod restart;
mod run;
mod stock;
