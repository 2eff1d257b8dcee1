//! What the command prints: data on standard output, talk on standard error.
//!
//! For people: tables without lines, cut to the terminal, and one entity as its fields. For programs
//! (`--json`): JSON, complete. Control characters in stored text never reach a terminal.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;
use serde_json::{Map, Value};

/// The space between columns.
const GAP: usize = 2;

/// Where results and talk go.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether results are JSON.
    pub json: bool,
    quiet: bool,
    color: bool,
    width: Option<usize>,
}

impl Output {
    /// As the options and the terminal want it.
    pub fn new(json: bool, quiet: bool) -> Self {
        let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal();
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = Table::new().width().map(usize::from).filter(|_| terminal);
        Self { json, quiet, color: terminal && !set("NO_COLOR") && !dumb, width }
    }

    /// Whether talk is wanted.
    pub fn talks(&self) -> bool {
        !self.quiet
    }

    /// Tells something that is no result.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Tells something that must not be missed.
    pub fn warn(&self, text: &str) {
        // Nobody is left to hear when standard error is closed.
        let _ = writeln!(io::stderr(), "{}", printable(text));
    }

    /// A line on standard output, as it is.
    pub fn line(&self, text: &str) -> io::Result<()> {
        writeln!(io::stdout(), "{text}")
    }

    /// A value as one line of JSON.
    pub fn json(&self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        io::stdout().write_all(&line)
    }

    /// Makes a text stand out, where there are colours.
    pub fn strong(&self, text: &str) -> String {
        self.painted("1", text)
    }

    /// Makes a text step back, where there are colours.
    pub fn faint(&self, text: &str) -> String {
        self.painted("2", text)
    }

    /// Gives a text a colour by its ANSI number, where there are colours.
    pub fn painted(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A page of items: a table, or a line of JSON for each.
    pub fn items(&self, columns: &[&str], items: &[Value], header: bool) -> io::Result<()> {
        if self.json {
            return items.iter().try_for_each(|item| self.json(item));
        }
        if items.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<Vec<String>> =
            items.iter().map(|item| columns.iter().map(|column| cell(column, &item[*column])).collect()).collect();
        let columns = &columns[..self.cut(columns, &mut rows)];
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if header {
            table.set_header(columns.iter().map(|column| self.heading(column)));
        }
        table.add_rows(rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.line(table.trim_fmt().trim_end_matches('\n'))
    }

    fn heading(&self, column: &str) -> Cell {
        let cell = Cell::new(column.to_uppercase());
        if self.color { cell.add_attribute(Attribute::Bold) } else { cell }
    }

    /// Makes the rows fit the terminal: the widest columns are cut, and when that is not enough the last ones
    /// are left out. How many columns remain.
    fn cut(&self, columns: &[&str], rows: &mut [Vec<String>]) -> usize {
        let Some(room) = self.width else { return columns.len() };
        let mut widths: Vec<usize> = columns.iter().map(|column| column.len()).collect();
        for row in rows.iter() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let floors: Vec<usize> = columns.iter().zip(&widths).map(|(column, width)| narrowest(column, *width)).collect();
        let takes = |widths: &[usize]| widths.iter().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP);
        while widths.len() > 2 && takes(&floors[..widths.len()]) > room {
            widths.pop();
        }
        while takes(&widths) > room {
            let cuttable = (0..widths.len()).filter(|index| widths[*index] > floors[*index]);
            match cuttable.max_by_key(|index| widths[*index]) {
                Some(index) => widths[index] -= 1,
                None => break,
            }
        }
        for row in rows {
            row.truncate(widths.len());
            row.iter_mut().zip(&widths).for_each(|(cell, width)| shorten(cell, *width));
        }
        widths.len()
    }

    /// One entity: its fields below one another, or an object of JSON.
    pub fn record(&self, value: &Value) -> io::Result<()> {
        let Value::Object(fields) = value else { return self.json(value) };
        if self.json {
            return self.json(fields);
        }
        self.fields(fields)
    }

    fn fields(&self, fields: &Map<String, Value>) -> io::Result<()> {
        let width = fields.keys().map(String::len).max().unwrap_or_default();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let text = match value {
                Value::String(text) => text.clone(),
                other => serde_json::to_string_pretty(other)?,
            };
            let indent = format!("\n{}", " ".repeat(width + 2));
            let text = printable(text.trim_end()).replace('\n', &indent);
            let gap = " ".repeat(width - name.len() + 2);
            self.line(&format!("{}{gap}{text}", self.strong(name)))?;
        }
        Ok(())
    }
}

/// A value in a cell of a table: one line; times to the second.
fn cell(column: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) if column.ends_with("_at") => return time(text),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let line: String = text.chars().map(|character| if character.is_whitespace() { ' ' } else { character }).collect();
    printable(&line)
}

/// A time as people read it: `2025-03-01 12:00:00`, UTC.
pub fn time(rfc3339: &str) -> String {
    rfc3339.get(..19).map_or_else(|| rfc3339.to_owned(), |time| time.replace('T', " "))
}

/// How narrow a column of that width may become: ids and times stay whole, and so does the heading.
fn narrowest(column: &str, width: usize) -> usize {
    let whole = column == "id" || column.ends_with("_id") || column.ends_with("_at");
    if whole { width } else { width.min(column.len().max(6)) }
}

fn shorten(cell: &mut String, width: usize) {
    if cell.chars().count() > width {
        *cell = cell.chars().take(width.saturating_sub(1)).chain(['…']).collect();
    }
}

/// The text with its control characters made visible, line breaks and tabs excepted: stored text must not
/// steer a terminal.
pub fn printable(text: &str) -> String {
    let visible = |character: char| match character {
        '\n' | '\t' => character,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        other => other,
    };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n"), "a\u{241b}[2Jb\u{240d}\n");
    }

    #[test]
    fn a_cell_is_one_line() {
        assert_eq!(cell("content", &Value::from("a\nb\tc")), "a b c");
        assert_eq!(cell("created_at", &Value::from("2025-03-01T12:00:00.000001Z")), "2025-03-01 12:00:00");
    }

    #[test]
    fn wide_columns_are_cut_and_ids_are_not() {
        let output = Output { json: false, quiet: false, color: false, width: Some(60) };
        let id = "0195f5a0-0000-7000-8000-000000000001".to_owned();
        let time = "2025-03-01 12:00:00".to_owned();
        let mut rows = vec![vec![id.clone(), "a long name that goes on and on".to_owned(), time]];
        assert_eq!(output.cut(&["id", "name", "created_at"], &mut rows), 2, "the third has no room");
        assert_eq!(rows[0], [id, "a long name that goes…".to_owned()]);
    }
}
