//! Lists of things, as people or programs want them.
//!
//! People get a plain aligned table. Programs get an envelope with a version, in JSON or YAML, or one JSON object a
//! line; numbers in there are raw (seconds, bytes).

use std::fmt;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    terminal::{Mark, Style, Terminal, plain},
    trouble::Trouble,
};

/// The version of what programs read.
const API_VERSION: &str = "cli.corinth.dev/v1";
const COLUMN_GAP: usize = 2;

/// How a list is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One envelope with all items.
    Json,
    /// One item a line.
    Jsonl,
    /// The envelope of `json`, as YAML.
    Yaml,
    /// Only the names, one a line.
    Name,
}

/// How a list is written.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// How the result is written.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Leave out the headers of a table.
    #[arg(long)]
    pub(crate) no_headers: bool,
}

/// One thing in a list.
pub(crate) trait Item: Serialize {
    /// What a list of these is called in an envelope.
    const KIND: &'static str;
    /// The columns of the table.
    const HEADERS: &'static [&'static str];

    /// Its rows in the table, one or more.
    fn rows(&self, style: Style) -> Vec<Vec<Cell>>;

    /// What it is called, for `-o name`.
    fn name(&self) -> String;
}

/// One field of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    mark: Option<Mark>,
}

/// Things in order, and what could not be looked at.
pub(crate) struct Listing<T> {
    pub(crate) items: Vec<T>,
    /// Why items may be missing; none where the list is whole.
    pub(crate) errors: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    generated_at: String,
    partial: bool,
    errors: &'a [String],
    items: &'a [T],
}

impl Cell {
    pub(crate) fn plain(text: impl fmt::Display) -> Self {
        Self {
            text: plain(&text.to_string()),
            mark: None,
        }
    }

    /// `-` for what is not there.
    pub(crate) fn optional(text: Option<impl fmt::Display>) -> Self {
        text.map_or_else(|| Self::plain("-"), Self::plain)
    }

    /// A glyph and a word, both in the colour of `mark`.
    pub(crate) fn marked(style: Style, mark: Mark, word: &str) -> Self {
        Self {
            text: format!("{} {}", style.glyph(mark), plain(word)),
            mark: Some(mark),
        }
    }
}

impl<T: Item> Listing<T> {
    pub(crate) fn whole(items: Vec<T>) -> Self {
        Self {
            items,
            errors: Vec::new(),
        }
    }

    /// Writes the list to stdout.
    pub(crate) fn print(&self, terminal: &Terminal, args: OutputArgs) -> Result<(), Trouble> {
        terminal.print(&self.text(terminal.stdout, args)?)
    }

    /// The list as it is written.
    pub(crate) fn text(&self, style: Style, args: OutputArgs) -> Result<String, Trouble> {
        self.render(args, style, Timestamp::now())
            .map_err(|why| Trouble::internal("the result could not be written down", why))
    }

    fn render(
        &self,
        args: OutputArgs,
        style: Style,
        generated_at: Timestamp,
    ) -> Result<String, String> {
        let envelope = Envelope {
            api_version: API_VERSION,
            kind: T::KIND,
            generated_at: generated_at.to_string(),
            partial: !self.errors.is_empty(),
            errors: &self.errors,
            items: &self.items,
        };
        match args.output {
            Format::Table => {
                let headers = if args.no_headers { &[] } else { T::HEADERS };
                let rows: Vec<_> = self
                    .items
                    .iter()
                    .flat_map(|item| item.rows(style))
                    .collect();
                Ok(table(headers, &rows, style))
            }
            Format::Json => serde_json::to_string_pretty(&envelope)
                .map(|text| text + "\n")
                .map_err(|error| error.to_string()),
            Format::Jsonl => self
                .items
                .iter()
                .map(|item| serde_json::to_string(item).map(|line| line + "\n"))
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string()),
            Format::Yaml => serde_saphyr::to_string(&envelope).map_err(|error| error.to_string()),
            Format::Name => Ok(self.items.iter().map(|item| item.name() + "\n").collect()),
        }
    }
}

/// Columns as wide as their widest cell; the last one is not padded.
pub(crate) fn table(headers: &[&str], rows: &[Vec<Cell>], style: Style) -> String {
    let head: Vec<_> = headers.iter().map(Cell::plain).collect();
    let head = (!head.is_empty()).then_some(&head);
    let lines = || head.into_iter().chain(rows);
    let width = |cell: &Cell| cell.text.chars().count();
    let columns = lines().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns)
        .map(|column| {
            lines()
                .filter_map(|line| line.get(column))
                .map(width)
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines() {
        let last = line.len().saturating_sub(1);
        for (column, cell) in line.iter().enumerate() {
            match cell.mark {
                Some(mark) => text.push_str(&style.tint(mark, &cell.text)),
                None => text.push_str(&cell.text),
            }
            if column < last {
                let pad = widths[column] - width(cell) + COLUMN_GAP;
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style {
        is_coloured: false,
        is_utf8: true,
    };

    #[derive(Serialize)]
    struct Fruit {
        name: &'static str,
        grams: u32,
    }

    impl Item for Fruit {
        const KIND: &'static str = "Fruits";
        const HEADERS: &'static [&'static str] = &["NAME", "GRAMS", "STATE"];

        fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
            let ripe = Cell::marked(style, Mark::Good, "ripe");
            vec![vec![Cell::plain(self.name), Cell::plain(self.grams), ripe]]
        }

        fn name(&self) -> String {
            format!("fruit/{}", self.name)
        }
    }

    fn rendered(output: Format, no_headers: bool, style: Style) -> String {
        let listing = Listing::whole(vec![
            Fruit {
                name: "pear",
                grams: 150,
            },
            Fruit {
                name: "grape",
                grams: 5,
            },
        ]);
        let args = OutputArgs { output, no_headers };
        listing.render(args, style, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn tables_are_aligned_with_and_without_colour() {
        let expected = "NAME   GRAMS  STATE\npear   150    ✓ ripe\ngrape  5      ✓ ripe\n";
        assert_eq!(rendered(Format::Table, false, PLAIN), expected);
        assert_eq!(
            rendered(Format::Table, true, PLAIN),
            "pear   150  ✓ ripe\ngrape  5    ✓ ripe\n"
        );
        let bright = Style {
            is_coloured: true,
            ..PLAIN
        };
        let coloured = rendered(Format::Table, false, bright);
        assert_eq!(
            coloured.replace("\x1b[32m", "").replace("\x1b[0m", ""),
            expected
        );
    }

    #[test]
    fn programs_get_an_envelope_or_lines() {
        let expected = "{
  \"apiVersion\": \"cli.corinth.dev/v1\",
  \"kind\": \"Fruits\",
  \"generatedAt\": \"1970-01-01T00:00:00Z\",
  \"partial\": false,
  \"errors\": [],
  \"items\": [
    {
      \"name\": \"pear\",
      \"grams\": 150
    },
    {
      \"name\": \"grape\",
      \"grams\": 5
    }
  ]
}
";
        let json = rendered(Format::Json, false, PLAIN);
        assert_eq!(json, expected);
        let yaml: serde_json::Value =
            serde_saphyr::from_str(&rendered(Format::Yaml, false, PLAIN)).unwrap();
        assert_eq!(
            yaml,
            serde_json::from_str::<serde_json::Value>(&json).unwrap()
        );
        assert_eq!(
            rendered(Format::Jsonl, false, PLAIN),
            "{\"name\":\"pear\",\"grams\":150}\n{\"name\":\"grape\",\"grams\":5}\n"
        );
        assert_eq!(
            rendered(Format::Name, false, PLAIN),
            "fruit/pear\nfruit/grape\n"
        );
    }
}
