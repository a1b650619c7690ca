//! What commands print: a table that fits the terminal, or JSON for scripts.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For scripts: one JSON value, or one per line where results go on arriving.
    Json,
}

/// Narrowest a column is squeezed to.
const COLUMN_MIN: usize = 6;
const GAP: usize = 2;

/// Rows under headings.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.headings.len(), "a cell for each heading");
        self.rows.push(cells.into());
    }

    /// The table as text; `width` is the terminal's, `None` where nothing limits it.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(|h| h.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if let Some(limit) = width {
            squeeze(
                &mut widths,
                limit.saturating_sub(GAP * self.headings.len().saturating_sub(1)),
            );
        }
        let mut text = String::new();
        let headings: Vec<String> = self.headings.iter().map(|h| (*h).to_owned()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let cell = fit(cell, *width);
                line.push_str(&cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + GAP));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Takes from the widest column until the sum fits.
fn squeeze(widths: &mut [usize], limit: usize) {
    while widths.iter().sum::<usize>() > limit {
        let Some(widest) = widths
            .iter_mut()
            .max_by_key(|w| **w)
            .filter(|w| **w > COLUMN_MIN)
        else {
            return;
        };
        *widest -= 1;
    }
}

/// A cell on one line of at most `width` characters. Control characters, which could move the cursor, are escaped.
fn fit(cell: &str, width: usize) -> String {
    let cell: String = cell
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if cell.chars().count() <= width {
        return cell;
    }
    let mut short: String = cell.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The terminal's width, where standard output is one.
fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(&stdout)
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|width| *width > 0)
}

/// Prints text as it is. A reader that went away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Prints a line.
pub(crate) fn line(text: impl AsRef<str>) -> anyhow::Result<()> {
    print(&format!("{}\n", text.as_ref()))
}

/// Prints a result in the wanted format.
pub(crate) fn show<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce() -> Table,
) -> anyhow::Result<()> {
    match format {
        Format::Json => json(value),
        Format::Table => print(&table().render(terminal_width())),
    }
}

/// Prints a table.
pub(crate) fn table(table: &Table) -> anyhow::Result<()> {
    print(&table.render(terminal_width()))
}

/// Prints one indented JSON value.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Prints one JSON value on a line of its own.
pub(crate) fn json_line<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// `-` where there is nothing.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["GROUP", "NODE", "ENDPOINTS"]);
        table.row([
            "orders/0042".into(),
            "n1".into(),
            "http://somewhere.far.example:1234".into(),
        ]);
        table.row(["a\u{1b}b".into(), "-".into(), String::new()]);
        table
    }

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_spaces() {
        let text = sample().render(None);
        let expected = "\
GROUP        NODE  ENDPOINTS
orders/0042  n1    http://somewhere.far.example:1234
a\u{fffd}b          -
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_narrow_terminal_shortens_the_widest_column() {
        let text = sample().render(Some(40));
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        assert!(
            text.contains("orders/0042") && text.contains("http://somewhere.far…"),
            "{text}"
        );
    }

    #[test]
    fn a_hopelessly_narrow_terminal_keeps_every_column_readable() {
        let text = sample().render(Some(5));
        assert!(text.contains("order…") && text.contains("n1"), "{text}");
    }
}
