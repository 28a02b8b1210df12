//! What comes in: HTTP requests (`route`) and the background (`worker`).

pub mod route;
pub mod worker;
