//! Build and version facts, and the versions of stored documents.
