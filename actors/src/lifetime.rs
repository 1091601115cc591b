//! How long the parts of one controller live.

use std::time::Duration;

use actix::{Actor, Addr, Context, Supervised};
use tokio::sync::watch;

use crate::supervision::{Exit, PanicSupervisor, Verdict};

/// Ends everything that was started under its [`Lifetime`] when it is dropped.
#[derive(Debug)]
pub(crate) struct KillSwitch {
    _end: watch::Sender<()>,
}

/// Starts actors and tasks that end with a controller, as the threads of a process end with it: from the moment at which
/// the [`KillSwitch`] is dropped none of them runs another line.
#[derive(Clone, Debug)]
pub(crate) struct Lifetime(watch::Receiver<()>);

impl Lifetime {
    pub(crate) fn new() -> (KillSwitch, Lifetime) {
        let (sender, receiver) = watch::channel(());
        (KillSwitch { _end: sender }, Lifetime(receiver))
    }

    /// `work`, dropped unfinished at the end of the lifetime.
    pub(crate) fn limit<W: Future<Output = ()>>(&self, work: W) -> impl Future<Output = ()> + use<W> {
        let mut end = self.0.clone();
        async move {
            tokio::select! {
                // The end is looked at first: work that is about to be resumed must not be.
                biased;
                _ = end.changed() => {}
                () = work => {}
            }
        }
    }

    /// Spawns a task on the current runtime.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // An actor that is dropped serves what is left in its mailbox, and may want to start something.
        if self.0.has_changed().is_ok() {
            tokio::spawn(self.limit(work));
        }
    }

    /// Starts an actor that others depend on, on the current arbiter. A message that makes it panic is lost and the next one
    /// is served: one canary's must not be the end for all.
    pub(crate) fn start<A: Supervised + Actor<Context = Context<A>> + Unpin>(&self, actor: A) -> Addr<A> {
        let (address, lives) = PanicSupervisor::new(
            |_| actor,
            |exit: &Exit| match exit {
                Exit::Stopped => Verdict::GiveUp,
                Exit::Panicked(reason) => {
                    tracing::error!(actor = std::any::type_name::<A>(), "shared actor panicked: {reason}");
                    Verdict::Restart(Duration::ZERO)
                }
            },
        );
        actix_rt::spawn(self.limit(lives));
        address
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_runs_after_the_end() {
        let (switch, lifetime) = Lifetime::new();
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        lifetime.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(count.load(Ordering::Relaxed), 2);
        // The task is due and could be resumed now.
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(switch);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(count.load(Ordering::Relaxed), 2);
        assert_eq!(Arc::strong_count(&count), 1, "what the task held is gone");
        let late = count.clone();
        lifetime.spawn(async move {
            let _ = late.fetch_add(1, Ordering::Relaxed);
        });
        tokio::task::yield_now().await;
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    /// Does as it is told, or panics.
    struct Fragile(u32);
    impl Actor for Fragile {
        type Context = Context<Self>;
    }
    impl Supervised for Fragile {}
    #[derive(actix::Message)]
    #[rtype(result = "u32")]
    struct DivideBy(u32);
    impl actix::Handler<DivideBy> for Fragile {
        type Result = u32;
        fn handle(&mut self, DivideBy(divisor): DivideBy, _: &mut Context<Self>) -> u32 {
            self.0 += 1;
            self.0 / divisor
        }
    }

    #[actix::test]
    async fn a_shared_actor_survives_the_message_that_makes_it_panic() {
        let (_switch, lifetime) = Lifetime::new();
        let actor = lifetime.start(Fragile(0));
        assert!(actor.send(DivideBy(0)).await.is_err());
        assert_eq!(actor.send(DivideBy(1)).await, Ok(2), "and keeps what it knows");
    }
}
