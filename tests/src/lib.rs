//! Tests that cross crates: every operation against an fp64 reference, every layout against every other.
