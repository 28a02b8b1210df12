//! The promises of the design, each shown over the real services and the real job engine. `docs/promises.md` says which test
//! holds which promise.

mod crash;
mod disputes;
mod replicas;
mod seeded;
pub mod steps;
pub mod world;
