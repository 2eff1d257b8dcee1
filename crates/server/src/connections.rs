//! The connections of callers: taken while there is room for them, and closed when nothing comes of them.
//!
//! Every connection takes a file of the process, of which there are few: callers who open some and say nothing, or do
//! not take what they asked for, would keep everybody else out, the database included.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use crate::{app::App, http::Front};

/// How often it is looked at a connection before it counts as idle.
const LOOKS: u32 = 4;

/// The pause after a connection could not be taken, for want of files perhaps.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections that may wait to be taken: as many as come back at once when a server starts anew, and more than the 128
/// of the standard library.
const BACKLOG: u32 = 1024;

/// Listens on an address.
///
/// # Errors
/// What the system says, when the address is taken or none of this machine.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that starts anew need not wait until the connections of the one before are forgotten. On Windows it would
    // let two have the same address.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves whoever comes until the server stops, and then until all of them have their answers. Those that are left are
/// cut off when this is dropped.
pub(crate) async fn serve(app: App, listener: TcpListener, front: Front) {
    let mut stopped = std::pin::pin!(app.stopped());
    let mut connections = JoinSet::new();
    let most = app.options.max_connections.max(1);
    let mut was_full = false;
    loop {
        let full = connections.len() >= most;
        if full && !was_full {
            tracing::warn!(target: "agentkeep::http", "{most} connections are open: others wait until one is closed");
        }
        was_full = full;
        tokio::select! {
            () = &mut stopped => break,
            Some(_) = connections.join_next() => app.connections.store(connections.len(), Relaxed),
            stream = accept(&listener), if !full => {
                connections.spawn(connection(app.clone(), front.clone(), stream));
                app.connections.store(connections.len(), Relaxed);
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection.
async fn accept(listener: &TcpListener) -> TcpStream {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Of the caller, who is gone again.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(target: "agentkeep::http", "no connection can be taken: {error}; trying again in {PAUSE:?}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn connection(app: App, front: Front, stream: TcpStream) {
    // Small answers go at once. A connection that cannot do that works all the same.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Watched { stream, activity: Arc::clone(&activity) });
    let answering = Arc::clone(&activity);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let under_way = UnderWay::new(&answering);
        let answer = front.answer(request.map(Body::new));
        async move {
            let answer = answer.await;
            drop(under_way);
            answer
        }
    });
    let builder = Builder::new(TokioExecutor::new());
    let mut served = std::pin::pin!(builder.serve_connection(io, service));
    let mut stopped = std::pin::pin!(app.stopped());
    let mut stopping = false;
    // A stream that has nothing to tell says that it lives.
    let idle = app.options.idle_timeout.max(app.options.stream_heartbeat * 2);
    let pause = (idle / LOOKS).max(Duration::from_millis(1));
    let mut looks = interval_at(Instant::now() + pause, pause);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quiet = 0;
    loop {
        tokio::select! {
            biased;
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(target: "agentkeep::http", "a connection broke off: {error}");
                }
                return;
            }
            () = &mut stopped, if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
            _ = looks.tick() => {
                quiet = if activity.is_any() { 0 } else { quiet + 1 };
                if quiet == LOOKS {
                    served.as_mut().graceful_shutdown();
                } else if quiet > LOOKS {
                    // It has not taken what is there for it.
                    return;
                }
            }
        }
    }
}

/// What happens on a connection.
#[derive(Default)]
struct Activity {
    /// Requests whose answers have not begun.
    under_way: AtomicUsize,
    /// Something was sent since the last look.
    sent: AtomicBool,
}

impl Activity {
    /// Whether anything happened since the last look, or is about to. What is received is nothing yet: whoever sends
    /// a request byte by byte would hold a connection for ever.
    fn is_any(&self) -> bool {
        self.sent.swap(false, Relaxed) || self.under_way.load(Relaxed) > 0
    }
}

/// A request whose answer has not begun.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.under_way.fetch_add(1, Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// A connection that notes when something is sent.
struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    fn noted(&self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(sent, Poll::Ready(Ok(1..))) {
            self.activity.sent.store(true, Relaxed);
        }
        sent
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.noted(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
