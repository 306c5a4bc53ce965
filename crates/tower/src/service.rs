//! The service.

use crate::body::ResponseBody;
use crate::future::ResponseFuture;
use crate::layer::Choose;
use crate::unresolved::{OnUnresolved, RunUnset, Unresolved};
use http::{Request, Response};
use std::fmt;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;
use trace_destination_core::DestinationExt;

/// A service that runs each request in the scope of its destination; made by
/// [`DestinationLayer`](crate::DestinationLayer).
///
/// Readiness, errors and back pressure are those of the service inside. The destination is chosen in
/// `call`, so that a clone that was ready is the one that is called.
#[derive(Clone)]
pub struct DestinationService<S, P = RunUnset> {
    inner: S,
    choose: Arc<Choose>,
    policy: P,
}

impl<S, P> DestinationService<S, P> {
    pub(crate) fn new(inner: S, choose: Arc<Choose>, policy: P) -> Self {
        Self {
            inner,
            choose,
            policy,
        }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, P, A, B> Service<Request<A>> for DestinationService<S, P>
where
    S: Service<Request<A>, Response = Response<B>>,
    P: OnUnresolved<B>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let decided = match (self.choose)(&parts) {
            Ok(Some(destination)) => ControlFlow::Continue(destination),
            Ok(None) => self.policy.on_unresolved(Unresolved::Absent),
            Err(error) => self.policy.on_unresolved(Unresolved::Failed(error)),
        };
        let destination = match decided {
            ControlFlow::Continue(destination) => destination,
            ControlFlow::Break(response) => return ResponseFuture::answered(response),
        };
        let request = Request::from_parts(parts, body);
        let inner = pin!((&mut self.inner).with_destination(destination.clone()));
        let future = inner.in_scope(|mut inner| inner.call(request));
        ResponseFuture::running(future, destination)
    }
}

impl<S: fmt::Debug, P: fmt::Debug> fmt::Debug for DestinationService<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DestinationService")
            .field("inner", &self.inner)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
