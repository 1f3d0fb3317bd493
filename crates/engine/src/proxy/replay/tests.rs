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
    (sender, Replay::of(OutboundBody::new(Script(receiver)), &Room::default()))
}

/// How many bytes are left in it.
fn left(room: &Room) -> usize {
    room.0.available_permits()
}

/// The allocation that a kept body has, in bytes.
fn held(replay: &Replay) -> Option<usize> {
    let Replay::Kept(tape) = replay else { panic!("a body") };
    locked(tape).kept.as_ref().map(|kept| kept.bytes.capacity())
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
    assert!(!replay.may_go_again());
    assert!(replay.again().is_none());
    assert_eq!(held(&replay), None, "and nothing of it is kept");
}

#[tokio::test]
async fn what_is_kept_holds_no_more_than_it_counts() {
    let room = Room::of(1 << 20);
    let (caller, receiver) = mpsc::unbounded_channel();
    let replay = Replay::of(OutboundBody::new(Script(receiver)), &room);
    let mut first = replay.first();
    let freed = Arc::new(());
    for _ in 0..5000 {
        // As hyper hands them out: a byte that holds the whole buffer it was read into.
        let buffer = Bytes::from_owner(Read([b'x'; 8192], freed.clone()));
        caller.send(buffer.slice(..1)).unwrap();
        next(&mut first).await.unwrap().unwrap();
    }
    assert_eq!(Arc::strong_count(&freed), 1, "none of the buffers is held");
    assert_eq!((held(&replay), left(&room)), (Some(8192), (1 << 20) - 8192));
    drop(caller);
    assert_eq!(rest(replay.again().unwrap()).await, "x".repeat(5000));
}

struct Read([u8; 8192], #[expect(dead_code, reason = "counts who is alive")] Arc<()>);

impl AsRef<[u8]> for Read {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[tokio::test]
async fn what_finds_no_room_goes_once_and_leaves_the_room_to_others() {
    let room = Room::of(10 << 10);
    let begun = |sizes: &'static [usize]| {
        let (caller, receiver) = mpsc::unbounded_channel();
        let replay = Replay::of(OutboundBody::new(Script(receiver)), &room);
        let mut first = replay.first();
        async move {
            for size in sizes {
                caller.send(vec![0; *size].into()).unwrap();
                assert_eq!(next(&mut first).await.unwrap().unwrap().len(), *size, "it goes on all the same");
            }
            (replay, first)
        }
    };
    let (small, small_first) = begun(&[1]).await;
    let (grown, _grown_first) = begun(&[4000, 100, 5000]).await;
    assert_eq!((held(&small), held(&grown), left(&room)), (Some(4096), None, 6144));
    assert!(small.may_go_again() && !grown.may_go_again());
    // The reply is there: it is not sent again, however long the rest of it takes.
    drop(small);
    assert_eq!(left(&room), 10 << 10);
    drop(small_first);
    let (_third, _third_first) = begun(&[8192]).await;
    assert_eq!(left(&room), 2048);
}

#[tokio::test]
async fn the_length_is_the_whole_body_s_however_often_it_goes() {
    let body = Full::new(Bytes::from_static(b"hello")).map_err(|never| match never {});
    let replay = Replay::of(OutboundBody::new(body), &Room::default());
    let first = replay.first();
    assert_eq!(first.size_hint().exact(), Some(5));
    assert_eq!(rest(first).await, "hello");
    let again = replay.again().unwrap();
    assert_eq!((again.size_hint().exact(), again.is_end_stream()), (Some(5), false));
    assert_eq!(rest(again).await, "hello");

    let none = Replay::of(empty_body(), &Room::default());
    assert!(none.first().is_end_stream() && none.again().unwrap().is_end_stream());
}
