//! Behind tonic, on one HTTP/2 connection.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http::uri::PathAndQuery;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::task::{Context, Poll};
use support::*;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::service::LayerExt as _;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;
use trace_destination_core::Destination;
use trace_destination_tower::{DestinationLayer, Unresolved};

/// Strings in and out, streamed in both directions: what generated code would call.
#[derive(Clone)]
struct Chat {
    stage: Stage,
    told: mpsc::UnboundedSender<()>,
}

impl NamedService for Chat {
    const NAME: &'static str = "tests.Chat";
}

impl Service<http::Request<Body>> for Chat {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let chat = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(grpc.streaming(chat, request).await)
        })
    }
}

impl tonic::server::StreamingService<String> for Chat {
    type Response = String;
    type ResponseStream = BoxStream<'static, Result<String, Status>>;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>,
    >;

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        let chat = self.clone();
        Box::pin(async move {
            let Tenant(tenant) = request.extensions().get().cloned().unwrap();
            chat.stage.span("method", &tenant);
            let end = OnDrop(chat.clone(), tenant.clone());
            let answers = request.into_inner().then(move |message| {
                let _end = &end;
                let (chat, tenant) = (chat.clone(), tenant.clone());
                async move {
                    let message = message?;
                    chat.stage.span("message", &tenant);
                    match message.as_str() {
                        "fail" => Err(Status::data_loss("as asked")),
                        "wait" => {
                            let _ = chat.told.send(());
                            std::future::pending().await
                        }
                        _ => Ok(message),
                    }
                }
            });
            Ok(Response::new(answers.boxed()))
        })
    }
}

/// Makes a span when the stream of answers is dropped, and tells the test.
struct OnDrop(Chat, String);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.stage.span("end", &self.1);
        let _ = self.0.told.send(());
    }
}

/// What authenticates in front of the layer.
#[derive(Clone)]
struct Authenticate<S>(S);

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Authenticate<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> S::Future {
        let tenant = request.headers().get("tenant").cloned();
        if let Some(tenant) = tenant.and_then(|t| t.to_str().map(str::to_owned).ok()) {
            request.extensions_mut().insert(Tenant(tenant));
        }
        self.0.call(request)
    }
}

type Refuse = fn(Unresolved) -> ControlFlow<http::Response<Body>, Destination>;

fn layer(stage: &Stage) -> DestinationLayer<Refuse> {
    DestinationLayer::from_template(stage.template(), |request| {
        request
            .extensions
            .get::<Tenant>()
            .map(|tenant| tenant.0.as_str())
    })
    .unwrap()
    .on_unresolved(refuse as Refuse)
}

fn refuse(_: Unresolved) -> ControlFlow<http::Response<Body>, Destination> {
    ControlFlow::Break(Status::permission_denied("no such tenant").into_http())
}

/// Serves until the test ends.
async fn serve(name: &str) -> (Stage, Channel, mpsc::UnboundedReceiver<()>) {
    let stage = Stage::new(name);
    let (told, hears) = mpsc::unbounded_channel();
    let chat = Chat {
        stage: stage.clone(),
        told,
    };
    let server = Server::builder()
        .layer(tower::layer::layer_fn(Authenticate))
        .layer(layer(&stage))
        .add_service(chat);
    let (incoming, address) = bind().await;
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    (stage, connect(address).await, hears)
}

async fn bind() -> (TcpIncoming, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (TcpIncoming::from(listener), address)
}

/// A channel is one connection.
async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

async fn chat(
    channel: &Channel,
    tenant: &str,
    messages: impl Stream<Item = String> + Send + 'static,
) -> Result<Streaming<String>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(messages);
    request
        .metadata_mut()
        .insert("tenant", tenant.parse().unwrap());
    let path = PathAndQuery::from_static("/tests.Chat/Talk");
    let codec = ProstCodec::<String, String>::default();
    Ok(client.streaming(request, path, codec).await?.into_inner())
}

fn messages(count: usize) -> impl Stream<Item = String> + Send + 'static {
    futures_util::stream::iter(0..count).then(|n| async move {
        tokio::task::yield_now().await;
        n.to_string()
    })
}

#[test]
fn streams_of_many_tenants_interleave_on_one_connection() {
    block_on(async {
        let (stage, channel, mut hears) = serve("tonic-many").await;
        let calls = (0..100).map(|n| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let tenant = format!("t{}", n % 20);
                let answers = chat(&channel, &tenant, messages(6)).await.unwrap();
                let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
                assert_eq!(answers, ["0", "1", "2", "3", "4", "5"]);
            })
        });
        for call in futures_util::future::join_all(calls).await {
            call.unwrap();
        }
        for _ in 0..100 {
            hears.recv().await.unwrap();
        }
        stage.flush();
        for tenant in 0..20 {
            let mut expected = vec!["end"; 5];
            expected.extend(["message"; 30]);
            expected.extend(["method"; 5]);
            assert_eq!(stage.at(&format!("t{tenant}")), expected);
        }
        assert_eq!(stage.unrouted(), 0);
    });
}

#[test]
fn statuses_in_trailers_are_passed_on() {
    block_on(async {
        let (stage, channel, mut hears) = serve("tonic-status").await;
        let asked = ["fine".to_owned(), "fail".to_owned()];
        let mut answers = chat(&channel, "a", futures_util::stream::iter(asked))
            .await
            .unwrap();
        assert_eq!(answers.message().await.unwrap().as_deref(), Some("fine"));
        let status = answers.message().await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::DataLoss, "as asked")
        );
        drop(answers);
        hears.recv().await.unwrap();
        let mut answers = chat(&channel, "b", messages(1)).await.unwrap();
        assert!(answers.message().await.unwrap().is_some());
        assert!(answers.message().await.unwrap().is_none());
        let trailers: Option<MetadataMap> = answers.trailers().await.unwrap();
        assert!(
            trailers.is_some(),
            "the end of a good call has trailers too"
        );
        hears.recv().await.unwrap();
        stage.flush();
        assert_eq!(stage.at("a"), ["end", "message", "message", "method"]);
        assert_eq!(stage.at("b"), ["end", "message", "method"]);
    });
}

#[test]
fn a_tenant_whose_name_does_not_fit_is_answered_with_a_status() {
    block_on(async {
        let (stage, channel, _hears) = serve("tonic-refused").await;
        let status = chat(&channel, "", messages(1)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(status.message(), "no such tenant");
        stage.flush();
        assert_eq!(stage.unrouted(), 0);
    });
}

#[test]
fn a_client_leaves_in_the_middle_of_a_stream() {
    block_on(async {
        let (stage, channel, mut hears) = serve("tonic-leaves").await;
        for tenant in ["a", "b"] {
            let asked = ["fine".to_owned(), "wait".to_owned()];
            let asked = futures_util::stream::iter(asked);
            let mut answers = chat(&channel, tenant, asked).await.unwrap();
            assert!(answers.message().await.unwrap().is_some());
            hears.recv().await.unwrap(); // it waits
            drop(answers);
            hears.recv().await.unwrap(); // it was dropped
        }
        stage.flush();
        for tenant in ["a", "b"] {
            assert_eq!(stage.at(tenant), ["end", "message", "message", "method"]);
        }
        assert_eq!(stage.unrouted(), 0);
    });
}

/// The layer around one service alone.
#[test]
fn one_service() {
    block_on(async {
        let stage = Stage::new("tonic-one");
        let (told, mut hears) = mpsc::unbounded_channel();
        let one = Chat {
            stage: stage.clone(),
            told,
        };
        let layers =
            tower::layer::util::Stack::new(layer(&stage), tower::layer::layer_fn(Authenticate));
        let server = Server::builder().add_service(layers.named_layer(one));
        let (incoming, address) = bind().await;
        tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        let channel = connect(address).await;
        let mut answers = chat(&channel, "a", messages(1)).await.unwrap();
        assert!(answers.message().await.unwrap().is_some());
        assert!(answers.message().await.unwrap().is_none());
        hears.recv().await.unwrap();
        stage.flush();
        assert_eq!(stage.at("a"), ["end", "message", "method"]);
        assert_eq!(stage.unrouted(), 0);
    });
}
