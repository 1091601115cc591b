//! Colours of a terminal.

use std::io::{self, IsTerminal};

pub(crate) const RESET: &str = "\x1b[0m";
pub(crate) const BOLD: &str = "\x1b[1m";
pub(crate) const DIM: &str = "\x1b[2m";
pub(crate) const RED: &str = "\x1b[31m";
pub(crate) const GREEN: &str = "\x1b[32m";
pub(crate) const YELLOW: &str = "\x1b[33m";
pub(crate) const CYAN: &str = "\x1b[36m";

/// Whether colours are wanted on standard output: it is a terminal, and neither a flag nor NO_COLOR says otherwise.
pub(crate) fn are_wanted(no_color: bool) -> bool {
    let has_no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !no_color && !has_no_color
}

/// The text in a colour, if colours are `wanted`; no colour is an empty one.
pub(crate) fn paint(wanted: bool, color: &str, text: &str) -> String {
    if wanted && !color.is_empty() { format!("{color}{text}{RESET}") } else { text.to_owned() }
}
