//! Rows beneath each other as kubectl prints them.

use std::fmt::Write as _;

use super::plain::plain;

/// Between two columns.
const GAP: usize = 3;

/// A heading and its rows, each column as wide as its longest cell; what is empty is `<none>`.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let shown = |cell: &str| if cell.is_empty() { "<none>".to_owned() } else { plain(cell) };
    let mut lines = vec![heading.iter().map(ToString::to_string).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()));
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(|column| width(column) + GAP).collect();
    lines.iter().fold(String::new(), |mut text, line| {
        let padded = line.iter().zip(&widths).fold(String::new(), |mut padded, (cell, width)| {
            // Writing to a String cannot fail.
            let _ = write!(padded, "{cell:<width$}");
            padded
        });
        text.push_str(padded.trim_end());
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn t16_a_cell_breaks_out_of_no_row() {
        let rows = [["ada", "web\nroot   secret_get"], ["", "東京"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());

        assert_snapshot!(table(&["USER", "OBJECT"], &rows), @r"
        USER     OBJECT
        ada      web\u000aroot   secret_get
        <none>   東京
        ");
    }
}
