//! Every way that an allocation can go, with a provider that fails at every call.

mod fake;
mod life;
mod market;
mod world;
