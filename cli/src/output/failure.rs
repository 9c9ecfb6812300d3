//! `error: what is so`, then `hint: what to do`.

use std::fmt::Write as _;

/// How a command ends, beside 0 for done and the code of what runs elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ends {
    /// It was refused, or it failed.
    #[default]
    Failed = 1,
    /// What was typed makes no sense; nothing was sent.
    Misunderstood = 2,
    /// The controller or the host cannot be reached.
    Unreachable = 3,
    /// Whoever asks is not known, or may not.
    NotAllowed = 4,
    /// There is no such thing.
    NotFound = 5,
    /// It was not so in time.
    TimedOut = 6,
}

/// A sentence about what is so, mostly one about what to do, and how the command ends with it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Hinted {
    what: String,
    hint: Option<String>,
    ends: Ends,
    answer: Option<u16>,
    #[source]
    cause: Option<anyhow::Error>,
}

impl Hinted {
    /// An error with that exit code.
    pub(crate) fn new(ends: Ends, what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, ends, answer: None, cause: None }
    }

    /// The same, with what to do.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same, with the code by which the controller refused it.
    pub(crate) fn answered(self, code: u16) -> Self {
        Self { answer: Some(code), ..self }
    }

    /// The same, with what lies below.
    pub(crate) fn cause(self, cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }
}

/// An error that says what to do.
pub(crate) fn hinted(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted::new(Ends::Failed, what).hint(hint).into()
}

/// The same, with what lies below.
pub(crate) fn hinted_by(
    cause: impl Into<anyhow::Error>,
    what: impl Into<String>,
    hint: impl Into<String>,
) -> anyhow::Error {
    Hinted::new(Ends::Failed, what).hint(hint).cause(cause).into()
}

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(|part| part.downcast_ref::<Hinted>()).map_or(Ends::Failed, |found| found.ends)
        as u8
}

/// The code by which the controller refused it, if it did.
pub(crate) fn answer(error: &anyhow::Error) -> Option<u16> {
    error.chain().find_map(|part| part.downcast_ref::<Hinted>()?.answer)
}

/// The text for a person; ends with a newline.
pub(crate) fn render(error: &anyhow::Error) -> String {
    let mut text = String::from("error: ");
    let mut said = String::new();
    for part in error.chain().map(ToString::to_string) {
        if said.ends_with(&part) {
            continue;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&part);
    }
    text.push_str(&said);
    text.push('\n');
    for hint in error.chain().filter_map(|part| part.downcast_ref::<Hinted>()?.hint.as_ref()) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn an_error_says_what_is_so_and_what_to_do() {
        let error =
            Hinted::new(Ends::Unreachable, "the controller at https://127.0.0.1:7443 does not answer")
                .hint("start one with `gantry dev`")
                .cause(anyhow!("connection refused"))
                .into();

        assert_eq!(code(&error), 3);
        assert_eq!(code(&anyhow!("of no kind of ours")), 1);
        assert_snapshot!(render(&error), @r"
        error: the controller at https://127.0.0.1:7443 does not answer: connection refused
        hint: start one with `gantry dev`
        ");
    }

    #[test]
    fn a_cause_already_quoted_is_not_said_twice() {
        let error = anyhow!("no such file").context("cannot read x: no such file");

        assert_snapshot!(render(&error), @"error: cannot read x: no such file");
    }
}
