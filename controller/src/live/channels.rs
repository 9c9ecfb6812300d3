//! The channels that Kubernetes puts into one WebSocket: the first byte of a message says which.

use bytes::{BufMut as _, Bytes, BytesMut};
use gantry_api::agent_v1::TerminalSize;
use serde::Deserialize;
use serde_json::json;

use crate::apiserver::failure::Failure;

/// What is spoken, the newest first.
pub(super) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Largest message of a client: kubectl sends 32 KiB and the byte before it.
pub(super) const LARGEST: usize = (32 << 10) + 1;

const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Ours alone, and only with who asks for it: what it takes to come back.
const SESSION: u8 = 5;
const CLOSE: u8 = 255;

/// What a client says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Stdin(Bytes),
    StdinEnd,
    Resize(TerminalSize),
    /// That it was here before.
    Return(Wanted),
    /// What means nothing, or nothing here.
    Nothing,
}

/// Where somebody wants to come back to.
#[derive(PartialEq, Deserialize)]
pub(super) struct Wanted {
    pub token: String,
    /// Bytes of output that it has seen.
    pub output: Option<u64>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Wanted").field("output", &self.output).finish_non_exhaustive()
    }
}

/// Reads a message; only the fifth version can close a channel.
pub(super) fn said(message: &Bytes, is_v5: bool) -> Said {
    #[derive(Deserialize)]
    struct Size {
        #[serde(alias = "Width")]
        width: u16,
        #[serde(alias = "Height")]
        height: u16,
    }
    match message.split_first() {
        Some((&STDIN, [_, ..])) => Said::Stdin(message.slice(1..)),
        Some((&RESIZE, size)) => match serde_json::from_slice::<Size>(size) {
            Ok(Size { width, height }) => {
                Said::Resize(TerminalSize { width: width.into(), height: height.into() })
            }
            Err(_) => Said::Nothing,
        },
        Some((&SESSION, wanted)) => serde_json::from_slice(wanted).map_or(Said::Nothing, Said::Return),
        Some((&CLOSE, [STDIN, ..])) if is_v5 => Said::StdinEnd,
        _ => Said::Nothing,
    }
}

/// A message on a channel.
pub(super) fn message(channel: u8, data: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(channel);
    message.extend_from_slice(data);
    message.freeze()
}

/// What it takes to come back, how much input was taken, and where the output that follows begins.
pub(super) fn session(token: Option<&str>, input: u64, output: u64) -> Bytes {
    let mut session = json!({"input": input, "output": output});
    if let (Some(token), Some(fields)) = (token, session.as_object_mut()) {
        fields.insert("token".to_owned(), token.into());
    }
    message(SESSION, session.to_string().as_bytes())
}

/// That all is well, or that the process has exited with another code than 0.
pub(super) fn exited(code: Option<i32>) -> Bytes {
    let status = match code {
        None | Some(0) => json!({"metadata": {}, "status": "Success"}),
        Some(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
    };
    message(ERROR, status.to_string().as_bytes())
}

/// Why it did not come to an exit code.
pub(super) fn failed(failure: &Failure) -> Bytes {
    let mut status = json!(failure.status());
    if let Some(fields) = status.as_object_mut() {
        fields.insert("kind".to_owned(), "Status".into());
        fields.insert("apiVersion".to_owned(), "v1".into());
    }
    message(ERROR, status.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_kubectl_and_browsers_send_them() {
        let read = |bytes: &'static [u8]| said(&Bytes::from_static(bytes), true);

        assert_eq!(read(b"\0ls\n"), Said::Stdin(Bytes::from_static(b"ls\n")));
        let size = TerminalSize { width: 80, height: 24 };
        assert_eq!(read(b"\x04{\"Width\":80,\"Height\":24}"), Said::Resize(size));
        assert_eq!(read(b"\x04{\"width\":80,\"height\":24}\n"), Said::Resize(size));
        assert_eq!(read(b"\xff\0"), Said::StdinEnd);
        let wanted = |output| Said::Return(Wanted { token: "t".to_owned(), output });
        assert_eq!(read(b"\x05{\"token\":\"t\",\"output\":7}"), wanted(Some(7)));
        assert_eq!(read(b"\x05{\"token\":\"t\"}"), wanted(None));
        for nothing in [
            &b""[..],
            b"\0",
            b"\x01out",
            b"\x04{}",
            b"\x04x",
            b"\x04{\"Width\":-1,\"Height\":1}",
            b"\xff\x01",
            b"\xff",
            b"\x05",
            b"\x05{}",
            b"\x05{\"token\":\"t\",\"output\":-1}",
        ] {
            assert_eq!(read(nothing), Said::Nothing, "{nothing:?}");
        }
        assert_eq!(said(&Bytes::from_static(b"\xff\0"), false), Said::Nothing);
    }

    #[test]
    fn t28_a_token_is_said_to_whose_it_is_and_shown_to_nobody() {
        let told = session(Some("secret"), 3, 0);
        assert_eq!(told, message(5, br#"{"input":3,"output":0,"token":"secret"}"#));
        assert_eq!(session(None, 3, 9), message(5, br#"{"input":3,"output":9}"#));
        let back = said(&Bytes::from_static(b"\x05{\"token\":\"secret\"}"), true);
        assert!(!format!("{back:?}").contains("secret"));
    }

    #[test]
    fn an_exit_code_is_told_as_kubectl_reads_it() {
        assert_eq!(exited(Some(0)), message(3, br#"{"metadata":{},"status":"Success"}"#));
        let failed = exited(Some(7));
        let status: serde_json::Value = serde_json::from_slice(&failed[1..]).expect("JSON");
        assert_eq!((failed[0], &status["reason"]), (3, &json!("NonZeroExitCode")));
        assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "7"}]));
    }
}
