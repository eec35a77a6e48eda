//! What of a suite is not expected to pass, and why: the files in `tests/suites`.
//!
//! A file has one test a line: how the test ends, its name, and the reason. A test
//! that is not listed must pass. A listed test that ends otherwise fails the run too,
//! so that a line goes as soon as its reason has gone.

use std::collections::BTreeMap;

use anyhow::{Context, bail};

/// How one test of a suite ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed, crashed, or took too long.
    Failed,
    /// It decided not to run.
    Skipped,
}

/// How a test is expected to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// `passes`: not listed.
    Passes,
    /// `fails`.
    Fails,
    /// `skips`: the test leaves itself out.
    Skips,
    /// `varies`: the test ends now this way, now that, for a reason that is not the broker.
    Varies,
    /// `omitted`: the test is not run.
    Omitted,
}

/// The lines of one file, by the name of the test.
#[derive(Debug, Default)]
pub struct Expectations {
    listed: BTreeMap<String, (Expectation, String)>,
}

impl Expectations {
    /// Reads the text of a file. Empty lines and lines that begin with `#` are passed over.
    pub fn parse(text: &str) -> anyhow::Result<Expectations> {
        let mut listed = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = || {
                let (word, rest) = line.split_once(char::is_whitespace)?;
                let (name, reason) = rest.trim_start().split_once(char::is_whitespace)?;
                Some((word, name, reason.trim()))
            };
            let (word, name, reason) = fields()
                .with_context(|| format!("line {number} is not an ending, a name and a reason: {line:?}"))?;
            let expectation = match word {
                "fails" => Expectation::Fails,
                "skips" => Expectation::Skips,
                "varies" => Expectation::Varies,
                "omitted" => Expectation::Omitted,
                _ => bail!("line {number}: {word:?} is none of fails, skips, varies, omitted"),
            };
            if listed
                .insert(name.to_owned(), (expectation, reason.to_owned()))
                .is_some()
            {
                bail!("line {number}: {name} is listed twice");
            }
        }
        Ok(Expectations { listed })
    }

    /// How a test is expected to end.
    pub fn of(&self, name: &str) -> Expectation {
        self.listed.get(name).map_or(Expectation::Passes, |(e, _)| *e)
    }

    /// Every way in which the outcomes are not as expected, in words. None is listed when all is well.
    pub fn compare(&self, outcomes: &BTreeMap<String, Outcome>) -> Vec<String> {
        let mut surprises = Vec::new();
        for (name, outcome) in outcomes {
            let expected = self.of(name);
            let right = match expected {
                Expectation::Passes => *outcome == Outcome::Passed,
                Expectation::Fails => *outcome == Outcome::Failed,
                Expectation::Skips => *outcome == Outcome::Skipped,
                Expectation::Varies => true,
                Expectation::Omitted => false,
            };
            if !right {
                surprises.push(format!("{name}: expected {expected:?}, was {outcome:?}"));
            }
        }
        for (name, (expected, _)) in &self.listed {
            if !matches!(expected, Expectation::Omitted | Expectation::Varies) && !outcomes.contains_key(name)
            {
                surprises.push(format!("{name}: expected {expected:?}, did not run"));
            }
        }
        surprises
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(all: &[(&str, Outcome)]) -> BTreeMap<String, Outcome> {
        all.iter().map(|(n, o)| ((*n).to_owned(), *o)).collect()
    }

    #[test]
    fn what_is_not_listed_must_pass_and_what_is_listed_must_not() {
        let text = "# why\n\nfails   a/b  no transactions yet\nskips c needs 3 brokers\nvaries d slow\n";
        let expected = Expectations::parse(text).expect("a file");
        let well = [
            ("a/b", Outcome::Failed),
            ("c", Outcome::Skipped),
            ("d", Outcome::Failed),
            ("e", Outcome::Passed),
        ];
        assert_eq!(expected.compare(&outcomes(&well)), Vec::<String>::new());
        let ill = [
            ("a/b", Outcome::Passed),
            ("d", Outcome::Passed),
            ("e", Outcome::Failed),
            ("f", Outcome::Skipped),
        ];
        assert_eq!(
            expected.compare(&outcomes(&ill)),
            [
                "a/b: expected Fails, was Passed",
                "e: expected Passes, was Failed",
                "f: expected Passes, was Skipped",
                "c: expected Skips, did not run",
            ]
        );
    }

    #[test]
    fn a_line_without_a_reason_is_refused() {
        for text in ["fails a", "broken a reason", "fails a one\nfails a two"] {
            assert!(Expectations::parse(text).is_err(), "{text:?}");
        }
    }
}
