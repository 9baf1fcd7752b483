//! `ast.literal_eval`: values written as Python writes them. The Hub's RACE keeps an article's problems like this.
//!
//! Strings of both quotes with all escapes but `\N{...}`, numbers, True, False, None, lists, tuples and dictionaries with keys that are strings.
//! JSON without `true`, `false` and `null` is read as well.

use serde_json::{Map, Number, Value};

/// A literal deeper than this is refused.
const DEPTH: usize = 64;

/// The value that a literal stands for: tuples become arrays.
///
/// # Errors
/// What is wrong, with the character at which it is.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { characters: text.chars().collect(), at: 0, depth: 0 };
    let value = parser.value()?;
    parser.blanks();
    if parser.at < parser.characters.len() {
        return Err(parser.wrong("something stands behind the literal"));
    }
    Ok(value)
}

struct Parser {
    characters: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn wrong(&self, what: &str) -> String {
        format!("no Python literal: {what}, at character {}", self.at + 1)
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Whether the next character behind blanks is `c`; it is then taken.
    fn takes(&mut self, c: char) -> bool {
        self.blanks();
        let there = self.peek() == Some(c);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self) -> Result<Value, String> {
        self.blanks();
        if self.depth == DEPTH {
            return Err(self.wrong("nested too deep"));
        }
        self.depth += 1;
        let value = match self.peek() {
            Some('\'' | '"') => self.strings().map(Value::String),
            Some('[') => self.sequence(']'),
            Some('(') => self.sequence(')'),
            Some('{') => self.dictionary(),
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => self.number(),
            Some(c) if c.is_alphabetic() => self.word(),
            Some(_) => Err(self.wrong("no value begins like this")),
            None => Err(self.wrong("it ends where a value is expected")),
        };
        self.depth -= 1;
        value
    }

    fn sequence(&mut self, end: char) -> Result<Value, String> {
        self.at += 1;
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(self.value()?);
            if !self.takes(',') {
                if self.takes(end) {
                    break;
                }
                return Err(self.wrong(&format!("expected , or {end}")));
            }
        }
        Ok(Value::Array(items))
    }

    fn dictionary(&mut self) -> Result<Value, String> {
        self.at += 1;
        let mut map = Map::new();
        while !self.takes('}') {
            let Value::String(key) = self.value()? else {
                return Err(self.wrong("a key that is no string"));
            };
            if !self.takes(':') {
                return Err(self.wrong("expected : behind a key"));
            }
            map.insert(key, self.value()?);
            if !self.takes(',') {
                if self.takes('}') {
                    break;
                }
                return Err(self.wrong("expected , or }"));
            }
        }
        Ok(Value::Object(map))
    }

    fn number(&mut self) -> Result<Value, String> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || "+-._".contains(c)) {
            self.at += 1;
        }
        let text: String = self.characters[start..self.at].iter().filter(|c| **c != '_').collect();
        let whole = text.parse::<i64>().map(Number::from).ok();
        let number = whole.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64));
        number.map(Value::Number).ok_or_else(|| self.wrong("a number that cannot be read"))
    }

    fn word(&mut self) -> Result<Value, String> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.at += 1;
        }
        let word: String = self.characters[start..self.at].iter().collect();
        match word.as_str() {
            "True" => Ok(Value::Bool(true)),
            "False" => Ok(Value::Bool(false)),
            "None" => Ok(Value::Null),
            _ => Err(self.wrong(&format!("{word:?} is no literal"))),
        }
    }

    /// A string, and those that stand next to it: Python joins them.
    fn strings(&mut self) -> Result<String, String> {
        let mut text = String::new();
        while let Some(quote @ ('\'' | '"')) = self.peek() {
            self.at += 1;
            self.string(quote, &mut text)?;
            self.blanks();
        }
        Ok(text)
    }

    fn string(&mut self, quote: char, text: &mut String) -> Result<(), String> {
        loop {
            let c = self.peek().ok_or_else(|| self.wrong("a string without its end"))?;
            self.at += 1;
            match c {
                _ if c == quote => return Ok(()),
                '\n' => return Err(self.wrong("a line ends within a string")),
                '\\' => self.escape(text)?,
                _ => text.push(c),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), String> {
        let c = self.peek().ok_or_else(|| self.wrong("a string without its end"))?;
        self.at += 1;
        let plain = match c {
            '\n' => return Ok(()),
            '\\' | '\'' | '"' => c,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'x' => self.code(16, 2, 2)?,
            'u' => self.code(16, 4, 4)?,
            'U' => self.code(16, 8, 8)?,
            '0'..='7' => {
                self.at -= 1;
                self.code(8, 1, 3)?
            }
            // Python keeps what it does not know.
            other => {
                text.push('\\');
                other
            }
        };
        text.push(plain);
        Ok(())
    }

    /// A character by its number, of `least` to `most` digits.
    fn code(&mut self, radix: u32, least: usize, most: usize) -> Result<char, String> {
        let mut number = 0u32;
        let mut digits = 0;
        while let Some(digit) = self.peek().filter(|_| digits < most).and_then(|c| c.to_digit(radix)) {
            number = number * radix + digit;
            digits += 1;
            self.at += 1;
        }
        let character = char::from_u32(number).filter(|_| digits >= least);
        character.ok_or_else(|| self.wrong("an escape that is no character"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_writes() {
        let text = r#"[{'question': 'It\'s  _  .', 'answer': "A", 'options': ['x', "don't", ('é\x41\u00e9\101',)]}, -1, 2.5, True, None,]"#;
        let value = json!([
            {"question": "It's  _  .", "answer": "A", "options": ["x", "don't", ["éAéA"]]}, -1, 2.5, true, null
        ]);
        assert_eq!(parse(text).unwrap(), value);
        assert_eq!(parse(" 'a' \"b\\\nc\\q\" ").unwrap(), json!("abc\\q"));
        assert_eq!(parse("{\"a\": [1, 2]}").unwrap(), json!({"a": [1, 2]}));
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "[",
            "['a'",
            "[1 2]",
            "{'a' 1}",
            "{1: 2}",
            "'a",
            "'\\x4'",
            "'\\ud800'",
            "open('x')",
            "[1] 2",
            "-",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("at character"), "{text}: {error}");
        }
        assert!(parse(&"[".repeat(100_000)).unwrap_err().contains("too deep"));
    }
}
