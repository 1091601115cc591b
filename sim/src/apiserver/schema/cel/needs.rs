//! Which parts of `self` and `oldSelf` a rule looks at: only they are made into values of CEL. Most rules ask whether one of many
//! fields is there, and converting an object for that costs more than all else that a write does.

use std::collections::BTreeMap;

use ::cel::common::ast::{EntryExpr, Expr, IdedExpr};

/// What rules need of a value. Nothing at first, as none of them has been looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The value itself is compared, counted, looped over or handed to a function.
    whole: bool,
    /// The fields that are selected, by the names that rules have for them. One of which nothing is needed is asked for with
    /// `has` alone.
    fields: BTreeMap<String, Needs>,
}

impl Needs {
    pub(super) fn everything() -> Self {
        Self { whole: true, ..Self::default() }
    }

    pub(super) fn is_everything(&self) -> bool {
        self.whole
    }

    /// Whether it is enough to know that there is a value.
    pub(super) fn is_presence(&self) -> bool {
        !self.whole && self.fields.is_empty()
    }

    /// What is needed of a field; `None` for one that is not looked at. Not for what is needed as a whole.
    pub(super) fn of(&self, identifier: &str) -> Option<&Self> {
        self.fields.get(identifier)
    }

    /// Whether rules ask for nothing but whether fields are there, and for so few of them that each combination has a bit in
    /// 32.
    pub(super) fn are_presence_of_few_fields(&self) -> bool {
        const MOST: usize = 5;
        !self.whole
            && self.fields.len() <= MOST
            && !self.fields.is_empty()
            && self.fields.values().all(Self::is_presence)
    }

    /// The place of a field among those that are looked at.
    pub(super) fn position(&self, identifier: &str) -> Option<usize> {
        self.fields.keys().position(|field| field == identifier)
    }

    /// Adds what an expression needs of a variable.
    ///
    /// A loop may have a variable of the same name; what it does with that only adds to what is needed.
    pub(super) fn add(&mut self, expression: &IdedExpr, variable: &str) {
        if let Some(needs) = self.selected(expression, variable) {
            needs.whole = true;
            return;
        }
        match &expression.expr {
            // `has(self.a)` asks whether `a` is there, and needs no more of it.
            Expr::Select(select) => {
                if let Some(needs) = self.selected(&select.operand, variable) {
                    needs.fields.entry(select.field.clone()).or_default();
                    return;
                }
                self.add(&select.operand, variable);
            }
            Expr::Call(call) => {
                call.target.as_deref().into_iter().chain(&call.args).for_each(|part| self.add(part, variable));
            }
            Expr::Comprehension(comprehension) => {
                for part in [
                    &comprehension.iter_range,
                    &comprehension.accu_init,
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ] {
                    self.add(part, variable);
                }
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.add(element, variable)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.add_entry(&entry.expr, variable)),
            Expr::Struct(object) => object.entries.iter().for_each(|entry| self.add_entry(&entry.expr, variable)),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn add_entry(&mut self, entry: &EntryExpr, variable: &str) {
        match entry {
            EntryExpr::MapEntry(entry) => {
                self.add(&entry.key, variable);
                self.add(&entry.value, variable);
            }
            EntryExpr::StructField(field) => self.add(&field.value, variable),
        }
    }

    /// The needs of `variable.a.b`, if the expression is such a path.
    fn selected(&mut self, expression: &IdedExpr, variable: &str) -> Option<&mut Self> {
        match &expression.expr {
            Expr::Ident(name) => (name == variable).then_some(self),
            Expr::Select(select) if !select.test => {
                let of_operand = self.selected(&select.operand, variable)?;
                Some(of_operand.fields.entry(select.field.clone()).or_default())
            }
            _ => None,
        }
    }
}
