//! What a host or a cloud must have before a client can work: plan, apply, verify.
