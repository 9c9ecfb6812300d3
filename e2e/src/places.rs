//! Looking for a text wherever something was written, in every form it may have there.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;

/// What was written, and where.
#[derive(Debug, Default)]
pub struct Places(Vec<(String, Vec<u8>)>);

impl Places {
    /// Adds what was written in one place.
    pub fn add(&mut self, name: impl Into<String>, written: impl Into<Vec<u8>>) {
        self.0.push((name.into(), written.into()));
    }

    /// Adds every file below a directory.
    pub fn add_files(&mut self, dir: &Path) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                self.add_files(&path)?;
            } else {
                self.add(path.display().to_string(), std::fs::read(&path)?);
            }
        }
        Ok(())
    }

    /// Where the text is, in whichever form.
    pub fn with(&self, text: &str) -> Vec<&str> {
        let forms = forms(text);
        let has = |written: &[u8]| forms.iter().any(|form| memmem::find(written, form.as_bytes()).is_some());
        self.0.iter().filter(|(_, written)| has(written)).map(|(name, _)| name.as_str()).collect()
    }

    /// Fails where a secret is, which it does not say.
    pub fn lack(&self, what: &str, secret: &str) -> anyhow::Result<()> {
        ensure!(secret.len() >= 16, "{what} is so short that it may be found anywhere");
        let found = self.with(secret);
        ensure!(found.is_empty(), "{what} is in {found:?}");
        Ok(())
    }
}

/// The text itself, in hex, and in base64: also as a part of something longer, of which it may begin anywhere.
fn forms(text: &str) -> Vec<String> {
    let hex = hex(text);
    let mut forms = vec![hex.to_uppercase(), hex, text.to_owned()];
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let whole = engine.encode([&vec![0; before], text.as_bytes()].concat());
            // Characters that bits of the neighbours are in.
            let end = if (before + text.len()).is_multiple_of(3) { whole.len() } else { whole.len() - 1 };
            forms.push(whole[(before * 8).div_ceil(6)..end].to_owned());
        }
    }
    forms
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_every_form_and_wherever_it_begins() {
        let secret = "hunter2-hunter2-?~?~";
        for (before, after) in [("", ""), ("a", "b"), ("ab", "a"), ("abc", "ab"), ("robot:", "\n")] {
            let whole = format!("{before}{secret}{after}");
            for written in
                [STANDARD_NO_PAD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole), hex(&whole), whole.clone()]
            {
                let mut places = Places::default();
                places.add("here", written.clone());
                places.add("there", "nothing");

                assert_eq!(places.with(secret), ["here"], "{written}");
                let said = places.lack("a password", secret).expect_err("it is here").to_string();
                assert!(said.contains("here") && !said.contains("hunter2"), "{said}");
                places.lack("another one", "hunter3-hunter3-?~?~").expect("it is nowhere");
            }
        }
    }
}
