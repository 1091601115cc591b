//! A supervisor that restarts an actix actor after a panic as well as after a stop.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::{Actor, Addr, AsyncContext, Context, Supervised};
use futures::task::AtomicWaker;

/// Why the last life of an actor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It stopped by itself.
    Stopped,
    /// A handler, timer or spawned future panicked with this message.
    Panicked(String),
}

/// What follows an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Restart after a delay; meanwhile messages queue up.
    Restart(Duration),
    /// Let it go: the mailbox closes.
    GiveUp,
}

/// Ends the wait for the next life. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Hurry(Arc<Haste>);

#[derive(Debug, Default)]
struct Haste {
    wanted: AtomicBool,
    waker: AtomicWaker,
}

impl Hurry {
    /// A dead actor is restarted now; one that lives is none the wiser.
    pub fn restart_now(&self) {
        self.0.wanted.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    fn register(&self, task: &TaskContext<'_>) {
        self.0.waker.register(task.waker());
    }

    /// Whether somebody was in a hurry since the last call.
    fn take(&self) -> bool {
        self.0.wanted.swap(false, Ordering::AcqRel)
    }
}

/// Polls an actor's context inside `catch_unwind`; asks a policy what follows each exit.
///
/// **Guarantees.** The address stays valid over restarts; messages queued behind a panic are served after it; futures
/// spawned by the dead life are cancelled; [`Supervised::restarting`] runs before the next life and must rebuild every
/// field. When the policy gives up, actor hooks run outside of unwinding.
///
/// **Assumes** `panic = "unwind"` in every profile, and hooks (`stopping`, `stopped`) that cannot panic.
pub struct PanicSupervisor<A>
where
    A: Supervised + Actor<Context = Context<A>>,
{
    life: ContextFut<A, Context<A>>,
    policy: Box<dyn FnMut(&Exit) -> Verdict>,
    delay: Option<Pin<Box<tokio::time::Sleep>>>,
    hurry: Hurry,
}

impl<A> PanicSupervisor<A>
where
    A: Supervised + Actor<Context = Context<A>> + Unpin,
{
    /// An actor's address, and the future that is all its lives.
    pub fn new(
        make: impl FnOnce(&mut Context<A>) -> A,
        policy: impl FnMut(&Exit) -> Verdict + 'static,
    ) -> (Addr<A>, Self) {
        let mut context = Context::new();
        let address = context.address();
        let actor = make(&mut context);
        let life = context.into_future(actor);
        (address, Self { life, policy: Box::new(policy), delay: None, hurry: Hurry::default() })
    }

    /// What ends the wait for the next life.
    pub fn hurry(&self) -> Hurry {
        self.hurry.clone()
    }

    /// Starts an actor on the current arbiter.
    pub fn start(make: impl FnOnce(&mut Context<A>) -> A, policy: impl FnMut(&Exit) -> Verdict + 'static) -> Addr<A> {
        let (address, lives) = Self::new(make, policy);
        actix_rt::spawn(lives);
        address
    }
}

impl<A> Future for PanicSupervisor<A>
where
    A: Supervised + Actor<Context = Context<A>> + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            if let Some(delay) = &mut this.delay {
                // Registered before it is asked for, so that none is missed.
                this.hurry.register(task);
                if !this.hurry.take() && delay.as_mut().poll(task).is_pending() {
                    return Poll::Pending;
                }
                this.delay = None;
                if !this.life.restart() {
                    return Poll::Ready(());
                }
            }
            let exit = match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.life).poll(task))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(())) => Exit::Stopped,
                Err(payload) => Exit::Panicked(panic_text(payload.as_ref())),
            };
            match (this.policy)(&exit) {
                Verdict::GiveUp => return Poll::Ready(()),
                Verdict::Restart(delay) => {
                    // What was in a hurry before this death is no reason to shorten what follows it.
                    this.hurry.take();
                    this.delay = Some(Box::pin(tokio::time::sleep(delay)));
                }
            }
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use actix::prelude::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    struct Fragile {
        count: u32,
        lives: Rc<RefCell<u32>>,
    }
    impl Actor for Fragile {
        type Context = Context<Self>;
    }
    impl Supervised for Fragile {
        fn restarting(&mut self, _: &mut Context<Self>) {
            *self.lives.borrow_mut() += 1;
            self.count = 0;
        }
    }

    #[derive(Message)]
    #[rtype(result = "u32")]
    enum Ask {
        Count,
        Panic,
        PanicLater,
        Stop,
    }
    impl Handler<Ask> for Fragile {
        type Result = u32;
        fn handle(&mut self, ask: Ask, context: &mut Context<Self>) -> u32 {
            match ask {
                Ask::Count => self.count += 1,
                Ask::Panic => panic!("on purpose"),
                Ask::PanicLater => {
                    let _ = context.run_later(Duration::from_millis(5), |_, _| panic!("on purpose, later"));
                }
                Ask::Stop => context.stop(),
            }
            self.count
        }
    }

    fn start(mut limit: u32, lives: &Rc<RefCell<u32>>) -> Addr<Fragile> {
        let lives = lives.clone();
        PanicSupervisor::start(
            |_| Fragile { count: 0, lives },
            move |_| {
                if limit == 0 {
                    return Verdict::GiveUp;
                }
                limit -= 1;
                Verdict::Restart(Duration::from_secs(1))
            },
        )
    }

    #[actix::test]
    async fn a_message_queued_behind_a_panic_is_served_by_the_next_life() {
        tokio::time::pause();
        let lives = Rc::default();
        let address = start(10, &lives);
        let (crashed, queued) = futures::join!(address.send(Ask::Panic), address.send(Ask::Count));
        assert!(crashed.is_err());
        assert_eq!(queued.unwrap(), 1);
        address.send(Ask::PanicLater).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        address.send(Ask::Stop).await.unwrap();
        assert_eq!(address.send(Ask::Count).await.unwrap(), 1, "restarted with rebuilt fields");
        assert_eq!(*lives.borrow(), 3);
    }

    #[actix::test]
    async fn a_dead_actor_is_restarted_at_once_on_demand() {
        tokio::time::pause();
        let lives = Rc::default();
        let made = Rc::clone(&lives);
        let (address, supervisor) =
            PanicSupervisor::new(|_| Fragile { count: 0, lives: made }, |_| Verdict::Restart(Duration::from_secs(300)));
        let hurry = supervisor.hurry();
        actix_rt::spawn(supervisor);
        // Nobody is dead yet: it does not shorten the wait after the next death.
        hurry.restart_now();
        assert!(address.send(Ask::Panic).await.is_err());
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(*lives.borrow(), 0);
        hurry.restart_now();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(*lives.borrow(), 1);
        assert_eq!(address.send(Ask::Count).await.unwrap(), 1);
    }

    #[actix::test]
    async fn giving_up_closes_the_mailbox() {
        tokio::time::pause();
        let lives = Rc::default();
        let address = start(1, &lives);
        for _ in 0..2 {
            assert!(address.send(Ask::Panic).await.is_err());
        }
        assert!(address.send(Ask::Count).await.is_err());
        assert!(!address.connected());
    }
}
