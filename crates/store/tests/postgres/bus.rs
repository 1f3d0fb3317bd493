//! What one says, all hear; and who cannot hear is told.

use sqlx::Connection;
use tokenkeep_core::ports::{Bus, Subscription};
use tokenkeep_store::{Postgres, PostgresBus, PostgresOptions};

use crate::support::Database;

async fn next(subscription: &mut Box<dyn Subscription>) -> Vec<u8> {
    subscription.next().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_hears_what_is_published_after_they_subscribed() {
    let database = Database::new().await;
    let (one, two) = (database.store().await.bus(), database.store().await.bus());
    one.publish(b"too early").await.unwrap();
    let mut mine = one.subscribe().await.unwrap();
    let mut theirs = two.subscribe().await.unwrap();
    let longest: Vec<u8> = (0..=u8::MAX).cycle().take(one.describe().max_message).collect();
    for message in [&b"first"[..], b"", &longest, b"\0\n'"] {
        one.publish(message).await.unwrap();
        assert_eq!(next(&mut mine).await, message);
        assert_eq!(next(&mut theirs).await, message);
    }
    assert!(one.publish(&[&longest[..], b"x"].concat()).await.is_err());
    // Others may use the channel for whatever they like.
    database.execute("NOTIFY tokenkeep, 'm!'; NOTIFY tokenkeep, 'else'; NOTIFY tokenkeep; NOTIFY other, 'mQUJD'").await;
    two.publish(b"last").await.unwrap();
    assert_eq!(next(&mut mine).await, b"last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_by_ceasing_to_wait() {
    let database = Database::new().await;
    let bus = database.store().await.bus();
    let mut subscription = bus.subscribe().await.unwrap();
    let mut heard = Vec::new();
    for n in 0..50_u8 {
        let message = [n];
        let mut published = bus.publish(&message);
        // Waiting begins and ends as chance has it, with messages on their way.
        loop {
            tokio::select! {
                biased;
                done = &mut published => break done.unwrap(),
                message = subscription.next() => heard.extend(message.unwrap()),
            }
        }
    }
    while heard.len() < 50 {
        heard.extend(next(&mut subscription).await);
    }
    assert_eq!(heard, (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_cut_says_so_and_another_begins() {
    let database = Database::new().await;
    let bus = database.store().await.bus();
    let mut subscription = bus.subscribe().await.unwrap();
    database
        .execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    assert!(subscription.next().await.is_err());
    assert!(subscription.next().await.is_err(), "it must not begin again by itself");
    let mut subscription = bus.subscribe().await.unwrap();
    bus.publish(b"again").await.unwrap();
    assert_eq!(next(&mut subscription).await, b"again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_one_speaks_but_listens_directly() {
    let database = Database::new().await;
    let pooled = PostgresOptions::new(database.pooled_url());
    for listen_url in [None, Some(database.pooled_url().into())] {
        let deaf = PostgresOptions { listen_url, ..pooled.clone() };
        let why = Postgres::connect(deaf).await.unwrap().bus().subscribe().await.unwrap_err();
        assert!(why.reason.contains("as listen_url") && !why.reason.contains('@'), "{why}");
    }

    let hearing = PostgresOptions { listen_url: Some(database.url().into()), ..pooled };
    let bus: PostgresBus = Postgres::connect(hearing).await.unwrap().bus();
    let mut subscription = bus.subscribe().await.unwrap();
    bus.publish(b"heard").await.unwrap();
    assert_eq!(next(&mut subscription).await, b"heard");

    // Another database's channel is another channel.
    let other = Database::new().await;
    let astray = PostgresOptions { listen_url: Some(other.url().into()), ..PostgresOptions::new(database.url()) };
    let why = Postgres::connect(astray).await.unwrap().bus().subscribe().await.unwrap_err();
    assert!(why.reason.contains(&other.name) && !why.reason.contains('@'), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_gives_its_connection_back() {
    let database = Database::new().await;
    let store = database.store().await;
    for _ in 0..3 {
        drop(store.bus().subscribe().await.unwrap());
    }
    let mut connection = database.connection().await;
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    // Each look is a question to the server, and they go when it gets to them.
    while sqlx::query_scalar::<_, i64>(listening).fetch_one(&mut connection).await.unwrap() > 0 {}
    connection.close().await.unwrap();
}
