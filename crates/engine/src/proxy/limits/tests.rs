use std::{
    num::NonZeroU32,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use futures_util::poll;
use tokenkeep_core::{
    InstanceId,
    id::Ulid,
    ports::{BoxFuture, CounterError, Limit, Taken},
};
use tokenkeep_store::{Memory, MemoryCounter};
use tokenkeep_testkit::{ManualClock, MemoryBus, SeededEntropy};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    barrier::{Barrier, RootKey},
    conditions::Conditions,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn window(per: LimitPer, count: u32, time: u64) -> ApiLimit {
    ApiLimit { per, limit: Limit::Window { count: NonZeroU32::new(count).unwrap(), per: seconds(time) } }
}

fn bucket(per: LimitPer, burst: u32, millis: u64) -> ApiLimit {
    let every = Duration::from_millis(millis);
    ApiLimit { per, limit: Limit::Bucket { burst: NonZeroU32::new(burst).unwrap(), every } }
}

fn api(limits: &[ApiLimit]) -> Api {
    Api { limits: limits.to_vec(), ..Api::default() }
}

fn id(text: &str) -> ConnectionId {
    text.parse().unwrap()
}

fn alice() -> ConnectionId {
    id("fake/acme/alice")
}

fn bob() -> ConnectionId {
    id("fake/acme/bob")
}

/// A counter that can be out of reach.
#[derive(Debug)]
struct Switchable {
    counter: MemoryCounter,
    down: AtomicBool,
    hangs: AtomicBool,
    asked: AtomicUsize,
}

impl Counter for Switchable {
    fn take<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<Taken, CounterError>> {
        self.asked.fetch_add(1, SeqCst);
        if self.hangs.load(SeqCst) {
            return Box::pin(std::future::pending());
        }
        if self.down.load(SeqCst) {
            return Box::pin(std::future::ready(Err(CounterError { reason: "cut".to_owned() })));
        }
        self.counter.take(bucket, limit)
    }

    fn give_back<'a>(&'a self, bucket: &'a str, limit: Limit) -> BoxFuture<'a, Result<(), CounterError>> {
        self.counter.give_back(bucket, limit)
    }
}

/// Instances that share a counter.
struct World {
    clock: Arc<ManualClock>,
    counter: Arc<Switchable>,
    metrics: Vec<Metrics>,
    instances: Vec<Arc<Limits>>,
}

impl World {
    fn new(instances: u32) -> Self {
        let clock = Arc::new(ManualClock::default());
        let counter = Arc::new(Switchable {
            counter: MemoryCounter::new(clock.clone()),
            down: AtomicBool::default(),
            hangs: AtomicBool::default(),
            asked: AtomicUsize::default(),
        });
        let mut world = Self { clock, counter, metrics: Vec::new(), instances: Vec::new() };
        let instance = |n: u32| InstanceId(Ulid::from_parts(1, n.into()));
        for own in 0..instances {
            let bus = Arc::new(MemoryBus::default());
            let (link, _unspoken) = bus::Link::new(Some(bus), instance(own), world.clock.clone(), Duration::ZERO);
            for other in (0..instances).filter(|other| *other != own) {
                link.peer_seen(instance(other));
            }
            world.add(Some(world.counter.clone()), link);
        }
        world
    }

    fn add(&mut self, counter: Option<Arc<dyn Counter>>, link: bus::Link) {
        let metrics = Metrics::new();
        let root = RootKey::parse("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").unwrap();
        let barrier = Barrier::new(&root, &[], Arc::new(SeededEntropy::new(1)));
        let records = Records::new(Arc::new(Memory::new()), Arc::new(barrier), self.clock.clone(), false);
        let condition = Conditions::new(&metrics).counter.clone();
        let limits = Limits::new(counter, condition, link, records, self.clock.clone(), &metrics);
        self.instances.push(Arc::new(limits));
        self.metrics.push(metrics);
    }

    fn one() -> (Self, Arc<Limits>) {
        let world = Self::new(1);
        let limits = world.instances[0].clone();
        (world, limits)
    }

    /// How many of 50 calls are let through at once, at each instance.
    async fn at_once(&self, api: &Api, id: &ConnectionId) -> Vec<usize> {
        let mut granted = vec![0; self.instances.len()];
        for _ in 0..50 {
            for (limits, granted) in self.instances.iter().zip(&mut granted) {
                *granted += usize::from(limits.enter_api(api, id, Duration::ZERO).await.is_ok());
            }
        }
        granted
    }

    fn rendered(&self) -> String {
        self.metrics.iter().map(Metrics::render).collect()
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Duration {
    match result {
        Err(error @ Error::TooMany { .. }) => error.retry_after().unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Calls that are made one after the other, and the order in which they are let through.
#[derive(Default)]
struct Calls {
    passed: Arc<Mutex<Vec<usize>>>,
    tasks: Vec<JoinHandle<Result<(), Error>>>,
}

impl Calls {
    async fn call(&mut self, limits: &Arc<Limits>, api: &Api, id: &ConnectionId) {
        let (limits, api, id, number) = (limits.clone(), api.clone(), id.clone(), self.tasks.len());
        let passed = self.passed.clone();
        self.tasks.push(tokio::spawn(async move {
            limits.enter_api(&api, &id, PATIENCE).await?;
            passed.lock().unwrap().push(number);
            Ok(())
        }));
        settle().await;
    }

    fn passed(&self) -> Vec<usize> {
        self.passed.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_limit_is_that_of_all_instances_together() {
    let world = World::new(3);
    let api = Api { latency_margin: seconds(5), ..api(&[window(LimitPer::All, 10, 60)]) };
    assert_eq!(world.at_once(&api, &alice()).await.iter().sum::<usize>(), 10);
    world.clock.advance(seconds(64));
    assert_eq!(world.at_once(&api, &bob()).await.iter().sum::<usize>(), 0, "the margin belongs to the window");
    world.clock.advance(seconds(1));
    assert_eq!(world.at_once(&api, &bob()).await.iter().sum::<usize>(), 10);
}

#[tokio::test]
async fn whoever_shares_a_limit_shares_it_and_nobody_else() {
    let (world, _) = World::one();
    for (per, others) in [(LimitPer::All, [0, 0]), (LimitPer::Tenant, [0, 3]), (LimitPer::Subject, [3, 3])] {
        let api = api(&[window(per, 3, 3600)]);
        let name = per.as_str();
        let at = |rest: &str| id(&format!("{name}/{rest}"));
        assert_eq!(world.at_once(&api, &at("acme/alice")).await, [3]);
        assert_eq!(world.at_once(&api, &at("acme/bob")).await, others[..1], "{name}");
        assert_eq!(world.at_once(&api, &at("other/alice")).await, others[1..], "{name}");
    }
    assert_eq!(world.at_once(&api(&[]), &alice()).await, [50], "no limit");
    assert_eq!(world.at_once(&api(&[window(LimitPer::All, 3, 60)]), &id("another/acme/alice")).await, [3]);
}

#[tokio::test]
async fn one_who_calls_too_often_takes_nothing_from_the_others() {
    let (world, _) = World::one();
    let api = api(&[bucket(LimitPer::All, 10, 1000), bucket(LimitPer::Subject, 2, 1000)]);
    assert_eq!(world.at_once(&api, &alice()).await, [2]);
    assert_eq!(world.at_once(&api, &bob()).await, [2]);
    for n in 0..3 {
        assert_eq!(world.at_once(&api, &id(&format!("fake/acme/{n}"))).await, [2], "{n}");
    }
    assert_eq!(world.at_once(&api, &id("fake/acme/late")).await, [0], "ten in all");
}

#[tokio::test]
async fn who_waits_is_served_in_the_order_of_asking() {
    let (world, limits) = World::one();
    let api = api(&[bucket(LimitPer::All, 1, 1000)]);
    let mut calls = Calls::default();
    for _ in 0..5 {
        calls.call(&limits, &api, &alice()).await;
    }
    assert_eq!(calls.passed(), [0]);
    for served in 1..5 {
        world.clock.advance(Duration::from_millis(999));
        settle().await;
        assert_eq!(calls.passed().len(), served);
        world.clock.advance(Duration::from_millis(1));
        settle().await;
        assert_eq!(calls.passed(), (0..=served).collect::<Vec<_>>());
    }
    assert!(world.rendered().contains("tokenkeep_api_wait_seconds_count{integration=\"fake\"} 4"));
}

#[tokio::test]
async fn who_comes_later_overtakes_nobody() {
    let (world, limits) = World::one();
    let api = api(&[bucket(LimitPer::All, 1, 1000)]);
    let mut calls = Calls::default();
    calls.call(&limits, &api, &alice()).await;
    calls.call(&limits, &api, &alice()).await;
    // Its time has come, but it does not run yet.
    world.clock.advance(seconds(1));
    let bob = bob();
    let mut late = std::pin::pin!(limits.enter_api(&api, &bob, PATIENCE));
    assert!(poll!(&mut late).is_pending());
    settle().await;
    assert_eq!(calls.passed(), [0, 1]);
    world.clock.advance(seconds(1));
    assert!(poll!(&mut late).is_ready());
}

#[tokio::test]
async fn who_would_wait_too_long_is_told_so_at_once() {
    let (world, limits) = World::one();
    let api = api(&[window(LimitPer::All, 2, 60)]);
    assert_eq!(world.at_once(&api, &alice()).await, [2]);
    world.clock.advance(seconds(49));
    assert_eq!(refused(limits.enter_api(&api, &alice(), PATIENCE).await), seconds(11));
    assert!(
        world.rendered().contains("tokenkeep_api_limit_refusals_total{integration=\"fake\",limit=\"all\"} 49"),
        "{}",
        world.rendered()
    );
    world.clock.advance(seconds(2));
    let mut calls = Calls::default();
    for _ in 0..2 {
        calls.call(&limits, &api, &alice()).await;
    }
    // Two can come through in nine seconds; a third would come with the next window.
    assert_eq!(refused(limits.enter_api(&api, &alice(), PATIENCE).await), seconds(69));
    world.clock.advance(seconds(9));
    settle().await;
    assert_eq!(calls.passed(), [0, 1]);
}

#[tokio::test]
async fn who_goes_away_waits_no_more() {
    let (world, limits) = World::one();
    let api = api(&[bucket(LimitPer::All, 1, 1000)]);
    let mut calls = Calls::default();
    for _ in 0..3 {
        calls.call(&limits, &api, &alice()).await;
    }
    calls.tasks[1].abort();
    settle().await;
    world.clock.advance(seconds(1));
    settle().await;
    assert_eq!(calls.passed(), [0, 2], "its turn is the next one's");
    calls.call(&limits, &api, &alice()).await;
    calls.tasks[3].abort();
    settle().await;
    world.clock.advance(seconds(1));
    limits.enter_api(&api, &alice(), Duration::ZERO).await.unwrap();
}

/// What a provider sees that counts in windows: nobody is late, but calls wait for one limit when they have passed
/// another.
#[tokio::test]
async fn a_wait_for_one_limit_does_not_make_too_many_of_another() {
    let world = World::new(2);
    let limit = [window(LimitPer::Subject, 3, 10), window(LimitPer::Tenant, 4, 7), bucket(LimitPer::All, 1, 900)];
    let api = api(&limit);
    let sent = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for step in 0..600 {
        if step % 2 == 0 {
            let subject = if step % 3 == 0 { alice() } else { bob() };
            let (limits, api, sent) = (world.instances[step % 4 / 2].clone(), api.clone(), sent.clone());
            let clock = world.clock.clone();
            tasks.push(tokio::spawn(async move {
                if limits.enter_api(&api, &subject, PATIENCE).await.is_ok() {
                    sent.lock().unwrap().push((clock.now().boot, subject));
                }
            }));
        }
        settle().await;
        world.clock.advance(Duration::from_millis(200));
    }
    settle().await;
    let sent = sent.lock().unwrap().clone();
    assert!(sent.len() > 40, "{}", sent.len());
    for (from, who) in &sent {
        let within = |time, whose: &ConnectionId| {
            let at = |at: Boot| at >= *from && at.since(*from) < seconds(time);
            sent.iter().filter(|(when, subject)| at(*when) && subject == whose).count()
        };
        assert!(within(10, who) <= 3, "{who}: {} in ten seconds", within(10, who));
        assert!(within(7, &alice()) + within(7, &bob()) <= 4);
    }
}

fn reply(status: u16, headers: &[(&str, &str)]) -> Response<()> {
    let build =
        headers.iter().fold(Response::builder().status(status), |reply, (name, value)| reply.header(*name, *value));
    build.body(()).unwrap()
}

fn ask(limits: &Limits, api: &Api, id: &ConnectionId, clock: &ManualClock, wait: &str) {
    let reply = reply(429, &[("retry-after", wait)]);
    let now = clock.now();
    let wait = parse_quiet(reply.status(), reply.headers(), now.wall).unwrap();
    limits.quiet.ask(api, id, now.boot, wait);
}

#[tokio::test]
async fn who_is_asked_for_quiet_is_quiet_and_nobody_else() {
    let (world, limits) = World::one();
    let api = api(&[]);
    ask(&limits, &api, &alice(), &world.clock, "30");
    ask(&limits, &api, &alice(), &world.clock, "5");
    assert_eq!(refused(limits.enter_api(&api, &alice(), PATIENCE).await), seconds(30), "the longest counts");
    limits.enter_api(&api, &bob(), Duration::ZERO).await.unwrap();
    world.clock.advance(seconds(21));
    let alice = alice();
    let mut patient = std::pin::pin!(limits.enter_api(&api, &alice, PATIENCE));
    assert!(poll!(&mut patient).is_pending());
    world.clock.advance(seconds(9));
    assert!(poll!(&mut patient).is_ready());
    assert!(limits.quiet.is_over(), "it costs nothing any more");
    assert!(world.rendered().contains("tokenkeep_api_limit_refusals_total{integration=\"fake\",limit=\"provider\"} 1"));
}

#[tokio::test]
async fn where_all_calls_count_as_one_all_are_quiet() {
    let (world, limits) = World::one();
    let api = api(&[window(LimitPer::All, 10, 60)]);
    ask(&limits, &api, &alice(), &world.clock, "30");
    assert_eq!(refused(limits.enter_api(&api, &bob(), PATIENCE).await), seconds(30));
    limits.enter_api(&api, &id("another/acme/bob"), Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn who_waits_in_line_hears_it_too() {
    let (world, limits) = World::one();
    let api = api(&[bucket(LimitPer::All, 1, 2000)]);
    let mut calls = Calls::default();
    for _ in 0..2 {
        calls.call(&limits, &api, &alice()).await;
    }
    ask(&limits, &api, &alice(), &world.clock, "5");
    world.clock.advance(seconds(2));
    settle().await;
    assert_eq!(calls.passed(), [0]);
    world.clock.advance(seconds(3));
    settle().await;
    assert_eq!(calls.passed(), [0, 1]);
}

#[tokio::test]
async fn without_the_counter_each_instance_grants_its_part() {
    let world = World::new(3);
    let api = api(&[window(LimitPer::All, 10, 60)]);
    assert_eq!(world.at_once(&api, &alice()).await.iter().sum::<usize>(), 10);
    world.counter.down.store(true, SeqCst);
    // Each has had more than its part by its own notes.
    assert_eq!(world.at_once(&api, &alice()).await, [0, 0, 0]);
    world.clock.advance(seconds(60));
    assert_eq!(world.at_once(&api, &alice()).await, [3, 3, 3]);
    assert!(world.rendered().contains("tokenkeep_part_available{part=\"counter\"} 0"));
    // What each granted meanwhile is taken from the counter before it asks for more.
    world.clock.advance(seconds(2));
    world.counter.down.store(false, SeqCst);
    assert_eq!(world.at_once(&api, &alice()).await, [1, 1, 0]);
    world.clock.advance(seconds(60));
    assert_eq!(world.at_once(&api, &alice()).await.iter().sum::<usize>(), 10);
    assert!(!world.rendered().contains("tokenkeep_part_available{part=\"counter\"} 0"));
}

#[tokio::test]
async fn an_instance_that_knows_of_no_other_grants_the_limit() {
    let mut world = World::new(0);
    let nobody = || bus::Link::new(None, InstanceId(Ulid::nil()), Arc::new(ManualClock::default()), Duration::ZERO).0;
    world.add(Some(world.counter.clone()), nobody());
    world.add(None, nobody());
    world.counter.down.store(true, SeqCst);
    let api = api(&[window(LimitPer::All, 10, 60)]);
    assert_eq!(world.at_once(&api, &alice()).await, [10, 10]);
}

#[tokio::test]
async fn a_counter_that_does_not_answer_is_not_asked_by_everybody() {
    let (world, limits) = World::one();
    let api = api(&[window(LimitPer::All, 10, 60)]);
    world.counter.hangs.store(true, SeqCst);
    let alice = alice();
    let mut first = std::pin::pin!(limits.enter_api(&api, &alice, PATIENCE));
    assert!(poll!(&mut first).is_pending());
    world.clock.advance(seconds(5));
    assert!(poll!(&mut first).is_ready());
    assert_eq!(world.counter.asked.load(SeqCst), 1);
    assert_eq!(world.at_once(&api, &alice).await, [9]);
    assert_eq!(world.counter.asked.load(SeqCst), 1, "nobody waits for it again so soon");
    world.clock.advance(seconds(1));
    world.counter.hangs.store(false, SeqCst);
    assert_eq!(world.at_once(&api, &alice).await, [0]);
    assert!(world.counter.asked.load(SeqCst) >= 11, "it was told of ten, and asked");
}
