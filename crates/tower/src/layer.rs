//! The layer: how the destination of a request is chosen.

use crate::service::DestinationService;
use crate::unresolved::{RunUnset, Unresolved};
use http::Response;
use http::request::Parts;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use tower_layer::Layer;
use trace_destination_core::{Destination, Error, ErrorKind, Template};

pub(crate) type Choose = dyn Fn(&Parts) -> Result<Option<Destination>, Error> + Send + Sync;

/// Runs each request in the scope of its destination: the service inside, with everything that it
/// polls, and the body of the response to its end.
///
/// ```
/// use trace_destination_tower::DestinationLayer;
/// # use trace_destination_core::{Hole, MemoryLocation, Registry, TraceLocation};
/// # let registry = Registry::new()
/// #     .with_scheme("memory", |uri| {
/// #         Ok(std::sync::Arc::new(MemoryLocation::from_uri(uri)?) as std::sync::Arc<dyn TraceLocation>)
/// #     })
/// #     .with_holes("memory", MemoryLocation::holes());
///
/// #[derive(Clone)]
/// struct Tenant(String); // put into the extensions of the request by the authentication
///
/// let tenants = registry.template("memory:tenant-{tenant}")?;
/// let layer = DestinationLayer::from_template(tenants, |request| {
///     request.extensions.get::<Tenant>().map(|tenant| tenant.0.as_str())
/// })?;
/// # let _ = layer;
/// # Ok::<(), trace_destination_core::Error>(())
/// ```
///
/// Of nested layers the inner one applies, also where it finds no destination. The trace of a span
/// around both, which starts undecided, is bound by the layer that is first to be polled to a pause:
/// by the outer one, where something between the two waits.
///
/// Cloning is cheap.
#[derive(Clone)]
pub struct DestinationLayer<P = RunUnset> {
    choose: Arc<Choose>,
    policy: P,
}

impl DestinationLayer {
    /// A layer that asks a function for the destination of each request: a [`Destination`], or one
    /// in an `Option`, in a `Result`, or in both.
    ///
    /// ```
    /// use trace_destination_core::Destination;
    /// use trace_destination_tower::DestinationLayer;
    ///
    /// // An outer middleware has put it into the extensions.
    /// let layer = DestinationLayer::new(|request| request.extensions.get::<Destination>().cloned());
    /// # let _ = layer;
    /// ```
    ///
    /// The function is called once for each request, on the thread that calls the service. It should
    /// not block: look things up in a middleware around this layer. What it does, and what it panics
    /// with, happens outside the scope.
    pub fn new<D: RequestDestination>(
        choose: impl Fn(&Parts) -> D + Send + Sync + 'static,
    ) -> Self {
        Self {
            choose: Arc::new(move |request| choose(request).into_destination()),
            policy: RunUnset::default(),
        }
    }

    /// A layer that fills the one variable of a template with a name from the request: from an
    /// extension that the authentication left there. A header or a path that the client chooses is a
    /// name that the client chooses.
    ///
    /// # Errors
    /// `InvalidConfig` if the template has several variables; use [`new`](Self::new) with
    /// [`Template::destination`] there. What does not fit the template later is
    /// [`Unresolved::Failed`] of its request.
    pub fn from_template(
        template: impl Into<Template>,
        name: impl Fn(&Parts) -> Option<&str> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let template = template.into();
        let variables: Vec<String> = template.variables().map(str::to_owned).collect();
        let [variable] = <[String; 1]>::try_from(variables).map_err(|several| {
            Error::new(
                ErrorKind::InvalidConfig,
                "make layer",
                format!("`{template}` has {} variables", several.len()),
            )
            .mend("give a template with one variable, or fill it in a function with `DestinationLayer::new`")
        })?;
        Ok(Self::new(move |request| {
            name(request).map(|name| template.destination([(variable.as_str(), name)]))
        }))
    }
}

impl<P> DestinationLayer<P> {
    /// Decides about requests for which there is no destination, or an error. Without this they run
    /// in the scope of [`Destination::unset`]; see [`RunUnset`].
    ///
    /// `Continue` names the destination in whose scope the request runs all the same; `Break` is the
    /// response that the client gets at once, without a call of the service inside.
    ///
    /// ```
    /// use http::{Response, StatusCode};
    /// use std::ops::ControlFlow::{Break, Continue};
    /// use trace_destination_core::Destination;
    /// use trace_destination_tower::{DestinationLayer, Unresolved};
    ///
    /// let layer = DestinationLayer::new(|request| request.extensions.get::<Destination>().cloned())
    ///     .on_unresolved(|why| match why {
    ///         // Health checks leave no traces.
    ///         Unresolved::Absent => Continue(Destination::discard()),
    ///         _ => {
    ///             let mut response = Response::new(String::from("no such tenant\n"));
    ///             *response.status_mut() = StatusCode::FORBIDDEN;
    ///             Break(response)
    ///         }
    ///     });
    /// # let _ = layer;
    /// ```
    pub fn on_unresolved<B, Q>(self, policy: Q) -> DestinationLayer<Q>
    where
        Q: Fn(Unresolved) -> ControlFlow<Response<B>, Destination>,
    {
        DestinationLayer {
            choose: self.choose,
            policy,
        }
    }
}

impl<S, P: Clone> Layer<S> for DestinationLayer<P> {
    type Service = DestinationService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        DestinationService::new(inner, self.choose.clone(), self.policy.clone())
    }
}

impl<P: fmt::Debug> fmt::Debug for DestinationLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DestinationLayer")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// What the function of a [`DestinationLayer`] may return.
pub trait RequestDestination {
    /// The destination, if there is one.
    ///
    /// # Errors
    /// Whatever kept the function from giving one.
    fn into_destination(self) -> Result<Option<Destination>, Error>;
}

impl RequestDestination for Destination {
    fn into_destination(self) -> Result<Option<Destination>, Error> {
        Ok(Some(self))
    }
}

impl<T: RequestDestination> RequestDestination for Option<T> {
    fn into_destination(self) -> Result<Option<Destination>, Error> {
        self.map_or(Ok(None), T::into_destination)
    }
}

impl<T: RequestDestination> RequestDestination for Result<T, Error> {
    fn into_destination(self) -> Result<Option<Destination>, Error> {
        self.and_then(T::into_destination)
    }
}
