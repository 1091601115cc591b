//! From the parser's tree to a [`Node`]: everything that is not supported is refused here, by name.

use std::time::{Duration, SystemTime};

use promql_parser::label::Matchers;
use promql_parser::parser::{
    AggregateExpr, AtModifier, BinModifier, BinaryExpr, Call, Expr, LabelModifier, Offset, VectorMatchCardinality,
    VectorSelector, token,
};

use crate::error::QueryError;
use crate::eval::window::{self, RangeFunction};
use crate::labels::METRIC_NAME;
use crate::matcher::{MatchOperator, Matcher};
use crate::plan::{
    Aggregate, Aggregator, Anchor, Arithmetic, Binary, BinaryOperator, Cardinality, Comparison, Function,
    LabelSelection, Matching, Node, Selector, SetOperator, Subquery, TimeModifier,
};

/// Prometheus' default `evaluation_interval`, which is the step of a subquery that names none.
const DEFAULT_SUBQUERY_STEP_MS: i64 = 60_000;

pub(crate) fn lower(expression: &Expr) -> Result<Node, QueryError> {
    match expression {
        Expr::NumberLiteral(number) => Ok(Node::Number(number.val)),
        Expr::StringLiteral(text) => Ok(Node::Text(text.val.clone())),
        Expr::Paren(paren) => lower(&paren.expr),
        Expr::Unary(unary) => Ok(Node::Negate(Box::new(lower(&unary.expr)?))),
        Expr::VectorSelector(selector) => Ok(Node::Selector(lower_selector(selector)?)),
        Expr::MatrixSelector(matrix) => {
            Ok(Node::Range { selector: lower_selector(&matrix.vs)?, range_ms: milliseconds(matrix.range)? })
        }
        Expr::Subquery(subquery) => Ok(Node::Subquery(Box::new(Subquery {
            inner: lower(&subquery.expr)?,
            range_ms: milliseconds(subquery.range)?,
            step_ms: subquery.step.map_or(Ok(DEFAULT_SUBQUERY_STEP_MS), milliseconds)?.max(1),
            time: lower_time(subquery.offset.as_ref(), subquery.at.as_ref())?,
        }))),
        Expr::Binary(binary) => lower_binary(binary),
        Expr::Aggregate(aggregate) => lower_aggregate(aggregate),
        Expr::Call(call) => lower_call(call),
        Expr::Extension(extension) => Err(QueryError::unsupported(format!("extension {}", extension.expr.name()))),
    }
}

fn lower_selector(selector: &VectorSelector) -> Result<Selector, QueryError> {
    let Matchers { matchers, or_matchers } = &selector.matchers;
    if !or_matchers.is_empty() {
        return Err(QueryError::unsupported("or between label matchers"));
    }
    let name = selector.name.iter().map(|name| Matcher::new(METRIC_NAME, MatchOperator::Equal, name));
    let labels = matchers.iter().map(|matcher| Ok(Matcher::from_parsed(matcher)));
    Ok(Selector {
        matchers: name.chain(labels).collect::<Result<_, _>>()?,
        time: lower_time(selector.offset.as_ref(), selector.at.as_ref())?,
    })
}

fn lower_time(offset: Option<&Offset>, at: Option<&AtModifier>) -> Result<TimeModifier, QueryError> {
    let offset_ms = match offset {
        None => 0,
        Some(Offset::Pos(duration)) => milliseconds(*duration)?,
        Some(Offset::Neg(duration)) => -milliseconds(*duration)?,
    };
    let anchor = match at {
        None => None,
        Some(AtModifier::Start) => Some(Anchor::Start),
        Some(AtModifier::End) => Some(Anchor::End),
        Some(AtModifier::At(time)) => Some(Anchor::At(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => milliseconds(after)?,
            Err(before) => -milliseconds(before.duration())?,
        })),
    };
    Ok(TimeModifier { offset_ms, anchor })
}

/// A century. Real queries look back days at most; the bound keeps sums of a time, an offset and a range far from overflow.
const MAX_DURATION_MS: u128 = 100 * 366 * 24 * 3_600_000;

fn milliseconds(duration: Duration) -> Result<i64, QueryError> {
    if duration.as_millis() > MAX_DURATION_MS {
        return Err(QueryError::BadData("parse error: duration out of range".to_owned()));
    }
    i64::try_from(duration.as_millis())
        .map_err(|_| QueryError::BadData("parse error: duration out of range".to_owned()))
}

fn lower_binary(binary: &BinaryExpr) -> Result<Node, QueryError> {
    let operator = match binary.op.id() {
        token::T_ADD => BinaryOperator::Arithmetic(Arithmetic::Add),
        token::T_SUB => BinaryOperator::Arithmetic(Arithmetic::Subtract),
        token::T_MUL => BinaryOperator::Arithmetic(Arithmetic::Multiply),
        token::T_DIV => BinaryOperator::Arithmetic(Arithmetic::Divide),
        token::T_MOD => BinaryOperator::Arithmetic(Arithmetic::Modulo),
        token::T_POW => BinaryOperator::Arithmetic(Arithmetic::Power),
        token::T_ATAN2 => BinaryOperator::Arithmetic(Arithmetic::Atan2),
        token::T_EQLC => BinaryOperator::Comparison(Comparison::Equal),
        token::T_NEQ => BinaryOperator::Comparison(Comparison::NotEqual),
        token::T_GTR => BinaryOperator::Comparison(Comparison::Greater),
        token::T_LSS => BinaryOperator::Comparison(Comparison::Less),
        token::T_GTE => BinaryOperator::Comparison(Comparison::GreaterOrEqual),
        token::T_LTE => BinaryOperator::Comparison(Comparison::LessOrEqual),
        token::T_LAND => BinaryOperator::Set(SetOperator::And),
        token::T_LOR => BinaryOperator::Set(SetOperator::Or),
        token::T_LUNLESS => BinaryOperator::Set(SetOperator::Unless),
        _ => return Err(QueryError::unsupported(format!("operator {}", binary.op))),
    };
    let default = BinModifier::default();
    let modifier = binary.modifier.as_ref().unwrap_or(&default);
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err(QueryError::unsupported("modifier fill"));
    }
    let cardinality = match &modifier.card {
        VectorMatchCardinality::ManyToOne(include) => Cardinality::ManyToOne(include.labels.clone()),
        VectorMatchCardinality::OneToMany(include) => Cardinality::OneToMany(include.labels.clone()),
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => Cardinality::OneToOne,
    };
    Ok(Node::Binary(Box::new(Binary {
        operator,
        left: lower(&binary.lhs)?,
        right: lower(&binary.rhs)?,
        returns_bool: modifier.return_bool,
        matching: Matching {
            labels: modifier.matching.as_ref().map_or(LabelSelection::Except(Vec::new()), lower_labels),
            cardinality,
        },
    })))
}

fn lower_labels(modifier: &LabelModifier) -> LabelSelection {
    match modifier {
        LabelModifier::Include(labels) => LabelSelection::Only(labels.labels.clone()),
        LabelModifier::Exclude(labels) => LabelSelection::Except(labels.labels.clone()),
    }
}

fn lower_aggregate(aggregate: &AggregateExpr) -> Result<Node, QueryError> {
    let operator = match aggregate.op.id() {
        token::T_SUM => Aggregator::Sum,
        token::T_AVG => Aggregator::Average,
        token::T_MIN => Aggregator::Minimum,
        token::T_MAX => Aggregator::Maximum,
        token::T_COUNT => Aggregator::Count,
        token::T_GROUP => Aggregator::Group,
        token::T_STDDEV => Aggregator::StandardDeviation,
        token::T_STDVAR => Aggregator::Variance,
        token::T_TOPK => Aggregator::TopK,
        token::T_BOTTOMK => Aggregator::BottomK,
        token::T_QUANTILE => Aggregator::Quantile,
        token::T_COUNT_VALUES => Aggregator::CountValues,
        _ => {
            return Err(QueryError::unsupported(format!("aggregation {}", aggregate.op)));
        }
    };
    Ok(Node::Aggregate(Box::new(Aggregate {
        operator,
        inner: lower(&aggregate.expr)?,
        parameter: aggregate.param.as_deref().map(lower).transpose()?,
        grouping: aggregate.modifier.as_ref().map_or(LabelSelection::Only(Vec::new()), lower_labels),
    })))
}

fn lower_call(call: &Call) -> Result<Node, QueryError> {
    let Some(function) = function(call.func.name) else {
        return Err(QueryError::unsupported(format!("function {}", call.func.name)));
    };
    let arguments = call.args.args.iter().map(|argument| lower(argument)).collect::<Result<_, _>>()?;
    Ok(Node::Call { function, arguments })
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "abs" => Function::Elementwise(f64::abs),
        "ceil" => Function::Elementwise(f64::ceil),
        "exp" => Function::Elementwise(f64::exp),
        "floor" => Function::Elementwise(f64::floor),
        "ln" => Function::Elementwise(f64::ln),
        "log10" => Function::Elementwise(f64::log10),
        "log2" => Function::Elementwise(f64::log2),
        "sgn" => Function::Elementwise(|value| if value == 0.0 { value } else { value.signum() }),
        "sqrt" => Function::Elementwise(f64::sqrt),
        "absent" => Function::Absent,
        "absent_over_time" => Function::AbsentOverTime,
        "clamp" => Function::Clamp,
        "clamp_max" => Function::ClampMaximum,
        "clamp_min" => Function::ClampMinimum,
        "histogram_quantile" => Function::HistogramQuantile,
        "label_join" => Function::LabelJoin,
        "label_replace" => Function::LabelReplace,
        "pi" => Function::Pi,
        "round" => Function::Round,
        "scalar" => Function::Scalar,
        "sort" => Function::Sort,
        "sort_desc" => Function::SortDescending,
        "time" => Function::Time,
        "timestamp" => Function::Timestamp,
        "vector" => Function::Vector,
        _ => Function::OverRange(range_function(name)?),
    })
}

fn range_function(name: &str) -> Option<RangeFunction> {
    let drops_name = |compute| RangeFunction { compute, keeps_name: false };
    Some(match name {
        "avg_over_time" => drops_name(window::average),
        "changes" => drops_name(window::changes),
        "count_over_time" => drops_name(window::count),
        "delta" => drops_name(window::delta),
        "idelta" => drops_name(window::instant_delta),
        "increase" => drops_name(window::increase),
        "irate" => drops_name(window::instant_rate),
        "last_over_time" => RangeFunction { compute: window::last, keeps_name: true },
        "max_over_time" => drops_name(window::maximum),
        "min_over_time" => drops_name(window::minimum),
        "present_over_time" => drops_name(window::present),
        "quantile_over_time" => drops_name(window::quantile),
        "rate" => drops_name(window::rate),
        "resets" => drops_name(window::resets),
        "stddev_over_time" => drops_name(window::standard_deviation),
        "stdvar_over_time" => drops_name(window::variance),
        "sum_over_time" => drops_name(window::sum),
        _ => return None,
    })
}
