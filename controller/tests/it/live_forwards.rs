//! Connections to ports of containers, over WebSockets as kubectl and others open them.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use futures::{SinkExt as _, StreamExt as _};
use gantry_controller::auth::Caller;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::live_terminals::{pods, recorded};
use crate::world::api::Api;
use crate::world::containers::{CLOSED_PORT, Host, INSTANCES, Port};
use crate::world::people::started;

const PATIENCE: Duration = Duration::from_secs(20);
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(port: &Port, protocol: &str, query: &str) -> Result<Socket, u16> {
    let url = format!("ws://{}{INSTANCES}/nuc-01/containers/web/portforward{query}", port.address);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// The frames that come until so many streams were ended: each stream and what was said on it.
async fn ended(socket: &mut Socket, count: usize) -> Vec<(u32, String)> {
    let (mut unread, mut said, mut over) = (BytesMut::new(), Vec::<(u32, String)>::new(), 0);
    while over < count {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("more in time");
        let Some(Ok(Message::Binary(message))) = message else { continue };
        unread.extend_from_slice(&message);
        while unread.len() >= 8 {
            let length = u32::from_be_bytes([0, unread[5], unread[6], unread[7]]) as usize;
            let frame = unread.split_to(8 + length);
            // What else there is are replies.
            if frame[0] & 0x80 == 0 {
                let stream = u32::from_be_bytes(frame[..4].try_into().unwrap());
                let data = String::from_utf8(frame[8..].to_vec()).unwrap();
                match said.iter_mut().find(|(known, _)| *known == stream) {
                    Some((_, text)) => text.push_str(&data),
                    None => said.push((stream, data)),
                }
                over += usize::from(frame[4] & 1);
            }
        }
    }
    said.sort();
    said
}

/// SPDY as a client says it.
struct Spdy(Compress);

impl Spdy {
    fn new() -> Self {
        Self(Compress::new(Compression::best(), true))
    }

    fn frame(word: u32, flags: u8, body: &[u8]) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_u32(word);
        frame.put_u32(u32::from(flags) << 24 | u32::try_from(body.len()).unwrap());
        frame.extend_from_slice(body);
        frame.freeze()
    }

    fn opens(&mut self, stream: u32, kind: &str, request: &str, port: u16) -> Bytes {
        let mut plain = BytesMut::new();
        plain.put_u32(3);
        for text in ["streamtype", kind, "requestid", request, "port", &port.to_string()] {
            plain.put_u32(u32::try_from(text.len()).unwrap());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut body = Vec::with_capacity(1_024);
        body.put_u32(stream);
        body.put_slice(&[0; 6]);
        self.0.compress_vec(&plain, &mut body, FlushCompress::Sync).unwrap();
        Self::frame(0x8003_0001, 0, &body)
    }

    /// The pair of streams of one connection.
    fn connects(&mut self, first: u32, request: &str, port: u16) -> Bytes {
        let all = [
            self.opens(first, "error", request, port),
            Self::frame(first, 1, b""),
            self.opens(first + 2, "data", request, port),
        ];
        all.concat().into()
    }
}

#[tokio::test]
async fn kubectls_connections_are_pairs_of_streams_in_one_tunnel() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let mut socket = open(&port, TUNNEL, "").await.expect("it opens");
    let mut spdy = Spdy::new();
    let all = [
        spdy.connects(1, "0", 80),
        spdy.connects(5, "1", CLOSED_PORT),
        Spdy::frame(3, 0, b"hello "),
        spdy.connects(9, "2", 81),
        Spdy::frame(11, 1, b"other"),
        Spdy::frame(3, 1, b"world"),
    ];
    // As frames of WebSockets cut it.
    for piece in all.concat().chunks(50) {
        socket.send(Message::Binary(Bytes::copy_from_slice(piece))).await.unwrap();
    }

    let said = ended(&mut socket, 6).await;
    let said: Vec<(u32, &str)> = said.iter().map(|(stream, text)| (*stream, &**text)).collect();
    let refused = "port 9 of container `web` cannot be reached";
    assert_eq!(said, [(1, ""), (3, "hello world"), (5, refused), (7, ""), (9, ""), (11, "other")]);
    socket.close(None).await.unwrap();
    host.is_left_alone().await;

    let events = recorded(&host, "container_portforward", 2).await;
    let close = &events[1]["parameters"];
    assert_eq!((&close["phase"], &close["container"]), (&json!("close"), &json!("web")));
    assert_eq!((&close["bytesIn"], &close["bytesOut"]), (&json!(16), &json!(16)));
    let mut ports: Vec<_> =
        close["ports"].as_array().unwrap().iter().map(|port| port.as_u64().unwrap()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [9, 80, 81]);
}

#[tokio::test]
async fn a_reset_ends_a_connection_and_nonsense_the_tunnel() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let mut socket = open(&port, TUNNEL, "").await.expect("it opens");
    let mut spdy = Spdy::new();
    let connects = [spdy.connects(1, "0", 80), Spdy::frame(3, 0, b"x")].concat();
    socket.send(Message::Binary(connects.into())).await.unwrap();
    let is_answered =
        |message: &Message| matches!(message, Message::Binary(data) if data.last() == Some(&b'x'));
    while !is_answered(&socket.next().await.expect("it goes on").unwrap()) {}

    socket.send(Message::Binary(Spdy::frame(0x8003_0003, 0, &[0, 0, 0, 3, 0, 0, 0, 5]))).await.unwrap();
    host.is_left_alone().await;

    socket.send(Message::Binary(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"))).await.unwrap();
    let end = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(frame) = message {
                return u16::from(frame.expect("it says why").code);
            }
        }
        0
    };
    assert_eq!(tokio::time::timeout(PATIENCE, end).await.expect("it ends"), 1002);
}

#[tokio::test]
async fn kube_rs_connects_to_ports() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let mut forwarder = pods(&port).portforward("web", &[80, CLOSED_PORT]).await.unwrap();

    let refused = forwarder.take_error(CLOSED_PORT).unwrap();
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("it is told");
    assert_eq!(refused.as_deref(), Some("port 9 of container `web` cannot be reached"));
    let mut stream = forwarder.take_stream(80).unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("an answer").unwrap();
    assert_eq!(&heard, b"hello");
    drop((stream, forwarder));
    host.is_left_alone().await;
}

#[tokio::test]
async fn t08_nobody_connects_who_may_not_or_does_not_say_to_what() {
    let host = Host::of(started().await).await;
    host.api.bind("gantry-operator", "olga").await;
    let olga = host.serves(Caller::authenticated("olga", [])).await;
    let ada = host.serves(Caller::system("test")).await;

    assert_eq!(open(&olga, TUNNEL, "").await.err(), Some(403));
    assert_eq!(open(&ada, "v4.channel.k8s.io", "").await.err(), Some(400));
    assert_eq!(open(&ada, "v4.channel.k8s.io", "?ports=0").await.err(), Some(400));
    assert_eq!(open(&ada, "chat", "?ports=80").await.err(), Some(400));
    let path = format!("{INSTANCES}/nuc-01/containers/web/portforward");
    let old = host.api.call(Method::POST, &path, &[("upgrade", "SPDY/3.1")], "").await;
    assert_eq!(old.code, 400);
    assert!(old.message().contains("kubectl 1.31"), "{old:?}");
    host.api.post(INSTANCES, &json!({"metadata": {"name": "away"}, "spec": {}})).await;
    let away = host.api.call(Method::POST, &path.replace("nuc-01", "away"), &[], "").await;
    assert_eq!(away.code, 503);
}
