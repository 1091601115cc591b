//! Makes a tree of a template's tokens.

use std::vec::IntoIter;

use super::lexer::{Kind, Token};
use super::{Position, TemplateError};

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Written as it is.
    Text(String),
    /// Its value is written.
    Write(Pipeline),
    /// `$v := …`, or `$v = …`.
    Set { position: Position, variable: String, is_new: bool, value: Pipeline },
    /// The first branch whose condition holds; the last one may have none.
    If(Vec<Branch>),
}

/// A branch of an `if`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Branch {
    pub(super) condition: Option<Pipeline>,
    pub(super) body: Vec<Node>,
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipeline {
    pub(super) position: Position,
    pub(super) commands: Vec<Command>,
}

/// A function and its arguments, or a value alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    pub(super) position: Position,
    pub(super) operands: Vec<Operand>,
}

/// A value, and fields of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operand {
    pub(super) position: Position,
    pub(super) term: Term,
    pub(super) fields: Vec<(Position, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    String(String),
    Number(i64),
    Bool(bool),
    Variable(String),
    Function(String),
    Pipeline(Box<Pipeline>),
}

/// Deepest nesting of `if` and parentheses. Queries need two or three; the limit keeps a hostile template from
/// exhausting the stack.
const DEPTH_LIMIT: usize = 32;

/// Actions of Go's language that are not part of this one.
const UNSUPPORTED: [&str; 7] = ["range", "with", "define", "template", "block", "break", "continue"];

pub(super) fn parse(tokens: Vec<Token>) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { tokens: tokens.into_iter(), next: None, last: Position { line: 1, column: 1 }, depth: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        End::Exhausted => Ok(nodes),
        End::Closed(position) => Err(TemplateError::new(position, "unexpected {{end}}")),
        End::Otherwise(position) => Err(TemplateError::new(position, "unexpected {{else}}")),
    }
}

/// What a list of nodes ended with.
enum End {
    /// The template itself.
    Exhausted,
    /// `{{ end }}`
    Closed(Position),
    /// `{{ else`; the tokens after it are yet to be read.
    Otherwise(Position),
}

struct Parser {
    tokens: IntoIter<Token>,
    next: Option<Token>,
    last: Position,
    depth: usize,
}

impl Parser {
    fn nodes(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            let Some(token) = self.take() else { return Ok((nodes, End::Exhausted)) };
            if let Kind::Text(text) = token.kind {
                nodes.push(Node::Text(text));
                continue;
            }
            match self.keyword().as_deref() {
                Some("end") => {
                    self.take();
                    self.close()?;
                    return Ok((nodes, End::Closed(token.position)));
                }
                Some("else") => {
                    self.take();
                    return Ok((nodes, End::Otherwise(token.position)));
                }
                Some("if") => {
                    self.take();
                    nodes.push(self.branches(token.position)?);
                }
                Some(word) if UNSUPPORTED.contains(&word) => {
                    return Err(TemplateError::new(token.position, format!("{word:?} is not supported")));
                }
                _ => {
                    nodes.push(self.action()?);
                    self.close()?;
                }
            }
        }
    }

    /// Everything from after `if` to its `end`.
    fn branches(&mut self, open: Position) -> Result<Node, TemplateError> {
        self.deeper(open)?;
        let mut branches = Vec::new();
        let mut condition = Some(self.condition()?);
        loop {
            let was_last = condition.is_none();
            let (body, end) = self.nodes()?;
            branches.push(Branch { condition: condition.take(), body });
            match end {
                End::Closed(_) => break,
                End::Exhausted => return Err(TemplateError::new(open, "if is not closed with {{end}}")),
                End::Otherwise(position) if was_last => {
                    return Err(TemplateError::new(position, "unexpected {{else}} after {{else}}"));
                }
                End::Otherwise(_) if self.keyword().as_deref() == Some("if") => {
                    self.take();
                    condition = Some(self.condition()?);
                }
                End::Otherwise(_) => self.close()?,
            }
        }
        self.depth -= 1;
        Ok(Node::If(branches))
    }

    fn condition(&mut self) -> Result<Pipeline, TemplateError> {
        let condition = self.pipeline()?;
        if matches!(self.peek(), Some(Kind::Declare | Kind::Assign)) {
            return Err(self.error("a variable in the condition is not supported"));
        }
        self.close()?;
        Ok(condition)
    }

    fn action(&mut self) -> Result<Node, TemplateError> {
        let pipeline = self.pipeline()?;
        let is_new = match self.peek() {
            Some(Kind::Declare) => true,
            Some(Kind::Assign) => false,
            _ => return Ok(Node::Write(pipeline)),
        };
        let Some(variable) = lone_variable(&pipeline) else { return Err(self.error("only a $variable can be set")) };
        let position = pipeline.position;
        self.take();
        Ok(Node::Set { position, variable, is_new, value: self.pipeline()? })
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let mut commands = vec![self.command()?];
        while self.peek() == Some(&Kind::Pipe) {
            self.take();
            commands.push(self.command()?);
        }
        let position = commands.first().map_or(self.last, |command| command.position);
        Ok(Pipeline { position, commands })
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        while let Some(operand) = self.operand()? {
            operands.push(operand);
        }
        match operands.first() {
            Some(first) => Ok(Command { position: first.position, operands }),
            None => Err(self.error("missing value")),
        }
    }

    fn operand(&mut self) -> Result<Option<Operand>, TemplateError> {
        let term = match self.peek() {
            Some(Kind::String(text)) => Term::String(text.clone()),
            Some(Kind::Number(number)) => Term::Number(*number),
            Some(Kind::Variable(name)) => Term::Variable(name.clone()),
            Some(Kind::Word(word)) => match word.as_str() {
                "true" => Term::Bool(true),
                "false" => Term::Bool(false),
                word => Term::Function(word.to_owned()),
            },
            Some(Kind::Field(name)) => {
                let problem = format!(".{name} has nothing to be a field of; use a function such as variables.{name}");
                return Err(self.error(problem));
            }
            Some(Kind::LeftParenthesis) => return self.parenthesised().map(Some),
            _ => return Ok(None),
        };
        let position = self.position();
        self.take();
        Ok(Some(Operand { position, term, fields: self.fields() }))
    }

    fn parenthesised(&mut self) -> Result<Operand, TemplateError> {
        let position = self.position();
        self.take();
        self.deeper(position)?;
        let pipeline = self.pipeline()?;
        if self.peek() != Some(&Kind::RightParenthesis) {
            return Err(TemplateError::new(position, "( is not closed with )"));
        }
        self.take();
        self.depth -= 1;
        Ok(Operand { position, term: Term::Pipeline(Box::new(pipeline)), fields: self.fields() })
    }

    fn fields(&mut self) -> Vec<(Position, String)> {
        let mut fields = Vec::new();
        while let Some(Kind::Field(name)) = self.peek() {
            let name = name.clone();
            fields.push((self.position(), name));
            self.take();
        }
        fields
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        match self.peek() {
            Some(Kind::Close) => {
                self.take();
                Ok(())
            }
            _ => Err(self.error("expected }}")),
        }
    }

    fn keyword(&mut self) -> Option<String> {
        match self.peek() {
            Some(Kind::Word(word)) => Some(word.clone()),
            _ => None,
        }
    }

    fn deeper(&mut self, position: Position) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err(TemplateError::new(position, format!("nested deeper than {DEPTH_LIMIT} levels")));
        }
        Ok(())
    }

    fn peek(&mut self) -> Option<&Kind> {
        if self.next.is_none() {
            self.next = self.tokens.next();
        }
        self.next.as_ref().map(|token| &token.kind)
    }

    fn take(&mut self) -> Option<Token> {
        self.peek();
        let token = self.next.take();
        if let Some(token) = &token {
            self.last = token.position;
        }
        token
    }

    fn position(&mut self) -> Position {
        self.peek();
        self.next.as_ref().map_or(self.last, |token| token.position)
    }

    fn error(&mut self, problem: impl Into<String>) -> TemplateError {
        TemplateError::new(self.position(), problem)
    }
}

fn lone_variable(pipeline: &Pipeline) -> Option<String> {
    let [command] = pipeline.commands.as_slice() else { return None };
    let [Operand { term: Term::Variable(name), fields, .. }] = command.operands.as_slice() else { return None };
    (fields.is_empty() && !name.is_empty()).then(|| name.clone())
}
