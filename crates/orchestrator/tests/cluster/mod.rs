//! Replicas on real servers: they share one market while processes, servers and connections fail. And the commands that make,
//! look at and remove what a cluster needs.

#[cfg(feature = "redis")]
mod answers;
#[cfg(all(feature = "eventbridge", feature = "sns", feature = "redis"))]
mod aws_like;
mod changes;
#[cfg(all(feature = "eventbridge", feature = "sns", feature = "redis"))]
mod doctor;
#[cfg(all(feature = "eventbridge", feature = "sns", feature = "redis"))]
mod full;
#[cfg(all(feature = "kafka", feature = "redis"))]
mod kafka;
mod meddler;
#[cfg(all(feature = "eventbridge", feature = "sns", feature = "redis"))]
mod mongo_like;
#[cfg(all(feature = "eventbridge", feature = "sns", feature = "redis"))]
mod ready;
mod servers;
#[cfg(all(feature = "eventbridge", feature = "sns", feature = "redis"))]
mod setup;
mod survive;
#[cfg(all(feature = "eventbridge", feature = "sns", feature = "redis"))]
mod whole;
mod world;
