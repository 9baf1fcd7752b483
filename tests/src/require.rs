//! What a test needs of the machine and may not find.

/// The thing, or `None` after a line `skipped: …` on the test's standard output.
///
/// # Panics
/// If it is missing and the environment's `MTNLG_REQUIRE`, a list with commas, names it: where it must be there, a skipped test is a failed one.
pub fn or_skip<T, E: std::fmt::Display>(name: &str, found: Result<T, E>) -> Option<T> {
    match found {
        Ok(thing) => Some(thing),
        Err(error) => {
            let required = std::env::var("MTNLG_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|what| what.trim() == name),
                "MTNLG_REQUIRE asks for {name}: {error}"
            );
            println!("skipped: {error}");
            None
        }
    }
}
