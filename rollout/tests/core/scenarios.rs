//! Named runs that several tests look at.

use std::time::Duration;

use aviary_crds::validated::WebhookType;
use aviary_rollout::{AbTesting, BlueGreen, OutagePolicy, Plan, Strategy, Weighted, Weights};

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
    Plan { strategy: Strategy::weighted(Weights::Linear { step: 100, max: 100 }), step_weight_promotion: 50, ..plan() }
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

/// Monitoring that was away has nothing to say at first.
pub(crate) fn outage_with_an_empty_end() -> Run {
    weighted()
        .at(12, Event::Metrics(Metrics::Outage))
        .at(30, Event::Metrics(Metrics::NoValues))
        .at(50, Event::Metrics(Metrics::Truth))
}

/// The monitoring comes back, and the canary still has no values.
pub(crate) fn outage_that_hides_silence() -> Run {
    let outage = OutagePolicy::Hold { limit: Duration::from_secs(600) };
    release(Plan { outage, ..plan() }).at(12, Event::Metrics(Metrics::Outage)).at(30, Event::Metrics(Metrics::NoValues))
}

/// The same, and it goes away again for a moment.
pub(crate) fn flickering_monitoring() -> Run {
    outage_that_hides_silence().at(50, Event::Metrics(Metrics::Outage)).at(62, Event::Metrics(Metrics::NoValues))
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
    release(Plan { strategy: Strategy::weighted(Weights::List(vec![1, 2, 10, 80])), ..plan() })
}

pub(crate) fn mid_run_foreign_weight() -> Run {
    weighted().at(20, Event::ForeignWeight(77)).at(31, Event::ForeignWeight(0))
}

pub(crate) fn quick_steps() -> Run {
    release(Plan { interval: Duration::from_secs(1), step_weight_promotion: 20, ..plan() })
}

pub(crate) fn ab_plan() -> Plan {
    Plan { strategy: Strategy::AbTesting(AbTesting { iterations: 3 }), ..plan() }
}

pub(crate) fn ab_test() -> Run {
    release(ab_plan())
}

pub(crate) fn ab_with_hooks() -> Run {
    release(with_hooks(Plan { step_weight_promotion: 50, ..ab_plan() }, &ALL_HOOKS))
}

pub(crate) fn ab_fails() -> Run {
    ab_test().at(28, Event::Metrics(Metrics::Bad))
}

pub(crate) fn ab_overtaken() -> Run {
    ab_test().at(25, revision("c"))
}

pub(crate) fn ab_withdrawn() -> Run {
    ab_test().at(25, revision("a"))
}

/// Its promotion fails; the next revision mends it.
pub(crate) fn ab_failed_promotion() -> Run {
    let mut run = ab_test();
    run.world.never_ready.insert((true, "b".into()));
    run
}

pub(crate) fn ab_mended_promotion() -> Run {
    ab_failed_promotion().at(300, revision("c"))
}

pub(crate) fn blue_green_plan(mirror: bool) -> Plan {
    Plan { strategy: Strategy::BlueGreen(BlueGreen { iterations: 3, mirror, switches: true }), ..plan() }
}

pub(crate) fn blue_green() -> Run {
    release(blue_green_plan(false))
}

pub(crate) fn blue_green_mirrored() -> Run {
    release(blue_green_plan(true))
}

pub(crate) fn blue_green_with_hooks() -> Run {
    release(with_hooks(blue_green_plan(false), &ALL_HOOKS))
}

pub(crate) fn blue_green_behind_a_gate() -> Run {
    let mut run = release(with_hooks(blue_green_plan(true), &[WebhookType::ConfirmPromotion]));
    run.world.refusing.insert(WebhookType::ConfirmPromotion);
    run.at(205, Event::Refuse(WebhookType::ConfirmPromotion, false))
}

/// It fails with everybody on the canary.
pub(crate) fn blue_green_fails() -> Run {
    blue_green().at(38, Event::Metrics(Metrics::Bad))
}

pub(crate) fn blue_green_overtaken() -> Run {
    blue_green_mirrored().at(25, revision("c"))
}

pub(crate) fn blue_green_mended_promotion() -> Run {
    let mut run = blue_green().at(300, revision("c"));
    run.world.never_ready.insert((true, "b".into()));
    run
}

/// A provider that routes nothing.
pub(crate) fn blue_green_unrouted() -> Run {
    let strategy = Strategy::BlueGreen(BlueGreen { iterations: 3, mirror: false, switches: false });
    let mut world = World::new("a");
    world.routed = false;
    let mut run = Run::new(Plan { strategy, ..plan() }, world);
    run.settle();
    run.forget();
    run.at(1, revision("b"))
}

pub(crate) fn mirrored_plan() -> Plan {
    let weights = Weights::Linear { step: 20, max: 40 };
    Plan { strategy: Strategy::Canary(Weighted { weights, mirror: true }), ..plan() }
}

pub(crate) fn mirrored() -> Run {
    release(mirrored_plan())
}

/// Weights from a list, all hooks.
pub(crate) fn mirrored_with_hooks() -> Run {
    let weights = Weights::List(vec![5, 50]);
    let strategy = Strategy::Canary(Weighted { weights, mirror: true });
    release(with_hooks(Plan { strategy, ..plan() }, &ALL_HOOKS))
}

/// A check fails while the requests are copied.
pub(crate) fn mirrored_fails() -> Run {
    mirrored().at(8, Event::Metrics(Metrics::Bad))
}

/// Somebody meddles with the copies, in the middle and afterwards.
pub(crate) fn mirrored_against_another_writer() -> Run {
    mirrored()
        .at(8, Event::ForeignMirroring(false))
        .at(20, Event::ForeignMirroring(true))
        .at(200, Event::ForeignMirroring(true))
}

/// Name and start of a run.
pub(crate) type Scenario = (&'static str, fn() -> Run);

/// All of them.
/// A canary of a target whose autoscaler scales from zero by itself.
fn autoscaled(plan: Plan, acts: bool) -> Run {
    let mut world = World::new("a");
    (world.scaler_paused, world.scaler_acts) = (Some(false), acts);
    let mut run = Run::new(plan, world);
    run.settle();
    run.forget();
    run.at(1, revision("b"))
}

pub(crate) fn autoscaled_bootstrap() -> Run {
    let mut world = World::new("a");
    world.scaler_paused = Some(false);
    Run::new(plan(), world)
}

pub(crate) fn autoscaled_weighted() -> Run {
    autoscaled(plan(), true)
}

/// The autoscaler is down.
pub(crate) fn autoscaled_by_nobody() -> Run {
    autoscaled(plan(), false)
}

pub(crate) fn autoscaled_skip_analysis() -> Run {
    autoscaled(Plan { skip_analysis: true, ..plan() }, true)
}

pub(crate) fn autoscaled_skip_analysis_by_nobody() -> Run {
    autoscaled(Plan { skip_analysis: true, ..plan() }, false)
}

pub(crate) fn autoscaled_fails() -> Run {
    let mut run = autoscaled_weighted();
    run.world.bad.insert("b".into());
    run
}

pub(crate) fn autoscaled_restart() -> Run {
    autoscaled_weighted().at(25, revision("c"))
}

pub(crate) fn autoscaled_withdrawn() -> Run {
    autoscaled_weighted().at(25, revision("a"))
}

pub(crate) fn autoscaled_mended_promotion() -> Run {
    let mut run = autoscaled_weighted();
    run.world.never_ready.insert((true, "b".into()));
    run.at(300, revision("c"))
}

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
        ("outage_with_an_empty_end", outage_with_an_empty_end),
        ("outage_that_hides_silence", outage_that_hides_silence),
        ("flickering_monitoring", flickering_monitoring),
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
        ("ab_test", ab_test),
        ("ab_with_hooks", ab_with_hooks),
        ("ab_fails", ab_fails),
        ("ab_overtaken", ab_overtaken),
        ("ab_withdrawn", ab_withdrawn),
        ("ab_mended_promotion", ab_mended_promotion),
        ("blue_green", blue_green),
        ("blue_green_mirrored", blue_green_mirrored),
        ("blue_green_with_hooks", blue_green_with_hooks),
        ("blue_green_behind_a_gate", blue_green_behind_a_gate),
        ("blue_green_fails", blue_green_fails),
        ("blue_green_overtaken", blue_green_overtaken),
        ("blue_green_mended_promotion", blue_green_mended_promotion),
        ("blue_green_unrouted", blue_green_unrouted),
        ("autoscaled_bootstrap", autoscaled_bootstrap),
        ("autoscaled_weighted", autoscaled_weighted),
        ("autoscaled_by_nobody", autoscaled_by_nobody),
        ("autoscaled_skip_analysis", autoscaled_skip_analysis),
        ("autoscaled_skip_analysis_by_nobody", autoscaled_skip_analysis_by_nobody),
        ("autoscaled_fails", autoscaled_fails),
        ("autoscaled_restart", autoscaled_restart),
        ("autoscaled_withdrawn", autoscaled_withdrawn),
        ("autoscaled_mended_promotion", autoscaled_mended_promotion),
        ("mirrored", mirrored),
        ("mirrored_with_hooks", mirrored_with_hooks),
        ("mirrored_fails", mirrored_fails),
        ("mirrored_against_another_writer", mirrored_against_another_writer),
    ]
}
