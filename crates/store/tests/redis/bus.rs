//! Messages between instances.

use tokenkeep_core::ports::Bus;
use tokenkeep_store::RedisBus;

use crate::help::{Servers, User};

async fn each(test: impl AsyncFn(RedisBus, User)) {
    for servers in [Servers::one(), Servers::cluster()] {
        let user = User::new(servers);
        test(RedisBus::connect(user.options()).await.unwrap(), user).await;
    }
}

#[tokio::test]
async fn everybody_who_listens_hears_what_is_published_the_publisher_too() {
    each(async |bus, user| {
        let other = RedisBus::connect(user.options()).await.unwrap();
        let mut listeners = [bus.subscribe().await.unwrap(), other.subscribe().await.unwrap()];
        let messages: [&[u8]; 3] = [b"one", b"\0\r\n\xff", b""];
        for message in messages {
            bus.publish(message).await.unwrap();
        }
        for listener in &mut listeners {
            for message in messages {
                assert_eq!(listener.next().await.unwrap(), message);
            }
        }
        let longest = vec![7; bus.describe().max_message];
        other.publish(&longest).await.unwrap();
        assert!(other.publish(&[&longest[..], b"more"].concat()).await.is_err());
        for listener in &mut listeners {
            assert_eq!(listener.next().await.unwrap(), longest);
        }
    })
    .await;
}

#[tokio::test]
async fn another_prefix_is_another_bus() {
    let (mine, theirs) = (User::new(Servers::one()), User::new(Servers::one()));
    let bus = RedisBus::connect(mine.options()).await.unwrap();
    let mut listener = bus.subscribe().await.unwrap();
    RedisBus::connect(theirs.options()).await.unwrap().publish(b"theirs").await.unwrap();
    bus.publish(b"mine").await.unwrap();
    assert_eq!(listener.next().await.unwrap(), b"mine");
}

#[tokio::test]
async fn a_lost_connection_ends_the_subscription_with_an_error() {
    each(async |bus, user| {
        let mut listener = bus.subscribe().await.unwrap();
        bus.publish(b"before").await.unwrap();
        user.lock_out();
        assert_eq!(listener.next().await.unwrap(), b"before");
        assert!(listener.next().await.is_err());
        assert!(listener.next().await.is_err(), "after an error nothing is heard any more");
        assert!(bus.subscribe().await.is_err());
        assert!(bus.publish(b"lost").await.is_err());
        user.let_in();
        let mut again = bus.subscribe().await.unwrap();
        bus.publish(b"after").await.unwrap();
        assert_eq!(again.next().await.unwrap(), b"after");
    })
    .await;
}

#[tokio::test]
async fn waiting_for_a_message_may_be_given_up() {
    let user = User::new(Servers::one());
    let bus = RedisBus::connect(user.options()).await.unwrap();
    let mut listener = bus.subscribe().await.unwrap();
    tokio::select! {
        biased;
        _ = listener.next() => panic!("nothing was published"),
        () = std::future::ready(()) => {}
    }
    bus.publish(b"one").await.unwrap();
    assert_eq!(listener.next().await.unwrap(), b"one");
}

#[tokio::test]
async fn who_falls_too_far_behind_is_told() {
    let user = User::new(Servers::one());
    let bus = RedisBus::connect(user.options()).await.unwrap();
    let mut listener = bus.subscribe().await.unwrap();
    let server = &user.servers.0[0];
    let script = "for n = 1, 5000 do redis.call('PUBLISH', ARGV[1], n) end return 1";
    server.command(&["EVAL", script, "0", &format!("{}bus", user.prefix())]).unwrap();
    let mut heard = 0;
    // The queue is filled before this is polled again, or it is not, and all are heard.
    tokio::task::yield_now().await;
    while heard < 5000 && listener.next().await.is_ok() {
        heard += 1;
    }
    assert!(heard == 5000 || listener.next().await.is_err(), "{heard} heard, and then silence");
}
