//! The guard at the socket: nothing of a request is written once its time is over.
//!
//! A process may be frozen (SIGSTOP, a paused virtual machine, a long swap) anywhere between its decision to spend a
//! refresh token and the write. So the boot clock is read in the very call that would hand the first byte to the
//! kernel, below TLS; between the two there is no place left to wait in, only one to be unlucky in.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokenkeep_core::{Boot, ports::Clock};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Whether anything was written since the request was handed over.
pub(super) struct FirstByte {
    clock: Arc<dyn Clock>,
    phase: Mutex<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// TCP and TLS are being set up: nothing of a request can be in what is written.
    Connecting,
    /// The next byte is the first of the request.
    Armed { not_after: Option<Boot> },
    /// The first byte came too late. Nothing is written any more, not even TLS's farewell, for the request's own
    /// bytes would go out before it.
    TooLate,
    /// At least one byte went out.
    Written,
}

/// What became of the request's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It would have been written, but not in time.
    TooLate,
    /// It never came to that.
    NothingWritten,
    /// It was written.
    Written,
}

impl FirstByte {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, phase: Mutex::new(Phase::Connecting) }
    }

    /// From now on bytes are the request's; the first is written only before the boot clock shows `not_after`.
    pub(super) fn arm(&self, not_after: Option<Boot>) {
        *self.phase() = Phase::Armed { not_after };
    }

    pub(super) fn outcome(&self) -> Outcome {
        match *self.phase() {
            Phase::TooLate => Outcome::TooLate,
            Phase::Written => Outcome::Written,
            Phase::Connecting | Phase::Armed { .. } => Outcome::NothingWritten,
        }
    }

    /// Runs `write` unless it is too late. A write that fails or would block has handed nothing to the kernel.
    fn write(&self, write: impl FnOnce() -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut phase = self.phase();
        let not_after = match *phase {
            Phase::Connecting | Phase::Written => return write(),
            Phase::TooLate => return Poll::Ready(Err(too_late())),
            Phase::Armed { not_after } => not_after,
        };
        if not_after.is_some_and(|not_after| self.clock.now().boot >= not_after) {
            *phase = Phase::TooLate;
            return Poll::Ready(Err(too_late()));
        }
        let written = write();
        if matches!(written, Poll::Ready(Ok(1..))) {
            *phase = Phase::Written;
        }
        written
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "too late to write the first byte")
}

/// A TCP connection under guard.
pub(super) struct Wire {
    tcp: TcpStream,
    guard: Arc<FirstByte>,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream, guard: Arc<FirstByte>) -> Self {
        Self { tcp, guard }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.tcp, f)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { tcp, guard } = self.get_mut();
        guard.write(|| Pin::new(tcp).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { tcp, guard } = self.get_mut();
        guard.write(|| Pin::new(tcp).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokenkeep_testkit::ManualClock;

    use super::*;

    fn guard() -> (ManualClock, FirstByte, Boot) {
        let clock = ManualClock::default();
        let not_after = clock.now().boot + Duration::from_secs(2);
        (clock.clone(), FirstByte::new(Arc::new(clock)), not_after)
    }

    fn write(guard: &FirstByte, result: Poll<io::Result<usize>>) -> bool {
        let mut called = false;
        let _result = guard.write(|| {
            called = true;
            result
        });
        called
    }

    #[test]
    fn the_deadline_is_judged_at_every_try_until_the_first_byte_is_out() {
        let (clock, guard, not_after) = guard();
        guard.arm(Some(not_after));
        assert!(write(&guard, Poll::Pending), "the socket is full");
        assert_eq!(guard.outcome(), Outcome::NothingWritten);
        clock.advance(Duration::from_secs(2));
        assert!(!write(&guard, Poll::Ready(Ok(1))));
        assert_eq!(guard.outcome(), Outcome::TooLate);
        assert!(!write(&guard, Poll::Ready(Ok(1))), "and never again");
    }

    #[test]
    fn what_was_begun_is_finished() {
        let (clock, guard, not_after) = guard();
        guard.arm(Some(not_after));
        clock.advance(Duration::from_nanos(1_999_999_999));
        assert!(write(&guard, Poll::Ready(Ok(1))));
        clock.advance(Duration::from_mins(1));
        assert!(write(&guard, Poll::Ready(Ok(1))));
        assert_eq!(guard.outcome(), Outcome::Written);
    }

    #[test]
    fn neither_a_handshake_nor_a_failed_write_counts() {
        let (clock, guard, _) = guard();
        clock.advance(Duration::from_mins(1));
        assert!(write(&guard, Poll::Ready(Ok(100))));
        guard.arm(None);
        assert!(write(&guard, Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))));
        assert_eq!(guard.outcome(), Outcome::NothingWritten);
    }
}
