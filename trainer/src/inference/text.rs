//! From tokens to text as they come: whole characters, and nothing behind a stop string.

use data::tokenizer::Tokenizer;

/// The text of tokens that come one after the other.
#[derive(Debug)]
pub struct TextStream {
    stops: Vec<String>,
    /// Tokens whose bytes are not whole characters yet.
    pending: Vec<u32>,
    /// Text that could still become a stop string.
    held: String,
    stopped: bool,
}

impl TextStream {
    /// Nothing yet; empty stop strings stop nothing.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, pending: Vec::new(), held: String::new(), stopped: false }
    }

    /// The text that the token adds, for certain.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        self.pending.push(token);
        let text = tokenizer.decode(&self.pending);
        // The beginning of a character of up to four bytes.
        if text.ends_with('\u{fffd}') && self.pending.len() < 4 {
            return String::new();
        }
        self.pending.clear();
        self.add(&text)
    }

    /// What is left at the end.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> String {
        let text = tokenizer.decode(&std::mem::take(&mut self.pending));
        let mut text = self.add(&text);
        if !self.stopped {
            text.push_str(&std::mem::take(&mut self.held));
        }
        text
    }

    /// Whether a stop string has come.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    fn add(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let open = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        let at = self.held.char_indices().map(|(at, _)| at).find(|&at| open(at)).unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        std::mem::replace(&mut self.held, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(text: &str, stops: &[&str]) -> (Vec<String>, bool) {
        let tokenizer = Tokenizer::gpt2();
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stream = TextStream::new(&stops);
        let mut pieces: Vec<String> =
            tokenizer.encode(text).unwrap().into_iter().map(|t| stream.push(&tokenizer, t)).collect();
        pieces.push(stream.finish(&tokenizer));
        (pieces, stream.stopped())
    }

    #[test]
    fn characters_come_whole() {
        let text = "Größe 漢字 👩‍🚀 done";
        let (pieces, stopped) = streamed(text, &[]);
        assert_eq!(pieces.concat(), text);
        assert!(!stopped && pieces.iter().all(|piece| !piece.contains('\u{fffd}')));
    }

    #[test]
    fn nothing_comes_behind_a_stop_string() {
        let (pieces, stopped) = streamed("one two\n\nthree\n\nfour", &["\n\nt", ""]);
        assert_eq!((pieces.concat().as_str(), stopped), ("one two", true));
        let (pieces, stopped) = streamed("one two\n\nfour ab", &["\n\nt", "abc"]);
        assert_eq!((pieces.concat().as_str(), stopped), ("one two\n\nfour ab", false));
    }
}
