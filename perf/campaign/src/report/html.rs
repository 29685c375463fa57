//! One HTML file that needs nothing else: plots, tables, the machine, and every configuration.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::results::SystemRecord;

use super::{
    Detail, Grid, Report,
    plots::{self, DrawError},
};

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
th,td{border:1px solid #ccc;padding:.25rem .5rem;text-align:right;white-space:nowrap}
th.word,td.word{text-align:left}
td.missed,td.regressed{color:#b00020;font-weight:bold}td.met,td.improved{color:#0a7d28}
td.nothing{color:#777}.plots{display:flex;flex-wrap:wrap;gap:1rem}svg{max-width:100%;height:auto}
pre{background:#f6f6f6;padding:.75rem;overflow-x:auto;font-size:12px}.loud{color:#b00020;font-weight:bold}";

/// The whole page.
///
/// # Errors
/// When a plot cannot be drawn.
pub fn page(report: &Report<'_>) -> Result<String, DrawError> {
    let plots = plots::all(report.results)?;
    let (absences, losses) = (report.absences(), report.losses());
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Corinth beside other gateways" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Corinth beside other gateways" }
                (preface(&report.preface()))
                @for grid in [report.verdicts(), report.standings()] {
                    (table(&grid))
                }
                h2 { "Plots" }
                div class="plots" { @for plot in &plots { (PreEscaped(plot)) } }
                @for grid in [report.figures(Detail::Intervals), report.ratios(Detail::Intervals)] {
                    (table(&grid))
                }
                h2 { "The machine" }
                ul { @for fact in &report.results.environment { li { (fact.name) ": " (fact.value) } } }
                @if !absences.is_empty() {
                    h2 { "Not measured" }
                    ul { @for line in &absences { li { (line) } } }
                }
                @if !losses.is_empty() {
                    h2 { "Without data" }
                    ul { @for line in &losses { li { (line) } } }
                }
                h2 { "What was compared, and how" }
                @for system in &report.results.systems { (configuration(system)) }
            }
        }
    };
    Ok(markup.into_string())
}

/// The sentences that are loud in Markdown are loud here.
fn preface(text: &str) -> Markup {
    html! {
        p {
            @for (index, part) in text.split("**").enumerate() {
                @if index % 2 == 1 { span class="loud" { (part) } } @else { (part.replace('`', "")) }
            }
        }
    }
}

fn table(grid: &Grid) -> Markup {
    html! {
        @if !grid.lines.is_empty() {
            h2 { (grid.title) }
            table {
                tr {
                    @for (column, name) in grid.header.iter().enumerate() {
                        th class=[(column < grid.words).then_some("word")] { (name) }
                    }
                }
                @for line in &grid.lines {
                    tr {
                        @for (column, cell) in line.iter().enumerate() {
                            td class=[class(column < grid.words, cell)] { (cell) }
                        }
                    }
                }
            }
        }
    }
}

fn class(is_word: bool, cell: &str) -> Option<&'static str> {
    if is_word {
        return Some("word");
    }
    match cell {
        "met" => Some("met"),
        "missed" => Some("missed"),
        "regressed" => Some("regressed"),
        "improved" => Some("improved"),
        "–" | "no data" | "not measured" => Some("nothing"),
        _ => None,
    }
}

fn configuration(system: &SystemRecord) -> Markup {
    html! {
        h3 { (system.key.title()) }
        p {
            (system.key.note())
            @if let Some(version) = &system.version { " Version: " (version) "." }
            @if let Some(why) = &system.absent { " Not measured: " (why) "." }
        }
        @if !system.files.is_empty() || !system.commands.is_empty() {
            details {
                summary { "Configuration" }
                @for file in &system.files {
                    p { (file.name) }
                    pre { (file.text) }
                }
                p { "Commands" }
                pre { (system.commands.join("\n")) }
            }
        }
    }
}
