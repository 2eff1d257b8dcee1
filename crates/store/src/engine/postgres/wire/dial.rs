//! Reaching a server: the socket and the login.
//!
//! `tokio-postgres` logs in, with all that belongs to it (TLS, SCRAM, channel binding), on a stream that is only lent to
//! it. It is lent message by message, so that nothing behind the login is lost in a buffer of the driver's.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use postgres_protocol::message::backend::Header;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_postgres::{
    CancelToken, Config, NoTls,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::HEADER;

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Where a server listens.
#[derive(Debug, Clone)]
pub(in super::super) enum Endpoint {
    Tcp(SocketAddr),
    /// A socket file.
    File(PathBuf),
}

impl Endpoint {
    /// The addresses that a name stands for.
    pub(in super::super) async fn of_name(name: &str, port: u16) -> io::Result<Vec<Self>> {
        Ok(tokio::net::lookup_host((name, port)).await?.map(Self::Tcp).collect())
    }

    pub(in super::super) fn of_address(address: IpAddr, port: u16) -> Self {
        Self::Tcp(SocketAddr::new(address, port))
    }

    /// The socket file in a directory, named as the server names it.
    pub(in super::super) fn of_directory(directory: &std::path::Path, port: u16) -> Self {
        Self::File(directory.join(format!(".s.PGSQL.{port}")))
    }
}

/// Opens a socket with the settings of `login`.
pub(in super::super) async fn dial(endpoint: &Endpoint, login: &Config) -> io::Result<Socket> {
    let address = match endpoint {
        Endpoint::Tcp(address) => address,
        Endpoint::File(path) => return UnixStream::connect(path).await.map(Socket::File),
    };
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    #[cfg(target_os = "linux")]
    if let Some(timeout) = login.get_tcp_user_timeout() {
        socket.set_tcp_user_timeout(Some(*timeout))?;
    }
    if login.get_keepalives() {
        let mut keepalive = TcpKeepalive::new().with_time(login.get_keepalives_idle());
        if let Some(interval) = login.get_keepalives_interval() {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(retries) = login.get_keepalives_retries() {
            keepalive = keepalive.with_retries(retries);
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(Socket::Tcp(stream))
}

/// A socket that nobody has logged in on.
pub(in super::super) enum Socket {
    Tcp(TcpStream),
    File(UnixStream),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, out),
            Self::File(stream) => Pin::new(stream).poll_read(context, out),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::File(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::File(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::File(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Both directions of a connection that is logged in.
pub(in super::super) struct Halves {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

impl From<Socket> for Halves {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                Self { reader: Box::new(reader), writer: Box::new(writer) }
            }
            Socket::File(stream) => {
                let (reader, writer) = stream.into_split();
                Self { reader: Box::new(reader), writer: Box::new(writer) }
            }
        }
    }
}

type Tls = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
type TlsSocket = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// The TLS side of connections to the host of this name.
pub(in super::super) fn tls_for(
    tls: &MakeRustlsConnect,
    name: &str,
) -> Result<Tls, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error> {
    MakeTlsConnect::<Socket>::make_tls_connect(&mut tls.clone(), name)
}

/// Why nobody could be logged in.
pub(in super::super) enum Refused {
    /// What the server says, or what the driver or TLS say of it.
    Login(tokio_postgres::Error),
    /// The socket was not opened.
    Socket(io::Error),
}

/// Logs in, encrypted if `tls` is given and the server can, as `config` says; whether it is.
///
/// # Errors
/// [`Refused::Login`].
pub(in super::super) async fn login(
    socket: Socket,
    tls: Option<Tls>,
    config: &Config,
) -> Result<(Halves, CancelToken, bool), Refused> {
    let (plain, secured) = (Arc::new(Mutex::new(Some(socket))), Place::default());
    let token = match tls {
        None => log_in(config, &plain, NoTls).await?,
        Some(tls) => log_in(config, &plain, LentTls { tls, place: Arc::clone(&secured) }).await?,
    };
    let stream: Option<TlsSocket> = secured.lock().take();
    if let Some(stream) = stream {
        let (reader, writer) = tokio::io::split(stream);
        return Ok((Halves { reader: Box::new(reader), writer: Box::new(writer) }, token, true));
    }
    let socket = plain.lock().take();
    Ok((socket.map(Halves::from).ok_or_else(not_lent)?, token, false))
}

async fn log_in<T: TlsConnect<Lent<Socket>>>(
    config: &Config,
    socket: &Place<Socket>,
    tls: T,
) -> Result<CancelToken, Refused> {
    // The connection is dropped here, and with it what was lent.
    let (client, _) = config.connect_raw(Lent::new(socket), tls).await.map_err(Refused::Login)?;
    Ok(client.cancel_token())
}

fn not_lent() -> Refused {
    Refused::Socket(io::Error::other("the login has used another connection than the one it was given"))
}

/// Where a stream is while it is lent, and afterwards.
type Place<S> = Arc<Mutex<Option<S>>>;

/// A stream for as long as the login lasts. A read ends where a message ends.
struct Lent<S> {
    place: Place<S>,
    /// Something was read.
    begun: bool,
    header: [u8; HEADER],
    /// Bytes of the header that have been read.
    known: usize,
    /// Bytes of the body that have not.
    left: usize,
}

impl<S> Lent<S> {
    fn new(place: &Place<S>) -> Self {
        Self { place: Arc::clone(place), begun: false, header: [0; HEADER], known: 0, left: 0 }
    }

    /// Keeps count of what was read.
    fn count(&mut self, read: &[u8]) {
        if self.left > 0 {
            self.left -= read.len();
            return;
        }
        self.header[self.known..self.known + read.len()].copy_from_slice(read);
        self.known += read.len();
        if self.known == HEADER {
            // What is none is for the driver to refuse.
            let body = Header::parse(&self.header).ok().flatten().map_or(0, |header| header.len() + 1);
            self.left = usize::try_from(body).unwrap_or(0).saturating_sub(HEADER);
            self.known = 0;
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the login is over")
}

impl<S: AsyncRead + Unpin> AsyncRead for Lent<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Asked for a single byte to begin with: whether the server can do TLS, which is no message.
        let is_message = self.begun || out.remaining() > 1;
        let wanted = if self.left > 0 { self.left } else { HEADER - self.known };
        let wanted = wanted.min(out.remaining());
        let place = Arc::clone(&self.place);
        let mut stream = place.lock();
        let stream = stream.as_mut().ok_or_else(gone)?;
        let mut part = ReadBuf::new(out.initialize_unfilled_to(wanted));
        ready!(Pin::new(stream).poll_read(context, &mut part))?;
        self.begun = true;
        if is_message {
            self.count(part.filled());
        }
        let read = part.filled().len();
        out.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lent<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.place.lock().as_mut() {
            Some(stream) => Pin::new(stream).poll_write(context, bytes),
            None => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.place.lock().as_mut() {
            Some(stream) => Pin::new(stream).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.place.lock().as_mut() {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl TlsStream for Lent<TlsSocket> {
    fn channel_binding(&self) -> ChannelBinding {
        self.place.lock().as_ref().map_or_else(ChannelBinding::none, TlsStream::channel_binding)
    }
}

/// Makes a TLS connection and lends it.
struct LentTls {
    tls: Tls,
    place: Place<TlsSocket>,
}

impl TlsConnect<Lent<Socket>> for LentTls {
    type Stream = Lent<TlsSocket>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Stream>>;

    fn connect(self, lent: Lent<Socket>) -> Self::Future {
        Box::pin(async move {
            let socket = lent.place.lock().take().ok_or_else(gone)?;
            let stream = self.tls.connect(socket).await?;
            *self.place.lock() = Some(stream);
            Ok(Lent::new(&self.place))
        })
    }
}
