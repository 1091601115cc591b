//! A target without pods, and the autoscaler that would bring them back.
//!
//! An autoscaler such as KEDA's scales from zero by itself. It is told to rest before the target is scaled to zero, and to
//! go on before the target is scaled up: in the other order it could undo the scaling in between. Killed after the first
//! of the two effects, the next decision finds what is left to do; the autoscaler may have done it by then.

use aviary_crds::status::Phase;

use crate::effect::{Decision, Effect, Scale};
use crate::snapshot::{Split, TargetView};
use crate::step::{Context, Step};

impl Context<'_> {
    /// Whether the target has no pods, and will have none.
    pub(crate) fn is_at_rest(self, target: &TargetView) -> bool {
        target.scaled_to_zero && self.seen.scaler_paused != Some(false)
    }

    /// Whether somebody has begun to take the target's pods away.
    pub(crate) fn is_going_to_rest(self, target: &TargetView) -> bool {
        target.scaled_to_zero || self.scaler_is_paused()
    }

    /// Whether the target's autoscaler takes its pods away.
    pub(crate) fn scaler_is_paused(self) -> bool {
        self.seen.scaler_paused == Some(true)
    }

    /// Between two runs: an autoscaler that somebody has let loose is told to rest again, or the target would keep pods
    /// that serve nobody.
    pub(crate) fn keep_at_rest(self) -> Option<Decision> {
        let is_loose = self.seen.scaler_paused == Some(false);
        if !is_loose || self.seen.repairs_paused || self.canary_serves_all() || !self.primary_serves() {
            return None;
        }
        // After a failed promotion the canary is kept, also where nothing is routed and no weight tells of it.
        if self.state.phase == Phase::Failed && self.seen.traffic.is_none() {
            return None;
        }
        if !matches!(self.route(Split::PRIMARY), Ok(None)) {
            return None;
        }
        if let Some(wait) = self.wait_until_settled() {
            return Some(wait);
        }
        Some(self.step().effect(Effect::PauseScaler(true)).done())
    }
}

impl Step<'_> {
    /// Takes the target's pods away for good.
    pub(crate) fn put_to_rest(self, target: &TargetView) -> Self {
        let is_loose = self.seen().scaler_paused == Some(false);
        let step = self.effect_if(is_loose.then_some(Effect::PauseScaler(true)));
        step.effect_if((!target.scaled_to_zero).then_some(Effect::ScaleTarget(Scale::Zero)))
    }

    /// Gives the target the pods of a canary.
    pub(crate) fn wake_target(self, target: &TargetView) -> Self {
        let step = self.resume_scaler();
        step.effect_if(target.scaled_to_zero.then_some(Effect::ScaleTarget(Scale::Up)))
    }

    /// Lets the target's autoscaler scale it.
    pub(crate) fn resume_scaler(self) -> Self {
        let is_paused = self.seen().scaler_paused == Some(true);
        self.effect_if(is_paused.then_some(Effect::PauseScaler(false)))
    }
}
