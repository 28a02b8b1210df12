//! What `setup` makes for the back ends of a cluster.

mod aws;
pub mod enforced;
