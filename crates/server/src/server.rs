//! A server: bound to its address, served until it is told to stop.

use std::{net::SocketAddr, time::Duration};

use agentkeep::{
    Config, Store,
    core::{Error, Result},
};
use tokio::net::TcpListener;

use crate::{
    Options, answers,
    app::{self, App},
    connections, housekeeping, openapi,
};

/// How long what is under way at the end may take.
const GRACE: Duration = Duration::from_secs(20);
/// The longest pause between two tries to reach the database.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A server that listens.
pub struct Server {
    app: App,
    listener: TcpListener,
    config: Option<Config>,
    address: SocketAddr,
}

impl Server {
    /// Takes the address, with a database that is opened by [`Server::run`]: one that is away is tried again and
    /// again, and until it is there every answer is 503.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the address cannot be taken.
    pub async fn bind(config: Config, options: Options) -> Result<Self> {
        Self::listen(options, Some(config), None).await
    }

    /// Takes the address, with a database that is open.
    ///
    /// # Errors
    /// As [`Server::bind`]; [`Error::NotPermitted`] for an address that others can reach when there is no key.
    pub async fn bind_with(store: Store, options: Options) -> Result<Self> {
        check_exposure(&store, &options).await?;
        Self::listen(options, None, Some(store)).await
    }

    async fn listen(options: Options, config: Option<Config>, store: Option<Store>) -> Result<Self> {
        let unavailable = |error: std::io::Error| Error::Unavailable {
            target: options.listen.to_string(),
            reason: format!("{error}; choose another address with --listen"),
        };
        let listener = connections::listen(options.listen).map_err(unavailable)?;
        let address = listener.local_addr().map_err(unavailable)?;
        let app = App::new(Options { listen: address, ..options });
        if let Some(store) = store {
            app.set_store(store);
        }
        Ok(Self { app, listener, config, address })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` ends, then finishes what is under way and closes the database.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for an address that others can reach when there is no key; what opening the database
    /// tells, other than that it is away.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let Self { app, listener, config, .. } = self;
        let mut serving = tokio::spawn(connections::serve(app.clone(), listener, app::service(&app)));
        let housekeeping = tokio::spawn(housekeeping::run(app.clone()));
        let tending = tokio::spawn(answers::tend(app.clone()));
        let opened = async {
            match config {
                Some(config) => open(&app, config).await,
                None => Ok(()),
            }
        };
        let outcome = tokio::select! {
            outcome = async { opened.await?; std::future::pending().await } => outcome,
            () = stop => Ok(()),
        };
        app.stop();
        let (served, ()) = tokio::join!(tokio::time::timeout(GRACE, &mut serving), app.answers.end());
        tending.abort();
        if served.is_err() {
            tracing::warn!(target: "agentkeep::http", "some requests did not end within {GRACE:?} and were cut off");
            serving.abort();
        }
        // It ends by itself; what it did not come to is done by the next server.
        let _ = tokio::time::timeout(GRACE, housekeeping).await;
        if let Ok(store) = app.store() {
            store.close().await;
        }
        outcome
    }
}

/// Opens the database, as soon as it can be reached.
async fn open(app: &App, config: Config) -> Result<()> {
    let mut pause = Duration::from_millis(100);
    loop {
        match Store::open_with(config.clone()).await {
            Ok(store) => {
                check_exposure(&store, &app.options).await?;
                app.set_store(store);
                return Ok(());
            }
            Err(error @ (Error::Unavailable { .. } | Error::Timeout { .. })) => {
                tracing::warn!(target: "agentkeep::http", "{error}; trying again in {pause:?}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Without a key only this machine is served.
async fn check_exposure(store: &Store, options: &Options) -> Result<()> {
    if options.listen.ip().is_loopback() || store.any_api_keys().await? {
        return Ok(());
    }
    Err(Error::NotPermitted(format!(
        "{} can be reached by others, and there is no key yet: make one with `agentkeep keys create --name NAME --scopes \
         admin`, or listen on 127.0.0.1",
        options.listen
    )))
}

/// The OpenAPI document of the service, as JSON text.
#[must_use]
pub fn document() -> String {
    let app = App::new(Options::default());
    openapi::text(&app::routes(&app).1)
}
