//! Prices that move inside their bounds: the advisor trait, the deterministic controller and the log of changes.

pub mod advisor;
pub mod service;

pub use advisor::{Advice, Controller, Learning, MarketView, PriceAdvisor};
pub use service::{PricingService, Reprice};
