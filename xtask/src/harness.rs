//! What the standard test harness prints, counted.

/// Tests, over all test programs.
#[derive(Debug, Default, PartialEq)]
pub struct Tests {
    /// Ran and passed.
    pub passed: usize,
    /// Ran and failed.
    pub failed: usize,
    /// Ignored, or without what they need.
    pub skipped: usize,
    /// Of these, the ones that did not find what they need.
    pub lacking: usize,
    /// The different reasons that skipped tests gave.
    pub reasons: Vec<String>,
    /// Names of the failed tests.
    pub failures: Vec<String>,
}

impl Tests {
    /// Counts the lines of `cargo test -- --show-output`. A test that lacks something prints `skipped: why`, once.
    pub fn count(lines: &[String]) -> Self {
        let mut tests = Self::default();
        for line in lines {
            if let Some(rest) = line.strip_prefix("test result: ") {
                // `ok. 3 passed; 0 failed; 1 ignored; …`: the number stands before the word.
                let words: Vec<&str> = rest.split([' ', ';']).collect();
                let number = |word: &str| -> usize {
                    let pair = words.windows(2).find(|pair| pair[1] == word);
                    pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
                };
                tests.passed += number("passed");
                tests.failed += number("failed");
                tests.skipped += number("ignored");
            } else if let Some(reason) = line.strip_prefix("skipped: ") {
                tests.skipped += 1;
                tests.lacking += 1;
                if !tests.reasons.iter().any(|known| known.ends_with(reason)) {
                    tests.reasons.push(format!("skipped: {reason}"));
                }
            } else if let Some(name) =
                line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
            {
                tests.failures.push(name.to_owned());
            }
        }
        // The harness counts a test that skipped itself as passed.
        tests.passed = tests.passed.saturating_sub(tests.lacking);
        tests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let output = "\
test a::b ... ok
test a::c ... FAILED
skipped: no device
test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.00s
skipped: no device
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.01s";
        let tests = Tests::count(&output.lines().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!((tests.passed, tests.failed, tests.skipped, tests.lacking), (13, 1, 4, 2));
        assert_eq!(tests.reasons, ["skipped: no device"]);
        assert_eq!(tests.failures, ["a::c"]);
    }
}
