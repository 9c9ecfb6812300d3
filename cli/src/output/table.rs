//! Rows beneath each other as kubectl prints them.

use std::fmt::Write as _;

use super::plain::plain;

/// Between two columns.
const GAP: usize = 3;

/// A heading, unless it is not wanted, and its rows, each column as wide as its longest cell; what is empty is `<none>`.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>], no_headers: bool) -> String {
    let layout = Layout::of(heading, rows);
    let heading: Vec<_> = heading.iter().map(ToString::to_string).collect();
    let heading = Some(&heading).filter(|_| !no_headers);
    heading.into_iter().chain(rows).map(|row| layout.line(row)).collect()
}

/// How wide columns are, for rows that come later too.
#[derive(Debug)]
pub(crate) struct Layout(Vec<usize>);

impl Layout {
    pub(crate) fn of(heading: &[&str], rows: &[Vec<String>]) -> Self {
        let width = |column: usize, name: &str| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| shown(cell).chars().count());
            cells.chain([name.chars().count()]).max().unwrap_or(0)
        };
        Self(heading.iter().enumerate().map(|(column, name)| width(column, name) + GAP).collect())
    }

    /// One row, with its newline.
    pub(crate) fn line(&self, cells: &[String]) -> String {
        let mut line = cells.iter().zip(&self.0).fold(String::new(), |mut line, (cell, width)| {
            // Writing to a String cannot fail.
            let _ = write!(line, "{:<width$}", shown(cell));
            // What comes later may be longer than all before it.
            if !line.ends_with(' ') {
                line.push(' ');
            }
            line
        });
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

fn shown(cell: &str) -> String {
    if cell.is_empty() { "<none>".to_owned() } else { plain(cell) }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn t16_a_cell_breaks_out_of_no_row() {
        let rows = [["ada", "web\nroot   secret_get"], ["", "東京"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());

        assert_snapshot!(table(&["USER", "OBJECT"], &rows, false), @r"
        USER     OBJECT
        ada      web\u000aroot   secret_get
        <none>   東京
        ");
    }
}
