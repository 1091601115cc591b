//! The expression as the evaluator wants it: only what is supported, regular expressions simplified, times in milliseconds.

use crate::eval::window::RangeFunction;
use crate::matcher::Matcher;

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Number(f64),
    Text(String),
    Selector(Selector),
    Range { selector: Selector, range_ms: i64 },
    Subquery(Box<Subquery>),
    Negate(Box<Node>),
    Binary(Box<Binary>),
    Aggregate(Box<Aggregate>),
    Call { function: Function, arguments: Vec<Node> },
}

#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) time: TimeModifier,
}

#[derive(Clone, Debug)]
pub(crate) struct Subquery {
    pub(crate) inner: Node,
    pub(crate) range_ms: i64,
    pub(crate) step_ms: i64,
    pub(crate) time: TimeModifier,
}

/// `offset` and `@` of a selector.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TimeModifier {
    pub(crate) offset_ms: i64,
    pub(crate) anchor: Option<Anchor>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    At(i64),
    Start,
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Binary {
    pub(crate) operator: BinaryOperator,
    pub(crate) left: Node,
    pub(crate) right: Node,
    pub(crate) returns_bool: bool,
    pub(crate) matching: Matching,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryOperator {
    Arithmetic(Arithmetic),
    Comparison(Comparison),
    Set(SetOperator),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Atan2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetOperator {
    And,
    Or,
    Unless,
}

/// How the elements of two vectors find each other.
#[derive(Clone, Debug)]
pub(crate) struct Matching {
    pub(crate) labels: LabelSelection,
    pub(crate) cardinality: Cardinality,
}

/// Which labels count: of a match, or of an aggregation.
#[derive(Clone, Debug)]
pub(crate) enum LabelSelection {
    /// `on` and `by`
    Only(Vec<String>),
    /// `ignoring` and `without`; the metric name never counts.
    Except(Vec<String>),
}

/// Which side may have several elements per match, and the labels that it takes over from the other.
#[derive(Clone, Debug)]
pub(crate) enum Cardinality {
    OneToOne,
    ManyToOne(Vec<String>),
    OneToMany(Vec<String>),
}

#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    pub(crate) operator: Aggregator,
    pub(crate) inner: Node,
    pub(crate) parameter: Option<Node>,
    pub(crate) grouping: LabelSelection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregator {
    Sum,
    Average,
    Minimum,
    Maximum,
    Count,
    Group,
    StandardDeviation,
    Variance,
    TopK,
    BottomK,
    Quantile,
    CountValues,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Function {
    /// One value in, one value out.
    Elementwise(fn(f64) -> f64),
    /// A window of samples in, at most one value out.
    OverRange(RangeFunction),
    Absent,
    AbsentOverTime,
    Clamp,
    ClampMaximum,
    ClampMinimum,
    HistogramQuantile,
    LabelJoin,
    LabelReplace,
    Pi,
    Round,
    Scalar,
    Sort,
    SortDescending,
    Time,
    Timestamp,
    Vector,
}
