//! The binary itself: started, asked over HTTP, stopped by signals and killed, as its users and its operators do.

mod cli;
mod data_dir;
mod harness;
mod kill;
mod restart;
mod run;
mod stock;
