//! Tables for a terminal, and in Markdown.

use super::{Detail, Grid, Report};

/// For a terminal.
pub fn terminal(report: &Report<'_>) -> String {
    let mut text = format!("{}\n", report.preface().replace("**", "").replace('`', ""));
    for grid in report.grids(Detail::Medians) {
        text += &format!("\n{}\n{}", grid.title, aligned(&grid));
    }
    for line in report.absences().iter().chain(&report.losses()) {
        text += &format!("\n{line}");
    }
    text.trim_end().to_owned() + "\n"
}

/// For a document.
pub fn markdown(report: &Report<'_>) -> String {
    let mut text = format!("{}\n", report.preface());
    for grid in report.grids(Detail::Intervals) {
        text += &format!("\n**{}**\n\n{}", grid.title, table(&grid));
    }
    text += "\n";
    for fact in &report.results.environment {
        text += &format!("- {}: {}\n", fact.name, fact.value);
    }
    for system in &report.results.systems {
        if let Some(version) = &system.version {
            text += &format!("- {}: {version}\n", system.key.title());
        }
    }
    for line in report.absences() {
        text += &format!("- {line}\n");
    }
    let losses = report.losses();
    if !losses.is_empty() {
        text += "\nWithout data:\n\n";
        text.extend(losses.iter().map(|line| format!("- {line}\n")));
    }
    text
}

fn table(grid: &Grid) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rules: Vec<_> = (0..grid.header.len())
        .map(|column| if column < grid.words { "---" } else { "---:" })
        .collect();
    let head = format!("{}|{}|\n", line(&grid.header), rules.join("|"));
    grid.lines
        .iter()
        .fold(head, |text, cells| text + &line(cells))
}

/// Columns under each other.
fn aligned(grid: &Grid) -> String {
    let all = || std::iter::once(&grid.header).chain(&grid.lines);
    let width = |column: usize| {
        let cells = all().filter_map(|line| line.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..grid.header.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let cells = cells.iter().zip(&widths).enumerate();
        let padded: Vec<_> = cells
            .map(|(column, (cell, width))| {
                if column < grid.words {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    all().map(line).collect()
}
