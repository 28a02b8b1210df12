//! The allocation service.
