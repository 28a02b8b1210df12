//! The real binary, as a process.

mod cli;
mod directory;
mod full_disk;
