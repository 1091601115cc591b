//! An absolute bound for what a rule may cost, so that no rule keeps the server busy for long.
//!
//! kube-apiserver estimates the cost of a rule when a definition is registered and counts it while the rule runs. Here only the
//! number of steps is bounded before it runs: loops within loops over the largest list, map or text of the value.

use ::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use serde_json::Value;

/// Steps of one rule on one value. The API server's limit for all rules of an object is ten million units of cost
/// (`RuntimeCELCostBudget`), and a step costs at least one.
const MAX_STEPS: u64 = 10_000_000;

/// How often loops are nested; one that builds a list copies it at each step and counts as two.
pub(super) fn nesting(expression: &IdedExpr) -> u32 {
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).map(nesting).max().unwrap_or(0),
        Expr::Comprehension(comprehension) => {
            let builds = matches!(comprehension.accu_init.expr, Expr::List(_) | Expr::Map(_));
            let inner = nesting(&comprehension.loop_step).max(nesting(&comprehension.loop_cond));
            let around = nesting(&comprehension.iter_range).max(nesting(&comprehension.result));
            (inner + 1 + u32::from(builds)).max(around)
        }
        Expr::List(list) => list.elements.iter().map(nesting).max().unwrap_or(0),
        Expr::Map(map) => {
            let entries = map.entries.iter().filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some(nesting(&entry.key).max(nesting(&entry.value))),
                EntryExpr::StructField(_) => None,
            });
            entries.max().unwrap_or(0)
        }
        Expr::Select(select) => nesting(&select.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => 0,
    }
}

/// Whether a rule with that nesting could take too many steps on a value.
pub(super) fn exceeds(nesting: u32, values: [Option<&Value>; 2]) -> bool {
    if nesting < 2 {
        // A request's body of 3 MiB has no more entries than that.
        return false;
    }
    let widest = values.into_iter().flatten().map(widest).max().unwrap_or(0);
    widest.checked_pow(nesting).is_none_or(|steps| steps > MAX_STEPS)
}

/// Entries of the largest list or map; a text counts too, for it can be split.
fn widest(value: &Value) -> u64 {
    let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    match value {
        Value::String(text) => length(text.len()),
        Value::Array(items) => items.iter().map(widest).max().unwrap_or(0).max(length(items.len())),
        Value::Object(fields) => fields.values().map(widest).max().unwrap_or(0).max(length(fields.len())),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}
