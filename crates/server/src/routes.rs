//! The operations of a resource, before they are put together.

use std::convert::Infallible;

use axum::{
    extract::Request,
    response::IntoResponse,
    routing::{MethodRouter, Route},
};
use tower::{Layer, Service};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::app::App;

/// Operations with their routes and what the document says of them.
///
/// They are kept apart until each is put at its whole path: a router that is nested in another one takes the path of
/// every request apart and makes a new one.
#[derive(Default)]
pub(crate) struct Routes(Vec<UtoipaMethodRouter<App>>);

impl Routes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds the operations of a path, as `routes!` has them.
    pub(crate) fn routes(mut self, operations: UtoipaMethodRouter<App>) -> Self {
        self.0.push(operations);
        self
    }

    /// Adds those of another resource.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Puts a layer around each operation. Methods that a path does not have stay outside.
    pub(crate) fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
    {
        let around = |router: MethodRouter<App>| router.route_layer(layer.clone());
        Self(self.0.into_iter().map(|(schemas, paths, router)| (schemas, paths, around(router))).collect())
    }

    /// Adds the operations to a router, each at its path behind `prefix`.
    pub(crate) fn put(self, router: OpenApiRouter<App>, prefix: &str) -> OpenApiRouter<App> {
        self.0.into_iter().fold(router, |router, (schemas, mut paths, operations)| {
            paths.paths = paths.paths.into_iter().map(|(path, item)| (format!("{prefix}{path}"), item)).collect();
            router.routes((schemas, paths, operations))
        })
    }
}
