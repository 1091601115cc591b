//! The functions that rules may call: CEL's own, its extensions for strings and lists, and those that Kubernetes adds
//! (`k8s.io/apiserver/pkg/cel/library`).
//!
//! Not served, and so refused when a definition is created: `getQuery()` of a URL, `quantity()`, `ip()`, `cidr()`, `format`, `semver()`, `sets`
//! and the authorizer.

// CEL hands every function its arguments as a vector of its own.
#![allow(clippy::needless_pass_by_value)]

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ::cel::common::types::{CelOptional, DYN_TYPE, INT_TYPE, LIST_TYPE, MAP_TYPE, STRING_TYPE, Type};
use ::cel::common::value::{CowVal, Val};
use ::cel::objects::Key;
use ::cel::{Context, DeclarationError, Env, ExecutionError, Program, Value as CelValue};
use regex::Regex;

use super::cost;
use super::url::Url;

type Function = for<'b, 'v> fn(Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError>;

/// Names of functions that a rule may call. Operators and macros are not among them.
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "charAt",
    "contains",
    "distinct",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "find",
    "findAll",
    "flatten",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getScheme",
    "getSeconds",
    "hasValue",
    "indexOf",
    "int",
    "isCIDR",
    "isIP",
    "isSorted",
    "isURL",
    "join",
    "lastIndexOf",
    "lists.range",
    "lowerAscii",
    "matches",
    "max",
    "min",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "or",
    "orValue",
    "replace",
    "reverse",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "url",
    "value",
];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    let extended = environment
        .add_extension(::cel::extensions::strings)
        .and_then(|()| environment.add_extension(::cel::extensions::lists))
        .and_then(|()| environment.add_extension(kubernetes))
        .and_then(|()| environment.add_extension(cost::declare));
    if let Err(error) = extended {
        tracing::error!(%error, "failed to declare a function for validation rules");
    }
    Arc::new(environment)
});

pub(super) fn environment() -> &'static Env {
    &ENVIRONMENT
}

pub(super) fn has_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// The variables of a rule.
pub(super) fn context(new: CelValue, old: Option<CelValue>, optional_old: bool) -> Context<'static, 'static> {
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.add_variable_from_value("self", new);
    if optional_old {
        let old: Option<Box<dyn Val>> = old.and_then(|old| old.try_into().ok());
        context.add_variable_as_val("oldSelf", Box::new(old.map_or_else(CelOptional::none, CelOptional::of)));
    } else if let Some(old) = old {
        context.add_variable_from_value("oldSelf", old);
    }
    context
}

/// A text as the type that CEL's conversion `function` makes of it, and as itself if it makes nothing.
pub(super) fn parsed(function: &str, text: &str) -> CelValue {
    static TIMESTAMP: LazyLock<Option<Program>> = LazyLock::new(|| ENVIRONMENT.compile("timestamp(self)").ok());
    static DURATION: LazyLock<Option<Program>> = LazyLock::new(|| ENVIRONMENT.compile("duration(self)").ok());
    let program = if function == "timestamp" { &TIMESTAMP } else { &DURATION };
    let context = context(CelValue::from(text), None, false);
    let parsed = program.as_ref().and_then(|program| program.execute(&context).ok());
    parsed.unwrap_or_else(|| CelValue::from(text))
}

fn kubernetes(environment: &mut Env) -> Result<(), DeclarationError> {
    let members: [(&str, Type, Vec<Type>, Function); 14] = [
        ("find", STRING_TYPE, vec![STRING_TYPE], find),
        ("findAll", STRING_TYPE, vec![STRING_TYPE], find_all),
        ("findAll", STRING_TYPE, vec![STRING_TYPE, INT_TYPE], find_all),
        ("isSorted", LIST_TYPE, vec![], is_sorted),
        ("sum", LIST_TYPE, vec![], sum),
        ("min", LIST_TYPE, vec![], min),
        ("max", LIST_TYPE, vec![], max),
        ("indexOf", LIST_TYPE, vec![DYN_TYPE], index_of),
        ("lastIndexOf", LIST_TYPE, vec![DYN_TYPE], last_index_of),
        ("getScheme", MAP_TYPE, vec![], scheme),
        ("getHost", MAP_TYPE, vec![], host),
        ("getHostname", MAP_TYPE, vec![], hostname),
        ("getPort", MAP_TYPE, vec![], port),
        ("getEscapedPath", MAP_TYPE, vec![], escaped_path),
    ];
    for (index, (name, target, arguments, function)) in members.into_iter().enumerate() {
        environment.add_member_overload(name, &format!("kubernetes_{name}_{index}"), target, arguments, function)?;
    }
    let globals: [(&str, Function); 4] = [("url", url), ("isURL", is_url), ("isIP", is_ip), ("isCIDR", is_cidr)];
    for (name, function) in globals {
        environment.add_overload(name, &format!("kubernetes_{name}"), vec![STRING_TYPE], function)?;
    }
    Ok(())
}

fn values(arguments: &[CowVal<'_, '_>]) -> Result<Vec<CelValue>, ExecutionError> {
    arguments.iter().map(|argument| CelValue::try_from(argument.as_ref())).collect()
}

fn answer<'b, 'v>(value: CelValue) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let boxed: Box<dyn Val> = value.try_into()?;
    Ok(CowVal::Owned(boxed))
}

fn text(function: &str, values: &[CelValue], index: usize) -> Result<String, ExecutionError> {
    match values.get(index) {
        Some(CelValue::String(text)) => Ok(text.to_string()),
        _ => Err(ExecutionError::function_error(function, "no such overload")),
    }
}

fn list(function: &str, values: &[CelValue]) -> Result<Arc<Vec<CelValue>>, ExecutionError> {
    match values.first() {
        Some(CelValue::List(items)) => Ok(Arc::clone(items)),
        _ => Err(ExecutionError::function_error(function, "no such overload")),
    }
}

fn expression(function: &str, pattern: &str) -> Result<Regex, ExecutionError> {
    Regex::new(pattern).map_err(|error| ExecutionError::function_error(function, format!("illegal regex: {error}")))
}

fn find<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let values = values(&arguments)?;
    let (subject, pattern) = (text("find", &values, 0)?, text("find", &values, 1)?);
    let found = expression("find", &pattern)?.find(&subject).map_or("", |found| found.as_str());
    answer(CelValue::from(found))
}

fn find_all<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let values = values(&arguments)?;
    let (subject, pattern) = (text("findAll", &values, 0)?, text("findAll", &values, 1)?);
    let limit = match values.get(2) {
        Some(CelValue::Int(limit)) => usize::try_from(*limit).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let expression = expression("findAll", &pattern)?;
    let found: Vec<CelValue> =
        expression.find_iter(&subject).take(limit).map(|found| CelValue::from(found.as_str())).collect();
    answer(CelValue::from(found))
}

fn is_sorted<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let items = list("isSorted", &values(&arguments)?)?;
    answer(CelValue::Bool(items.is_sorted()))
}

fn sum<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let items = list("sum", &values(&arguments)?)?;
    let mut integers: i64 = 0;
    let mut floats: f64 = 0.0;
    for item in items.iter() {
        match item {
            CelValue::Int(number) => {
                integers = integers
                    .checked_add(*number)
                    .ok_or_else(|| ExecutionError::function_error("sum", "integer overflow"))?;
            }
            CelValue::Float(number) => floats += number,
            _ => return Err(ExecutionError::function_error("sum", "no such overload")),
        }
    }
    let is_float = matches!(items.first(), Some(CelValue::Float(_)));
    answer(if is_float { CelValue::Float(floats) } else { CelValue::Int(integers) })
}

fn extreme(
    name: &'static str,
    arguments: &[CowVal<'_, '_>],
    wanted: std::cmp::Ordering,
) -> Result<CelValue, ExecutionError> {
    let items = list(name, &values(arguments)?)?;
    let mut items = items.iter();
    let Some(mut best) = items.next() else {
        return Err(ExecutionError::function_error(name, format!("{name} called on empty list")));
    };
    for item in items {
        if item.partial_cmp(best) == Some(wanted) {
            best = item;
        }
    }
    Ok(best.clone())
}

fn min<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    answer(extreme("min", &arguments, std::cmp::Ordering::Less)?)
}

fn max<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    answer(extreme("max", &arguments, std::cmp::Ordering::Greater)?)
}

fn position(found: Option<usize>) -> CelValue {
    CelValue::Int(found.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1))
}

fn index_of<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let values = values(&arguments)?;
    let items = list("indexOf", &values)?;
    answer(position(items.iter().position(|item| Some(item) == values.get(1))))
}

fn last_index_of<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let values = values(&arguments)?;
    let items = list("lastIndexOf", &values)?;
    answer(position(items.iter().rposition(|item| Some(item) == values.get(1))))
}

fn is_url<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = text("isURL", &values(&arguments)?, 0)?;
    answer(CelValue::Bool(Url::parse(&text).is_some()))
}

fn url<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = text("url", &values(&arguments)?, 0)?;
    let url = Url::parse(&text).ok_or_else(|| {
        ExecutionError::function_error("url", format!("URL parse error during conversion from string: {text}"))
    })?;
    answer(url.into_value())
}

/// The part of a URL under which the function's name is kept.
fn url_part(function: &str, arguments: &[CowVal<'_, '_>]) -> Result<CelValue, ExecutionError> {
    let part = match values(arguments)?.first() {
        Some(CelValue::Map(parts)) => parts.get(&Key::from(format!("@{function}"))).cloned(),
        _ => None,
    };
    part.ok_or_else(|| ExecutionError::function_error(function, "no such overload"))
}

fn scheme<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    answer(url_part("getScheme", &arguments)?)
}

fn host<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    answer(url_part("getHost", &arguments)?)
}

fn hostname<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    answer(url_part("getHostname", &arguments)?)
}

fn port<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    answer(url_part("getPort", &arguments)?)
}

fn escaped_path<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    answer(url_part("getEscapedPath", &arguments)?)
}

/// Addresses as Go's `netip` takes them, without zones and without IPv4 in IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    (!is_mapped).then_some(address)
}

fn is_ip<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = text("isIP", &values(&arguments)?, 0)?;
    answer(CelValue::Bool(address(&text).is_some()))
}

fn is_cidr<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = text("isCIDR", &values(&arguments)?, 0)?;
    let is_cidr = text.split_once('/').is_some_and(|(prefix, length)| {
        let longest = match address(prefix) {
            Some(IpAddr::V4(_)) => 32,
            Some(IpAddr::V6(_)) => 128,
            None => return false,
        };
        length.parse::<u8>().is_ok_and(|bits| bits <= longest && bits.to_string() == length)
    });
    answer(CelValue::Bool(is_cidr))
}
