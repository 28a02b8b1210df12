//! libFuzzer over `orchestrator_fuzz_targets::bundle`.

#![no_main]

use orchestrator_fuzz as _;

libfuzzer_sys::fuzz_target!(|data: &[u8]| orchestrator_fuzz_targets::bundle(data));
