//! The real binary as a process of its own: killed and restarted, and used by clients that nobody here wrote.

mod client;
mod crash;
mod load;
mod process;
mod unfinished;
