use std::{collections::VecDeque, future::poll_fn, pin::pin};

use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::mpsc;

use super::*;

/// A body that comes when the test says so.
struct Script(mpsc::UnboundedReceiver<Bytes>);

impl Body for Script {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

fn script() -> (mpsc::UnboundedSender<Bytes>, Replay) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Replay::of(OutboundBody::new(Script(receiver))))
}

async fn next(body: &mut OutboundBody) -> Option<Result<Bytes, String>> {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()).map_err(|error| error.to_string()))
}

async fn rest(mut body: OutboundBody) -> String {
    let mut text = VecDeque::new();
    while let Some(data) = next(&mut body).await {
        text.extend(data.unwrap());
    }
    String::from_utf8(text.into()).unwrap()
}

#[tokio::test]
async fn what_has_gone_goes_again_and_the_rest_follows() {
    let (caller, replay) = script();
    caller.send("one ".into()).unwrap();
    let mut first = replay.first();
    assert_eq!(next(&mut first).await, Some(Ok("one ".into())));
    assert!(pin!(next(&mut first)).now_or_never().is_none(), "it streams: nothing is waited for");

    let again = replay.again().unwrap();
    caller.send("two".into()).unwrap();
    drop(caller);
    let superseded = next(&mut first).await.unwrap();
    assert!(superseded.is_err(), "the first sending gets nothing of what is to come");
    assert_eq!(rest(again).await, "one two");
    assert_eq!(rest(replay.again().unwrap()).await, "one two", "and once more");
}

#[tokio::test]
async fn what_is_too_long_goes_once() {
    let (caller, replay) = script();
    let mut first = replay.first();
    caller.send(vec![0; KEPT].into()).unwrap();
    next(&mut first).await.unwrap().unwrap();
    assert!(replay.again().is_some(), "1 MiB is kept");

    let (caller, replay) = script();
    let mut first = replay.first();
    for size in [KEPT, 1, 7] {
        caller.send(vec![0; size].into()).unwrap();
        assert_eq!(next(&mut first).await.unwrap().unwrap().len(), size, "it goes on all the same");
    }
    assert!(replay.again().is_none());
    let Replay::Kept(tape) = &replay else { panic!("a body") };
    assert!(locked(tape).kept.is_empty(), "and nothing of it is kept");
}

#[tokio::test]
async fn the_length_is_the_whole_body_s_however_often_it_goes() {
    let body = Full::new(Bytes::from_static(b"hello")).map_err(|never| match never {});
    let replay = Replay::of(OutboundBody::new(body));
    let first = replay.first();
    assert_eq!(first.size_hint().exact(), Some(5));
    assert_eq!(rest(first).await, "hello");
    let again = replay.again().unwrap();
    assert_eq!((again.size_hint().exact(), again.is_end_stream()), (Some(5), false));
    assert_eq!(rest(again).await, "hello");

    let none = Replay::of(empty_body());
    assert!(none.first().is_end_stream() && none.again().unwrap().is_end_stream());
}
