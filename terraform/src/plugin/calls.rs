//! The calls that come, by their paths: those of Terraform's protocol, and the one of go-plugin's that ends it all. Its
//! other services (standard output, a broker for further connections) are not for providers, and are said to be absent.

use std::{future::Future, pin::Pin, sync::Arc};

use hyper::body::Incoming;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, UnaryService},
};
use tonic_prost::ProstCodec;

use crate::{provider::Provider, wire::Nothing};

/// The largest call, in bytes: a state of thousands of attributes; Terraform itself takes no more in an answer.
const CALL_BYTES_MAX: usize = 64 << 20;

/// What answers.
#[derive(Clone)]
pub(super) struct Calls {
    /// Terraform's calls.
    pub(super) provider: Arc<Provider>,
    /// Told when it is enough.
    pub(super) ending: CancellationToken,
}

impl Calls {
    /// The answer to one call.
    pub(super) async fn answer(self, request: http::Request<Incoming>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        match path.strip_prefix("/tfplugin6.Provider/") {
            Some(method) => provide(self.provider, method, request).await,
            None if path == "/plugin.GRPCController/Shutdown" => {
                unary(request, |_: Nothing| async move {
                    self.ending.cancel();
                    Nothing {}
                })
                .await
            }
            None => absent(),
        }
    }
}

async fn provide(
    provider: Arc<Provider>,
    method: &str,
    request: http::Request<Incoming>,
) -> http::Response<Body> {
    match method {
        "GetMetadata" => unary(request, |_: Nothing| async move { provider.metadata() }).await,
        "GetProviderSchema" => unary(request, |_: Nothing| async move { provider.schemas() }).await,
        "ValidateProviderConfig" => {
            unary(request, |call| async move { provider.check_provider(&call) }).await
        }
        "ConfigureProvider" => unary(request, |call| async move { provider.configure(&call) }).await,
        "ValidateResourceConfig" => {
            unary(request, |call| async move { provider.check_resource(&call) }).await
        }
        "ValidateDataResourceConfig" => {
            unary(request, |call| async move { provider.check_data(&call) }).await
        }
        "UpgradeResourceState" => unary(request, |call| async move { provider.upgrade(call) }).await,
        "ReadResource" => unary(request, |call| async move { provider.read(call).await }).await,
        "PlanResourceChange" => unary(request, |call| async move { provider.plan(call).await }).await,
        "ApplyResourceChange" => unary(request, |call| async move { provider.apply(call).await }).await,
        "ImportResourceState" => unary(request, |call| async move { provider.import(&call) }).await,
        "ReadDataSource" => unary(request, |call| async move { provider.read_data(&call).await }).await,
        // Whatever is under way ends by itself, within the bounds of `control`.
        "StopProvider" => unary(request, |_: Nothing| async move { Nothing {} }).await,
        _ => absent(),
    }
}

fn absent() -> http::Response<Body> {
    Status::unimplemented("not a call of this provider").into_http()
}

/// One message in, one out.
async fn unary<Q, A, F, R>(request: http::Request<Incoming>, answer: F) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: FnOnce(Q) -> R,
    R: Future<Output = A> + Send + 'static,
{
    let grpc = Grpc::new(ProstCodec::<A, Q>::default()).max_decoding_message_size(CALL_BYTES_MAX);
    let mut grpc = grpc.max_encoding_message_size(CALL_BYTES_MAX);
    grpc.unary(Once(Some(answer)), request).await
}

/// A call that is answered once.
struct Once<F>(Option<F>);

impl<Q, A, F, R> UnaryService<Q> for Once<F>
where
    A: Send + 'static,
    F: FnOnce(Q) -> R,
    R: Future<Output = A> + Send + 'static,
{
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        match self.0.take() {
            Some(answer) => {
                let answer = answer(request.into_inner());
                Box::pin(async move { Ok(Response::new(answer.await)) })
            }
            None => Box::pin(std::future::ready(Err(Status::internal("answered already")))),
        }
    }
}
