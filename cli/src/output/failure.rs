//! `error: what is so`, then `hint: what to do`.

use std::fmt::Write as _;

/// A sentence about what is so, and one about what to do.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Hinted {
    what: String,
    hint: String,
    #[source]
    cause: Option<anyhow::Error>,
}

/// An error that says what to do.
pub(crate) fn hinted(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { what: what.into(), hint: hint.into(), cause: None }.into()
}

/// The same, with what lies below.
pub(crate) fn hinted_by(
    cause: impl Into<anyhow::Error>,
    what: impl Into<String>,
    hint: impl Into<String>,
) -> anyhow::Error {
    Hinted { what: what.into(), hint: hint.into(), cause: Some(cause.into()) }.into()
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
    for hint in error.chain().filter_map(|part| part.downcast_ref::<Hinted>()) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "hint: {}", hint.hint);
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
        let error = hinted_by(
            anyhow!("connection refused"),
            "the controller at https://127.0.0.1:7443 does not answer",
            "start one with `gantry dev`",
        );

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
