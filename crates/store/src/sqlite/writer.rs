//! The one task that writes: what queues up while the disk is busy shares the next transaction.

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokenkeep_core::ports::{BoxFuture, StoreError};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::error::{code, primary_code, store_error};

/// How many operations may share a transaction. Past some dozens the wait for the disk no longer counts.
const BATCH: usize = 128;

/// One thing to do within a transaction.
pub(super) trait Operation: Send + Sync + 'static {
    /// What it gives, provided the transaction is committed.
    type Done: Send;
    /// Does it.
    fn run(&self, transaction: &mut SqliteConnection) -> impl Future<Output = Result<Self::Done, sqlx::Error>> + Send;
}

/// Why an operation has not been done, as far as one can tell.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// It surely has not.
    NothingDone(StoreError),
    /// It may have.
    InDoubt(StoreError),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NothingDone(error) | Failure::InDoubt(error) => error,
        }
    }
}

/// The way to the task. It ends, all done, when this is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts the task with `connection`, to be replaced by one with the same `options` when it fails.
    pub(super) fn start(connection: SqliteConnection, options: SqliteConnectOptions) -> Self {
        let (queue, jobs) = mpsc::channel(2 * BATCH);
        let task = tokio::spawn(Task { connection: Some(connection), options }.serve(jobs));
        Self { queue, task }
    }

    /// Ends the task, when all that is queued is done.
    pub(super) async fn close(self) {
        drop(self.queue);
        if let Err(error) = self.task.await {
            tracing::error!(error = %error, "the writing task had ended before its time");
        }
    }

    /// Does `operation`, and answers when it is committed. Once queued it will be done, whether or not anybody waits.
    pub(super) async fn run<O: Operation>(&self, operation: O) -> Result<O::Done, Failure> {
        let ended = || StoreError::Unavailable { reason: "the writing task has ended".into(), retry_after: None };
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Queued { operation, done: None, reply });
        self.queue.send(job).await.map_err(|_| Failure::NothingDone(ended()))?;
        answer.await.unwrap_or_else(|_| Err(Failure::InDoubt(ended())))
    }
}

/// An [`Operation`] in the queue.
trait Job: Send {
    fn run<'a>(&'a mut self, transaction: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), sqlx::Error>>;
    fn answer(self: Box<Self>, ended: Result<(), Failure>);
}

struct Queued<O: Operation> {
    operation: O,
    done: Option<O::Done>,
    reply: oneshot::Sender<Result<O::Done, Failure>>,
}

impl<O: Operation> Job for Queued<O> {
    fn run<'a>(&'a mut self, transaction: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            self.done = Some(self.operation.run(transaction).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, ended: Result<(), Failure>) {
        // Nobody may be waiting any more, which is none of our business; without `done`, the reply is dropped, and
        // so is in doubt.
        match (ended, self.done) {
            (Ok(()), Some(done)) => drop(self.reply.send(Ok(done))),
            (Err(failure), _) => drop(self.reply.send(Err(failure))),
            (Ok(()), None) => {}
        }
    }
}

struct Task {
    /// None after a failure: a connection that has seen one is not trusted with another transaction.
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
}

/// Where a transaction failed.
enum Stage {
    Begin,
    Statement,
    Commit,
}

impl Task {
    async fn serve(mut self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            match self.transact(&mut batch).await {
                // One may have spoiled it for all: each gets a transaction of its own.
                Err((Stage::Statement, _)) if batch.len() > 1 => {
                    for mut job in batch.drain(..) {
                        let ended = self.transact(std::slice::from_mut(&mut job)).await;
                        job.answer(ended.map_err(|(stage, error)| failure(&stage, &error)));
                    }
                }
                ended => {
                    let ended = ended.map_err(|(stage, error)| failure(&stage, &error));
                    for job in batch.drain(..) {
                        job.answer(ended.clone());
                    }
                }
            }
        }
        if let Some(connection) = self.connection {
            // The process goes on without it either way.
            let _ = connection.close().await;
        }
    }

    async fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), (Stage, sqlx::Error)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(|e| (Stage::Begin, e))?,
        };
        let ended = Self::transact_on(&mut connection, jobs).await;
        if ended.is_ok() {
            self.connection = Some(connection);
        } else {
            // Closing rolls back whatever is open. If even that fails, its thread has ended and so has the transaction.
            let _ = connection.close().await;
        }
        ended
    }

    async fn transact_on(
        connection: &mut SqliteConnection,
        jobs: &mut [Box<dyn Job>],
    ) -> Result<(), (Stage, sqlx::Error)> {
        // Immediate: what is read in it is still so when it writes.
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await.map_err(|e| (Stage::Begin, e))?;
        for job in jobs {
            job.run(connection).await.map_err(|e| (Stage::Statement, e))?;
        }
        sqlx::query("COMMIT").execute(&mut *connection).await.map_err(|e| (Stage::Commit, e))?;
        Ok(())
    }
}

/// What a failed transaction leaves its operations with.
fn failure(stage: &Stage, error: &sqlx::Error) -> Failure {
    let store_error = store_error(error);
    match (stage, primary_code(error)) {
        // Not committed, or not even begun, and now rolled back. A full disk has not taken the last frame, which is
        // what makes a commit.
        (Stage::Begin | Stage::Statement, _) | (Stage::Commit, Some(code::BUSY | code::FULL)) => {
            Failure::NothingDone(store_error)
        }
        // The last frame may have been written, and be found again after a crash.
        (Stage::Commit, _) => Failure::InDoubt(store_error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_commit_is_in_doubt() {
        let broken = || sqlx::Error::WorkerCrashed;
        assert!(matches!(failure(&Stage::Begin, &broken()), Failure::NothingDone(_)));
        assert!(matches!(failure(&Stage::Statement, &broken()), Failure::NothingDone(_)));
        assert!(matches!(failure(&Stage::Commit, &broken()), Failure::InDoubt(_)));
    }
}
