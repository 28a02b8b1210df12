//! Replicas on real servers: they share one market while processes, servers and connections fail.

mod servers;
mod survive;
mod world;
