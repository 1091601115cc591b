//! An absolute bound for what a rule may cost, so that no rule keeps the server busy for long.
//!
//! kube-apiserver estimates the cost of a rule when a definition is registered and counts it while the rule runs. Here it is
//! only counted: when a rule is compiled, its loops and what walks through lists and texts inside of them are made to say how
//! much they are about to do. Nearly all of that costs at least as much there, so that what is refused here is refused there too.

use std::cell::Cell;

use ::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr};
use ::cel::common::types::DYN_TYPE;
use ::cel::common::value::CowVal;
use ::cel::{Context, DeclarationError, Env, ExecutionError, Program, Value as CelValue};

/// Steps of one run of a rule. The API server's limit for one is a million units of cost (`PerCallLimit`), and a step costs at
/// least one.
const MAX_STEPS: u64 = 1_000_000;

/// Characters of a text that are walked through in one step (`StringTraversalCostFactor` of cel-go).
const CHARACTERS_A_STEP: u64 = 10;

/// Counts one step and is its argument. No rule can call it: its name is none.
const STEP: &str = "@step";
/// Counts a step for each entry or some characters of its argument, and is it.
const WALK: &str = "@walk";

/// Member functions that look at all of the value that they are called on, and cost so there.
const WALKING: [&str; 22] = [
    "contains",
    "distinct",
    "find",
    "findAll",
    "flatten",
    "indexOf",
    "isSorted",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "max",
    "min",
    "replace",
    "reverse",
    "slice",
    "sort",
    "split",
    "substring",
    "sum",
    "trim",
    "upperAscii",
];

thread_local! {
    /// Steps that the rule that is running on this thread may still take.
    static LEFT: Cell<u64> = const { Cell::new(MAX_STEPS) };
}

/// An expression that counts its steps.
#[derive(Debug)]
pub(super) struct Counted(IdedExpr);

/// Why an expression has no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("actual cost limit exceeded")]
    OverBudget,
    #[error(transparent)]
    Failed(#[from] ExecutionError),
}

impl Counted {
    pub(super) fn new(program: &Program) -> Self {
        let mut expression = program.expression().clone();
        count(&mut expression, false);
        Self(expression)
    }

    /// # Errors
    /// What the rule fails with, and that it takes too many steps.
    pub(super) fn execute(&self, context: &Context<'_, '_>) -> Result<CelValue, Stopped> {
        LEFT.set(MAX_STEPS);
        let outcome = CelValue::resolve(&self.0, context);
        // A loop may have gone on after one of its steps was refused.
        if LEFT.get() == 0 {
            return Err(Stopped::OverBudget);
        }
        Ok(outcome?)
    }
}

/// Declares the functions that count.
pub(super) fn declare(environment: &mut Env) -> Result<(), DeclarationError> {
    environment.add_overload(STEP, STEP, vec![DYN_TYPE], step)?;
    environment.add_overload(WALK, WALK, vec![DYN_TYPE], walk)
}

fn step<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    take(1)?;
    only(arguments)
}

fn walk<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = only(arguments)?;
    let size = value.as_sizer().map_or(0, |sized| *sized.size().inner());
    let entries = u64::try_from(size).unwrap_or(0);
    let is_text = value.as_iterable().is_none();
    take(if is_text { entries.div_ceil(CHARACTERS_A_STEP) } else { entries })?;
    Ok(value)
}

fn only<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)
}

fn take(steps: u64) -> Result<(), ExecutionError> {
    let left = LEFT.get().saturating_sub(steps);
    LEFT.set(left);
    if left == 0 { Err(ExecutionError::function_error(STEP, Stopped::OverBudget)) } else { Ok(()) }
}

/// Makes an expression count its steps. What happens once, outside of all loops, is bounded by the size of a request.
fn count(expression: &mut IdedExpr, in_loop: bool) {
    match &mut expression.expr {
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| count(target, in_loop));
            call.args.iter_mut().for_each(|argument| count(argument, in_loop));
            if in_loop {
                count_call(call);
            }
        }
        Expr::Comprehension(comprehension) => {
            count(&mut comprehension.iter_range, in_loop);
            count(&mut comprehension.accu_init, in_loop);
            count(&mut comprehension.result, in_loop);
            count(&mut comprehension.loop_step, true);
            // The interpreter knows loops that never end early by their condition, and appends to their lists in place.
            if matches!(comprehension.loop_cond.expr, Expr::Literal(_)) {
                wrap(WALK, &mut comprehension.iter_range);
            } else {
                wrap(STEP, &mut comprehension.loop_cond);
            }
        }
        Expr::List(list) => list.elements.iter_mut().for_each(|element| count(element, in_loop)),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    count(&mut entry.key, in_loop);
                    count(&mut entry.value, in_loop);
                }
            }
        }
        Expr::Select(select) => count(&mut select.operand, in_loop),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}

fn count_call(call: &mut CallExpr) {
    match (call.func_name.as_str(), &mut call.target, call.args.as_mut_slice()) {
        (name, Some(target), _) if WALKING.contains(&name) => wrap(WALK, target),
        ("@in", None, [_, container]) => wrap(WALK, container),
        // What is compared with something written in the rule is compared as far as that goes.
        ("_==_" | "_!=_", None, [left, right]) if !is_written(left) && !is_written(right) => wrap(WALK, left),
        _ => {}
    }
}

fn is_written(expression: &IdedExpr) -> bool {
    matches!(expression.expr, Expr::Literal(_) | Expr::List(_) | Expr::Map(_))
}

fn wrap(function: &str, expression: &mut IdedExpr) {
    let id = expression.id;
    let args = vec![std::mem::take(expression)];
    let call = CallExpr { func_name: function.to_owned(), target: None, args };
    *expression = IdedExpr { id, expr: Expr::Call(call) };
}
