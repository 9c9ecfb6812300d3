//! A plain HTTPS client of the API, for what kubectl is too slow or too kind for: many calls, and readers that stop reading.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::controller::Controller;

/// Where and how to call. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    token: Arc<str>,
    tls: tokio_rustls::TlsConnector,
}

/// One connection, on which one thing is asked at a time.
pub struct Connection {
    stream: BufReader<TlsStream<TcpStream>>,
    token: Arc<str>,
}

impl Api {
    /// The API of that controller, as its admin.
    pub async fn of(controller: &Controller) -> anyhow::Result<Self> {
        let (address, token) = (controller.address(), controller.admin_token()?.into());
        Ok(Self { address, token, tls: controller.tls().await? })
    }

    /// Connects, with that much room in the kernel for what is not read, where it is given.
    pub async fn connect(&self, unread: Option<u32>) -> anyhow::Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        if let Some(unread) = unread {
            socket.set_recv_buffer_size(unread)?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect("localhost".try_into()?, stream).await?;
        Ok(Connection { stream: BufReader::new(stream), token: Arc::clone(&self.token) })
    }
}

impl Connection {
    /// Asks, and reads the status and headers of the answer: the status, and the length of the body if it is told.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<(u16, Option<usize>)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = self.head(method, path, body.len());
        self.stream.write_all((head + &body).as_bytes()).await?;
        self.stream.flush().await?;
        let first = self.line().await?;
        let status = first.split(' ').nth(1).with_context(|| format!("no status in {first}"))?.parse()?;
        let mut length = None;
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            if line.is_empty() {
                return Ok((status, length));
            }
            if let Some(text) = line.strip_prefix("content-length: ") {
                length = Some(text.parse()?);
            }
        }
    }

    /// Announces a body of that many bytes, and sends none of it.
    pub async fn announce(&mut self, method: &str, path: &str, length: usize) -> anyhow::Result<()> {
        let head = self.head(method, path, length);
        self.stream.write_all(head.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    fn head(&self, method: &str, path: &str, length: usize) -> String {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: {media}\r\n\
             content-length: {length}\r\n\r\n",
            self.token
        )
    }

    /// Asks and reads the whole answer.
    pub async fn call(&mut self, method: &str, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let (status, length) = self.ask(method, path, body).await?;
        let mut text = Vec::new();
        if let Some(length) = length {
            text.resize(length, 0);
            self.stream.read_exact(&mut text).await?;
        } else {
            while let Some(more) = self.chunk().await? {
                text.extend(more);
            }
        }
        Ok((status, serde_json::from_slice(&text).unwrap_or_default()))
    }

    /// A part of an answer whose length is not told; `None` at its end.
    pub async fn chunk(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let size = self.line().await?;
        let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("no chunk: {size}"))?;
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).await?;
        chunk.truncate(size);
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await?;
        ensure!(read > 0, "the connection ended");
        Ok(line.trim_end().to_owned())
    }
}
