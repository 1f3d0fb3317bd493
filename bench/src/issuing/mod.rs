//! What the issuing side answers, beside the servers that it replaces: interleaved, on the same pinned core, medians and
//! their ratios.
//!
//! What is compared is what a user of either has: an access token by client credentials, signed with the same
//! algorithm; the introspection of a token that is active, which at node-oidc-provider is an opaque one, because it
//! introspects no others; a bearer check that lets a request through. Signing alone, on the same core, says how much
//! there could be.

mod ground;
mod side;
pub mod signing;

use std::{fmt::Write as _, path::PathBuf};

use serde_json::{Map, Value, json};

use self::{
    ground::{Gateway, OidcProvider, Ours, WorkersOauthProvider},
    side::Side,
    signing::Algorithm,
};
use crate::{
    load::Shape,
    report::{Report, median},
    service::pin_to_another_core,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The scripts of `bench/peers/measured`, in or below a folder in which the packages that they import are installed.
    /// Without it the peers are left out.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The program that runs those in JavaScript: Node 22 or later.
    #[arg(long, default_value = "node")]
    node: PathBuf,
    /// The program that runs the one in Python; without it that is left out.
    #[arg(long)]
    python: Option<PathBuf>,
    /// The service's program; by default the one beside this.
    #[arg(long)]
    tokenkeep: Option<PathBuf>,
    /// The core that servers are pinned to. The client runs on another.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Only what has this in its name, for example `introspect`.
    #[arg(long)]
    only: Option<String>,
    /// How many rounds; each measures every side once. One more warms up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement lasts, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Writes the medians to this file as well.
    #[arg(long)]
    json: Option<PathBuf>,
}

const OIDC_PROVIDER: &str = "node-oidc-provider";
const GATEWAY: &str = "mcp-oauth-dynamicclient";
const WORKERS: &str = "workers-oauth-provider";
const SIGNING: &str = "bare signing";

/// What is asked of us, and who else is asked.
struct Contest {
    what: String,
    ours: Measured,
    others: Vec<Other>,
}

struct Other {
    who: &'static str,
    /// So many times as much as it does we want to do.
    goal: Option<f64>,
    /// `None` = it could not be had.
    measured: Option<Measured>,
}

struct Measured {
    side: Side,
    rates: Vec<f64>,
}

impl Measured {
    fn new(side: Side) -> Self {
        Self { side, rates: Vec::new() }
    }

    /// Measures once more, and answers what came of it.
    fn again(&mut self, shape: Shape, core: usize) -> anyhow::Result<f64> {
        let rate = self.side.measure(shape, core)?;
        self.rates.push(rate);
        Ok(rate)
    }

    /// Over all rounds but the first, which warms up.
    fn median(&mut self) -> f64 {
        median(&mut self.rates[1..])
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    pin_to_another_core(arguments.core);
    let start = |algorithm| Ours::start(arguments.tokenkeep.as_ref(), algorithm, arguments.core);
    let ours = Algorithm::ALL.map(start).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let oidc_provider = OidcProvider::start(arguments)?;
    let gateway = Gateway::start(arguments)?;
    let workers = WorkersOauthProvider::start(arguments)?;

    let mut contests = Vec::new();
    for (ours, algorithm) in ours.iter().zip(Algorithm::ALL) {
        // What is left beside the signing is ours to save; RSA leaves next to nothing of it.
        let (peer_goal, signing_goal) = match algorithm {
            Algorithm::Es256 | Algorithm::EdDsa => (Some(4.0), None),
            Algorithm::Rs256 => (None, Some(0.9)),
        };
        let peer = oidc_provider.as_ref().map(|peer| peer.token(algorithm)).transpose()?;
        contests.push(Contest {
            what: format!("POST /token, {}", algorithm.name()),
            ours: Measured::new(ours.token()),
            others: vec![
                Other::new(OIDC_PROVIDER, peer_goal, peer),
                Other::new(SIGNING, signing_goal, Some(Side::Signing(algorithm))),
            ],
        });
    }
    let [ours, ..] = ours.as_slice() else { unreachable!("one was started for each algorithm") };
    contests.push(Contest {
        what: "POST /introspect".to_owned(),
        ours: Measured::new(ours.introspect()?),
        others: vec![
            Other::new(OIDC_PROVIDER, Some(8.0), oidc_provider.as_ref().map(OidcProvider::introspect).transpose()?),
            Other::new(GATEWAY, Some(50.0), gateway.as_ref().map(Gateway::introspect).transpose()?),
        ],
    });
    contests.push(Contest {
        what: "GET /verify".to_owned(),
        ours: Measured::new(ours.verify()?),
        others: vec![
            Other::new(GATEWAY, Some(40.0), gateway.as_ref().map(Gateway::verify).transpose()?),
            Other::new(WORKERS, Some(10.0), workers.as_ref().map(WorkersOauthProvider::bearer_check).transpose()?),
        ],
    });

    contests.retain(|contest| arguments.only.as_ref().is_none_or(|only| contest.what.contains(only)));

    let shape = Shape { connections: 16, seconds: arguments.seconds, rate: None };
    for round in 0..=arguments.rounds {
        for contest in &mut contests {
            contest.measure(round, shape, arguments.core)?;
        }
    }
    judge(contests, arguments)
}

impl Contest {
    fn measure(&mut self, round: usize, shape: Shape, core: usize) -> anyhow::Result<()> {
        let mut line = format!("{}: tokenkeep {:.0}/s", self.what, self.ours.again(shape, core)?);
        for other in &mut self.others {
            if let Some(measured) = &mut other.measured {
                write!(line, ", {} {:.0}/s", other.who, measured.again(shape, core)?)?;
            }
        }
        let round = if round == 0 { "warming up".to_owned() } else { format!("round {round}") };
        println!("{round}: {line}");
        Ok(())
    }
}

impl Other {
    fn new(who: &'static str, goal: Option<f64>, side: Option<Side>) -> Self {
        Self { who, goal, measured: side.map(Measured::new) }
    }
}

fn judge(contests: Vec<Contest>, arguments: &Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    let mut figures = Map::new();
    println!("medians of {} rounds of {} s, all on core {}:", arguments.rounds, arguments.seconds, arguments.core);
    for Contest { what, mut ours, others } in contests {
        let our_rate = ours.median();
        let mut medians = Map::from_iter([("tokenkeep".to_owned(), json!(our_rate))]);
        for Other { who, goal, measured } in others {
            let promise = match goal {
                Some(goal) => format!("{what}: at least {goal} x {who}"),
                None => format!("{what}: beside {who}"),
            };
            let Some(mut measured) = measured else {
                report.leave_out(&promise, "it is not there");
                continue;
            };
            let rate = measured.median();
            let ratio = our_rate / rate;
            let seen = format!("{our_rate:.0}/s beside {rate:.0}/s: {ratio:.2}");
            match goal {
                Some(goal) => report.promise(&promise, ratio >= goal, seen),
                None => println!("        {promise}: {seen}"),
            }
            medians.insert(who.to_owned(), json!(rate));
        }
        figures.insert(what, Value::Object(medians));
    }
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_vec_pretty(&figures)?)?;
    }
    report.finish("the goals")
}
