//! Questions. They are asked beside the runs: while an answer is awaited, which may take as long as somebody's webhook,
//! the canary goes on looking and deciding, so that a newer revision, a dead pod or a shutdown waits for nobody.

use actix::Context;
use aviary_crds::validated::WebhookType;
use aviary_providers::Subject;
use aviary_rollout::{Answer, Answers, HookAnswer, Question, RoundAnswer, providers_message};

use super::{CanaryActor, LOST};
use crate::cache::Lookups;
use crate::checks::{self, PreparedCheck};
use crate::messages::{
    EffectOutcome, Epoch, Lane, Nudge, ProbeBackends, Reply, TakeSamples, Write, WriteError, WriteOrder,
};

/// A question that awaits its answer.
pub(super) struct Asking {
    pub(super) question: Question,
    pub(super) epoch: Epoch,
}

impl CanaryActor {
    /// Asks, unless the question is being asked already. Another question takes the place of the one before, whose
    /// answer nobody needs any more.
    pub(super) fn ask(&mut self, question: Question, context: &mut Context<Self>) {
        if self.asking.as_ref().is_some_and(|asking| asking.question == question) {
            return;
        }
        self.epoch = Epoch(self.epoch.0 + 1);
        self.asking = Some(Asking { question, epoch: self.epoch });
        let reply = self.answer_to(context);
        match question {
            Question::Providers => {
                let checks = self.prepare_checks();
                self.doubt(&checks);
                self.deps.observer.do_send(ProbeBackends { checks, reply });
            }
            Question::Round if self.has_rollout_hooks() => self.ask_hooks(WebhookType::Rollout, reply),
            Question::Round => self.take_samples(Vec::new(), reply),
            Question::Hooks(kind) => self.ask_hooks(kind, reply),
            Question::Workloads => self.read_workloads(reply),
        }
    }

    /// Answers that were given, or are awaited, no longer count.
    pub(super) fn void_answers(&mut self) {
        self.answers = Answers::default();
        self.asking = None;
    }

    /// An answer came.
    pub(super) fn answered(&mut self, outcome: EffectOutcome, context: &mut Context<Self>) {
        let Some(asking) = &self.asking else { return };
        let question = asking.question;
        let now = self.deps.clock.now();
        match outcome {
            EffectOutcome::Hooks(WebhookType::Rollout, hooks) if question == Question::Round => {
                // Hooks come before metrics, and the first failure ends the round.
                if hooks.iter().all(|hook| hook.result.is_ok()) {
                    let reply = self.answer_to(context);
                    return self.take_samples(hooks, reply);
                }
                self.answers.round = Some(Answer { at: now, value: RoundAnswer { hooks, samples: Vec::new() } });
            }
            EffectOutcome::Hooks(kind, answers) => {
                self.answers.hooks.insert(kind, Answer { at: now, value: answers });
            }
            EffectOutcome::Round(round) => self.answers.round = Some(Answer { at: now, value: round }),
            EffectOutcome::Providers(result) => {
                if let Some(object) = self.present_object() {
                    self.emit(providers_message(&result), &object, now);
                }
                self.answers.providers = Some(Answer { at: now, value: result });
            }
            EffectOutcome::Lost => {
                self.asking = None;
                if let Some(object) = self.present_object() {
                    self.fail(LOST.to_owned(), &object, now, context);
                }
                return;
            }
            EffectOutcome::Written(read) if question == Question::Workloads => match read {
                Ok(()) => self.answers.workloads = Some(Answer { at: now, value: () }),
                // Something else had to be read first; asked again.
                Err(WriteError::Conflict) => {}
                Err(WriteError::Failed(text)) => {
                    self.asking = None;
                    if let Some(object) = self.present_object() {
                        self.fail(text, &object, now, context);
                    }
                    return;
                }
            },
            // Writes and alerts are no answers.
            EffectOutcome::Written(_) | EffectOutcome::Told => return,
        }
        self.asking = None;
        actix::AsyncContext::notify(context, Nudge);
    }

    fn answer_to(&self, context: &mut Context<Self>) -> Reply {
        let epoch = self.asking.as_ref().map_or(self.epoch, |asking| asking.epoch);
        Reply::new(epoch, actix::AsyncContext::address(context).recipient())
    }

    /// Workloads are what of group `apps` was looked at.
    fn read_workloads(&self, reply: Reply) {
        let workloads = self.interests.iter().filter(|key| key.kind.group == "apps").cloned().collect();
        self.deps.router.do_send(Write {
            canary: self.id.clone(),
            // A rollback may depend on it.
            lane: Lane::Rollback,
            write: WriteOrder::Refresh(workloads),
            reply,
        });
    }

    fn has_rollout_hooks(&self) -> bool {
        self.knowledge.understood().is_ok_and(|(known, _)| known.plan.has_hooks(WebhookType::Rollout))
    }

    fn ask_hooks(&self, kind: WebhookType, reply: Reply) {
        let phase = self.knowledge.state().map(|state| state.phase.to_string()).unwrap_or_default();
        self.call_hooks(kind, &phase, reply);
    }

    fn take_samples(&mut self, hooks: Vec<HookAnswer>, reply: Reply) {
        let checks = self.prepare_checks();
        self.doubt(&checks);
        self.deps.observer.do_send(TakeSamples { canary: self.id.clone(), checks, hooks, reply });
    }

    /// Templates and secrets are looked up without becoming wake-up reasons: a change of them counts from the next
    /// round on.
    fn prepare_checks(&self) -> Vec<PreparedCheck> {
        let lookups = Lookups::new(&self.deps.cache);
        let Ok((known, _)) = self.knowledge.understood() else { return Vec::new() };
        let settings = &self.deps.settings.providers;
        let subject = Subject { canary: &known.canary, settings, objects: &lookups, cookies: None };
        checks::prepare(&known.plan, &subject, known.traffic)
    }
}
