//! A table that is painted over the one before it.

use std::fmt::Write as _;

/// Rows of the terminal.
pub(super) fn height() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout()).map_or(24, |size| usize::from(size.ws_row))
}

/// As many lines as fit, each cleared to its end, and nothing below them; so nothing flickers.
pub(super) fn painted(table: &str, height: usize) -> String {
    let lines: Vec<&str> = table.lines().collect();
    let fit = if lines.len() < height { lines.len() } else { height.saturating_sub(2) };
    let mut text = String::from("\x1b[H");
    for line in lines.iter().take(fit) {
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    if fit < lines.len() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "and {} more\x1b[K", lines.len() - fit);
    }
    text.push_str("\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(painted("NAME\na\nb\n", 24), "\x1b[HNAME\x1b[K\na\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(painted("NAME\na\nb\nc\n", 4), "\x1b[HNAME\x1b[K\na\x1b[K\nand 2 more\x1b[K\n\x1b[J");
    }
}
