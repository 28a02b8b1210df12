//! Implementations of the job_queue port.
