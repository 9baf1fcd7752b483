//! A digest of everything that a run has learnt: equal for two runs if, and but for a collision of BLAKE3 only if, every parameter and moment has the same
//! bits.

use super::HostState;

/// BLAKE3 over each tensor's name and the little-endian bits of its values and moments, by name, in hexadecimal.
pub fn of(state: &HostState) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, tensors) in state {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        for tensor in tensors {
            hasher.update(&(tensor.len() as u64).to_le_bytes());
            for value in tensor {
                hasher.update(&value.to_bits().to_le_bytes());
            }
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_and_every_name_counts() {
        let state =
            |name: &str, m: f32| HostState::from([(name.to_owned(), [vec![1.0], vec![m], vec![2.0]])]);
        let digest = of(&state("a", 0.0));
        assert_eq!(digest, of(&state("a", 0.0)));
        assert_ne!(digest, of(&state("a", -0.0)));
        assert_ne!(digest, of(&state("b", 0.0)));
    }
}
