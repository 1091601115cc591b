//! What systems with events of their own call what happens. Whatever a system has no words for is told in ours; what it never told
//! is not told.

use aviary_crds::v1alpha1::Dialect;

use crate::message::Message;
use crate::plan::Plan;

/// The message as users of the plan's system know it, or `None` if they are not told.
pub(crate) fn of_system(plan: &Plan, message: Message) -> Option<Message> {
    match plan.dialect {
        Dialect::V1Beta1 | Dialect::V1Alpha1 | Dialect::BirdWatch => Some(message),
        Dialect::Steerer => of_steerer(plan, message),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever it has no words for is told in ours")]
fn of_steerer(plan: &Plan, message: Message) -> Option<Message> {
    let severity = message.severity();
    let rollout = plan.canary_id();
    let text = match message {
        Message::Initialized { .. } | Message::NewRevision { .. } | Message::RoutingToPrimary => return None,
        Message::Starting { .. } => format!("Starting rollout for {rollout}"),
        Message::AdvanceCanary { weight, .. } => format!("Advance rollout {rollout} weight {weight}"),
        Message::Breached { breach, .. } => format!("Halt rollout {rollout} {breach}"),
        Message::CheckFailed { text, .. } => match text.strip_prefix("Halt advancement ") {
            Some(why) => format!("Halt rollout {rollout} {why}"),
            None => format!("Halt rollout {rollout} {text}"),
        },
        Message::Promoted { target } => format!("Promotion complete! Scaling down {target}"),
        other => return Some(other),
    };
    Some(Message::Worded { text, severity })
}
