//! The HTTP API through its real router on a loopback listener.

mod access;
mod bad_input;
mod blocks;
mod credits;
mod description;
mod events;
mod evidence;
mod fakes;
mod frame;
mod harness;
mod letters;
mod life;
mod market;
mod money;
mod overload;
mod robust;
mod secrets;
mod tenants;
mod world;
