//! The one user of a YAML crate.
//!
//! Manifests are read and written with serde-saphyr, which reads `yes` and `0777` as kubectl does and quotes what other
//! readers would misread. Configuration files of our own are read with serde_yaml.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is wrong with a document, with line and column.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct YamlError(String);

/// Most levels a manifest may nest.
pub const MAX_DEPTH: usize = 100;

/// Reads one manifest; an alias bomb, duplicate key or deeper nesting than [`MAX_DEPTH`] is an error.
pub fn read_manifest<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    serde_saphyr::from_str_with_options(text, manifest_options()).map_err(|error| YamlError(one_line(&error)))
}

/// As [`read_manifest`], but hands duplicate keys on: `T` sees each entry and decides.
pub fn read_manifest_with_duplicates<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    let mut options = manifest_options();
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::PassThrough;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| YamlError(one_line(&error)))
}

/// Reads every non-empty document of a manifest file.
pub fn read_manifests<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, YamlError> {
    serde_saphyr::from_multiple_with_options(text, manifest_options())
        .map_err(|error| YamlError(one_line(&error)))
}

/// Writes a value so that every YAML reader gets the same value back.
pub fn write<T: Serialize>(value: &T) -> Result<String, YamlError> {
    serde_saphyr::to_string(value).map_err(|error| YamlError(error.to_string()))
}

/// Reads a configuration file of ours.
pub fn read_config<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    serde_yaml::from_str(text).map_err(|error| YamlError(error.to_string()))
}

fn manifest_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_anchors: 1_000,
            max_nodes: 250_000,
        },
    }
}

fn one_line(error: &serde_saphyr::Error) -> String {
    error.to_string().lines().next().unwrap_or("invalid YAML").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn words_are_read_as_kubectl_reads_them() {
        let read: Value = read_manifest("mode: 0777\nname: web\nanswer: \"yes\"").expect("valid");

        assert_eq!(read, json!({"mode": 511, "name": "web", "answer": "yes"}));
    }

    #[test]
    fn what_is_written_reads_back_with_the_same_types() {
        let value = json!({"a": "yes", "b": "2026-01-01", "c": "0x1", "d": 1});

        assert_eq!(read_manifest::<Value>(&write(&value).expect("writes")).expect("reads"), value);
    }

    #[test]
    fn a_bomb_a_duplicate_and_a_tower_are_refused() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &(b'b'..=b'i')
                .map(|c| {
                    let (this, before) = (c as char, (c - 1) as char);
                    format!("{this}: &{this} [{}]\n", vec![format!("*{before}"); 9].join(","))
                })
                .collect::<Vec<_>>()
                .concat();
        let tower = "[".repeat(1_000) + &"]".repeat(1_000);

        assert!(read_manifest::<Value>(&bomb).is_err());
        assert!(read_manifest::<Value>("a: 1\na: 2").is_err());
        assert!(read_manifest::<Value>(&tower).is_err());
    }
}
