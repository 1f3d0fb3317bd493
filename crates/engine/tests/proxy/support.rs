//! An engine whose provider has an API, and calls to it.

use std::{
    collections::HashSet,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use tokenkeep_core::Rotation;
use tokenkeep_engine::{
    Caller, Engine, Error, PutIntegration,
    transport::{BodyError, OutboundBody},
};
use tokenkeep_testkit::{ApiBody, FakeApi};
use tokio::sync::mpsc;

use crate::common::{TestEngine, World, alice, fake, put_fake};

/// An engine whose provider has an API.
pub(crate) struct Caught {
    pub(crate) t: TestEngine,
    pub(crate) api: FakeApi,
    /// Values of `Authorization` that the API does not take.
    pub(crate) refused: Arc<Mutex<HashSet<String>>>,
}

impl Caught {
    /// The API answers with what it was sent, if it takes the token.
    pub(crate) async fn new() -> Self {
        Self::with(Rotation::Strict).await
    }

    pub(crate) async fn with(rotation: Rotation) -> Self {
        let refused: Arc<Mutex<HashSet<String>>> = Arc::default();
        let list = refused.clone();
        let api = FakeApi::start(move |request: Request<ApiBody>| {
            let token = request.headers()["authorization"].to_str().unwrap().to_owned();
            let refused = list.lock().unwrap().contains(&token);
            async move {
                if refused {
                    return answer(401, "no good");
                }
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::new(ApiBody::from([b"you sent ", &body[..]].concat()))
            }
        })
        .await;
        let t = TestEngine::in_world(World::new(rotation).await, None).await;
        integrate(&t.engine, vec![api.host()]).await;
        Self { t, api, refused }
    }

    /// The API takes no token that it has seen so far.
    pub(crate) fn refuse_all_seen(&self) {
        let seen = self.api.asked().into_iter().filter_map(|asked| asked.header("authorization").map(str::to_owned));
        self.refused.lock().unwrap().extend(seen);
    }

    pub(crate) async fn call(&self, request: Request<OutboundBody>) -> Result<Response<OutboundBody>, Error> {
        self.t.engine.proxy().call(&Caller::Local, &alice(), request).await
    }
}

pub(crate) async fn engine(api_hosts: Vec<String>) -> TestEngine {
    let t = TestEngine::in_world(World::new(Rotation::Strict).await, None).await;
    integrate(&t.engine, api_hosts).await;
    t
}

pub(crate) async fn integrate(engine: &Engine, api_hosts: Vec<String>) {
    let put = PutIntegration { api_hosts, ..put_fake() };
    engine.integrations().put(&Caller::Local, &fake(), put).await.unwrap();
}

pub(crate) fn answer(status: u16, body: &str) -> Response<ApiBody> {
    Response::builder().status(status).body(ApiBody::from(body.to_owned())).unwrap()
}

pub(crate) fn get(target: &str) -> Request<OutboundBody> {
    send(Method::GET, target, "")
}

pub(crate) fn send(method: Method, target: &str, body: &'static str) -> Request<OutboundBody> {
    let body = OutboundBody::new(Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {}));
    Request::builder().method(method).uri(target).body(body).unwrap()
}

pub(crate) async fn text(reply: Response<OutboundBody>) -> String {
    String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

/// A body that comes when the test says so. What is left of it is known, if its length was said.
pub(crate) struct Script(pub(crate) mpsc::UnboundedReceiver<Bytes>, pub(crate) Option<u64>);

impl Body for Script {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self(script, left) = self.get_mut();
        script.poll_recv(cx).map(|data| {
            let data = data?;
            *left = left.map(|left| left - data.len() as u64);
            Some(Ok(Frame::data(data)))
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.1.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub(crate) fn script(length: Option<u64>) -> (mpsc::UnboundedSender<Bytes>, OutboundBody) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, OutboundBody::new(Script(receiver, length)))
}

pub(crate) async fn frame(body: &mut OutboundBody) -> Bytes {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
    frame.unwrap().unwrap().into_data().unwrap()
}
