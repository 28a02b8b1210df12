//! The one place that names concrete clients: config → resource → client → service → controller.
