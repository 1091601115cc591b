//! Named runs that several tests look at.

use std::time::Duration;

use aviary_crds::validated::WebhookType;
use aviary_rollout::{OutagePolicy, Plan, Strategy, Weights};

use crate::driver::{Event, Run, plan, with_hooks};
use crate::world::{Metrics, World};

pub(crate) const ALL_HOOKS: [WebhookType; 6] = [
    WebhookType::ConfirmRollout,
    WebhookType::PreRollout,
    WebhookType::Rollout,
    WebhookType::ConfirmTrafficIncrease,
    WebhookType::ConfirmPromotion,
    WebhookType::PostRollout,
];

pub(crate) fn revision(name: &str) -> Event {
    Event::Revision(name.to_owned())
}

pub(crate) fn release(plan: Plan) -> Run {
    Run::initialized(plan).at(1, revision("b"))
}

pub(crate) fn weighted() -> Run {
    release(plan())
}

/// stepWeight 100, stepWeightPromotion 50.
pub(crate) fn stepped_plan() -> Plan {
    Plan { strategy: Strategy::Canary(Weights::Linear { step: 100, max: 100 }), step_weight_promotion: 50, ..plan() }
}

pub(crate) fn stepped() -> Run {
    release(stepped_plan())
}

pub(crate) fn bootstrap_with_hooks() -> Run {
    Run::new(with_hooks(stepped_plan(), &ALL_HOOKS), World::new("a")).at(60, revision("b"))
}

pub(crate) fn skip_analysis() -> Run {
    release(with_hooks(Plan { skip_analysis: true, ..plan() }, &ALL_HOOKS))
}

pub(crate) fn threshold() -> Run {
    let mut run = weighted();
    run.world.bad.insert("b".into());
    run
}

pub(crate) fn deadline() -> Run {
    let mut run = weighted();
    run.world.never_ready.insert((false, "b".into()));
    run
}

pub(crate) fn restart() -> Run {
    weighted().at(25, revision("c"))
}

pub(crate) fn withdrawn() -> Run {
    weighted().at(25, revision("a"))
}

pub(crate) fn failed_promotion() -> Run {
    let mut run = weighted();
    run.world.never_ready.insert((true, "b".into()));
    run
}

pub(crate) fn mended_promotion() -> Run {
    failed_promotion().at(300, revision("c"))
}

/// After a failed promotion the user goes back to what worked.
pub(crate) fn reverted_promotion() -> Run {
    failed_promotion().at(300, revision("a"))
}

pub(crate) fn broken_bootstrap() -> Run {
    let mut run = Run::new(plan(), World::new("broken")).at(200, revision("a"));
    run.world.never_ready.insert((true, "broken".into()));
    run
}

pub(crate) fn outage() -> Run {
    weighted().at(12, Event::Metrics(Metrics::Outage)).at(50, Event::Metrics(Metrics::Truth))
}

pub(crate) fn long_outage() -> Run {
    weighted().at(12, Event::Metrics(Metrics::Outage))
}

pub(crate) fn outage_as_failure() -> Run {
    release(Plan { outage: OutagePolicy::Fail, ..plan() }).at(12, Event::Metrics(Metrics::Outage))
}

pub(crate) fn outage_behind_a_gate() -> Run {
    release(with_hooks(plan(), &[WebhookType::ConfirmTrafficIncrease]))
        .at(12, Event::Metrics(Metrics::Outage))
        .at(40, Event::Refuse(WebhookType::ConfirmTrafficIncrease, true))
        .at(41, Event::Metrics(Metrics::Truth))
        .at(300, Event::Metrics(Metrics::Outage))
        .at(330, Event::Metrics(Metrics::Truth))
        .at(400, Event::Refuse(WebhookType::ConfirmTrafficIncrease, false))
}

pub(crate) fn closed_gates() -> Run {
    let mut run = release(with_hooks(plan(), &ALL_HOOKS));
    for (kind, opens) in [
        (WebhookType::ConfirmRollout, 95),
        (WebhookType::ConfirmTrafficIncrease, 205),
        (WebhookType::ConfirmPromotion, 405),
    ] {
        run.world.refusing.insert(kind);
        run = run.at(opens, Event::Refuse(kind, false));
    }
    run
}

pub(crate) fn pre_rollout_fails() -> Run {
    let mut run = release(with_hooks(plan(), &[WebhookType::PreRollout, WebhookType::PostRollout]));
    run.world.refusing.insert(WebhookType::PreRollout);
    run
}

pub(crate) fn rollback_hook() -> Run {
    release(with_hooks(plan(), &[WebhookType::Rollback])).at(30, Event::Refuse(WebhookType::Rollback, false))
}

pub(crate) fn config_release() -> Run {
    Run::initialized(plan()).at(1, Event::Configs("2".into()))
}

pub(crate) fn config_withdrawn() -> Run {
    config_release().at(25, Event::Configs("1".into()))
}

pub(crate) fn failed_then_reverted_then_again() -> Run {
    threshold().at(200, revision("a")).at(300, revision("b"))
}

pub(crate) fn listed() -> Run {
    release(Plan { strategy: Strategy::Canary(Weights::List(vec![1, 2, 10, 80])), ..plan() })
}

pub(crate) fn mid_run_foreign_weight() -> Run {
    weighted().at(20, Event::ForeignWeight(77)).at(31, Event::ForeignWeight(0))
}

pub(crate) fn quick_steps() -> Run {
    release(Plan { interval: Duration::from_secs(1), step_weight_promotion: 20, ..plan() })
}

/// Name and start of a run.
pub(crate) type Scenario = (&'static str, fn() -> Run);

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        ("weighted", weighted),
        ("stepped", stepped),
        ("bootstrap_with_hooks", bootstrap_with_hooks),
        ("skip_analysis", skip_analysis),
        ("threshold", threshold),
        ("deadline", deadline),
        ("restart", restart),
        ("withdrawn", withdrawn),
        ("failed_promotion", failed_promotion),
        ("mended_promotion", mended_promotion),
        ("reverted_promotion", reverted_promotion),
        ("broken_bootstrap", broken_bootstrap),
        ("outage", outage),
        ("long_outage", long_outage),
        ("outage_as_failure", outage_as_failure),
        ("outage_behind_a_gate", outage_behind_a_gate),
        ("closed_gates", closed_gates),
        ("pre_rollout_fails", pre_rollout_fails),
        ("rollback_hook", rollback_hook),
        ("config_release", config_release),
        ("config_withdrawn", config_withdrawn),
        ("failed_then_reverted_then_again", failed_then_reverted_then_again),
        ("listed", listed),
        ("mid_run_foreign_weight", mid_run_foreign_weight),
        ("quick_steps", quick_steps),
    ]
}
