//! The job engine, step by step under a manual clock: every path of a job, two engines on one database, and a crash at
//! every commit.

mod admin;
mod changes;
mod crash;
mod damage;
mod engine;
mod feed;
mod fencing;
mod harness;
mod herd;
mod hints;
mod leader;
mod lifecycle;
mod loops;
mod redrive;
mod relay;
mod threads;
mod triggers;
