//! Text to documents, tokens, .bin/.idx, sample order and blend.
