//! Names of images, checked before they become part of a request's path.

use super::DockerError;

const LONGEST: usize = 512;

/// A name for an image: `app`, `registry.example:5000/team/app:2` or `app@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl ImageReference {
    /// Takes a reference apart. The tag is `latest` where neither tag nor digest is given.
    pub fn parse(text: &str) -> Result<Self, DockerError> {
        let invalid = || DockerError::InvalidReference(format!("`{text}` is not a name an image can have"));
        if text.len() > LONGEST {
            return Err(invalid());
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) if is_digest(digest) => (name, Some(digest.to_owned())),
            Some(_) => return Err(invalid()),
            None => (text, None),
        };
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (name, None),
        };
        if !is_repository(repository) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid());
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { repository: repository.to_owned(), tag, digest })
    }

    /// `registry.example:5000/team/app`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `2`; `None` if it is named by digest alone.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The same repository at a digest; `None` if this names one already, or that is none.
    pub fn at(&self, digest: &str) -> Option<Self> {
        let is_exact = self.digest.is_some() || !is_digest(digest);
        let repository = self.repository.clone();
        (!is_exact).then(|| Self { repository, tag: None, digest: Some(digest.to_owned()) })
    }

    /// What Docker calls the version: the digest if there is one, else the tag.
    pub fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl std::fmt::Display for ImageReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// True for the full id of a container.
pub(crate) fn is_container_id(text: &str) -> bool {
    text.len() == 64 && is_lower_hex(text)
}

/// True for the full id of an image, or a digest.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && is_lower_hex(hex))
}

/// True for a name, an id or a prefix of an id that a container can have.
pub(crate) fn is_container_name(text: &str) -> bool {
    text.len() <= 253
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

pub(crate) fn is_lower_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Segments of letters, digits and separators, none of which is empty or made of dots alone, so that a reference cannot
/// climb out of the path it is put in. The first may be a host with a port.
fn is_repository(text: &str) -> bool {
    let mut segments = text.split('/');
    let (first, rest) = (segments.next().unwrap_or_default(), segments);
    let host = match first.rsplit_once(':') {
        Some((host, port)) => {
            text.contains('/')
                && !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && is_segment(host)
        }
        None => is_segment(first),
    };
    host && rest.into_iter().all(is_segment)
}

fn is_segment(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_taken_apart_as_docker_does() {
        let parse = |text: &str| ImageReference::parse(text).unwrap();

        assert_eq!(parse("app").to_string(), "app:latest");
        assert_eq!(parse("registry.example:5000/team/app").repository(), "registry.example:5000/team/app");
        assert_eq!(parse("localhost:5000/app:2").tag(), Some("2"));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(parse(&format!("app@{digest}")).version().to_owned(), digest);
        assert_eq!(parse(&format!("app:1@{digest}")).to_string(), format!("app@{digest}"));
    }

    #[test]
    fn a_reference_that_would_leave_its_path_is_refused() {
        for text in [
            "",
            "..",
            "../containers/x",
            "a/../../b",
            "a//b",
            "a/",
            "/a",
            "a?b",
            "a#b",
            "a%2fb",
            "a b",
            "app:",
            "app:a/b:",
            "app@sha256:short",
            "a:b:c",
            ":5000/a",
            "host:port/a",
        ] {
            assert!(ImageReference::parse(text).is_err(), "{text}");
        }
    }
}
