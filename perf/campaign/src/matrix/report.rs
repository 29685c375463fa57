//! What came out of a matrix, as a table and as plots.

use plotters::prelude::*;

use super::{Cell, Lane, Results};
use crate::{statistics::Summary, system::corinth::Way};

/// `auto` may be this far behind the better of the two it chooses from.
pub const AUTO_LEAST: f64 = 0.9;

const WIDTH: u32 = 360;
const HEIGHT: u32 = 320;
const FONT: &str = "sans-serif";
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x77, 0x77, 0x77),
    RGBColor(0xb8, 0xb8, 0xb8),
    RGBColor(0x0b, 0x5c, 0xad),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
];

/// A table in Markdown.
pub fn markdown(results: &Results) -> String {
    let lanes = results.lanes();
    let titles: Vec<String> = lanes.iter().map(|lane| lane.title()).collect();
    let rate = results.bits_per_second / 1_000_000;
    let mut text = format!(
        "Measured {} by `{}`: Mb/s of payload from client to server on four connections, {rate} Mb/s each way; median of \
         {} interleaved rounds of {} s each [95 % interval of the median].{}\n\n",
        results.started,
        results.command,
        results.rounds,
        results.seconds,
        if results.partial {
            " It was interrupted."
        } else {
            ""
        }
    );
    text += &format!(
        "| round trip, loss each way | {} | QUIC ÷ best direct | auto ÷ better of ours | verdict on auto |\n",
        titles.join(" | ")
    );
    text += &format!("|---|{}---:|---:|---|\n", "---:|".repeat(lanes.len()));
    for cell in results.cells() {
        let values = lanes.iter().map(|lane| {
            let summary = results.summary(cell, *lane);
            summary.map_or_else(|| "no data".to_owned(), |summary| shown(&summary, 1))
        });
        let values: Vec<String> = values.collect();
        let quic = results.ratio(cell, Way::Quic, |lane| matches!(lane, Lane::Direct(_)));
        let auto = auto(results, cell);
        let ratio = |found: Option<&Summary>| {
            found.map_or_else(|| "no data".to_owned(), |summary| shown(summary, 2))
        };
        text += &format!(
            "| {cell} | {} | {} | {} | {} |\n",
            values.join(" | "),
            ratio(quic.as_ref()),
            ratio(auto.as_ref()),
            verdict(auto.as_ref())
        );
    }
    for problem in &results.problems {
        text += &format!("\nno figure: {problem}\n");
    }
    text
}

/// What `auto` did beside the better of what it chooses from.
fn auto(results: &Results, cell: Cell) -> Option<Summary> {
    let chosen_from = |lane: Lane| lane.is(Way::Tls) || lane.is(Way::Quic);
    results.ratio(cell, Way::Auto, chosen_from)
}

/// Missed only if the whole interval is below.
fn verdict(found: Option<&Summary>) -> &'static str {
    match found {
        None => "no data",
        Some(summary) if summary.low >= AUTO_LEAST => "met",
        Some(summary) if summary.median >= AUTO_LEAST => "met by the median",
        Some(summary) if summary.high >= AUTO_LEAST => "missed by the median",
        Some(_) => "missed",
    }
}

/// The cells in which `auto` is further behind than it may be.
pub fn missed(results: &Results) -> Vec<Cell> {
    let is_missed = |cell: &Cell| verdict(auto(results, *cell).as_ref()) == "missed";
    results.cells().into_iter().filter(is_missed).collect()
}

fn shown(summary: &Summary, digits: usize) -> String {
    format!(
        "{:.digits$} [{:.digits$} – {:.digits$}]",
        summary.median, summary.low, summary.high
    )
}

/// A plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("drawing the matrix: {0}")]
pub struct DrawError(String);

/// An SVG with a panel for each loss: throughput by round trip, a line for each lane.
///
/// # Errors
/// When it cannot be drawn.
pub fn plot(results: &Results) -> Result<String, DrawError> {
    let mut svg = String::new();
    draw(&mut svg, results).map_err(|why| DrawError(why.to_string()))?;
    Ok(svg)
}

fn draw(svg: &mut String, results: &Results) -> Result<(), Box<dyn std::error::Error>> {
    let cells = results.cells();
    let mut losses: Vec<f64> = Vec::new();
    for cell in &cells {
        if !losses.contains(&cell.lost_percent) {
            losses.push(cell.lost_percent);
        }
    }
    let panels = losses.len().max(1);
    let width = WIDTH * u32::try_from(panels)?;
    let area = SVGBackend::with_string(svg, (width, HEIGHT)).into_drawing_area();
    for (panel, loss) in area.split_evenly((1, panels)).iter().zip(losses) {
        let row: Vec<Cell> = cells
            .iter()
            .copied()
            .filter(|cell| cell.lost_percent == loss)
            .collect();
        draw_panel(panel, results, loss, &row)?;
    }
    area.present()?;
    drop(area);
    Ok(())
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_panel(
    panel: &Panel<'_>,
    results: &Results,
    loss: f64,
    row: &[Cell],
) -> Result<(), Box<dyn std::error::Error>> {
    let highest = results.bits_per_second as f64 / 1e6;
    let last = row.len().saturating_sub(1).max(1) as f64;
    let mut chart = ChartBuilder::on(panel)
        .caption(format!("{loss} % lost each way"), (FONT, 17))
        .margin(8)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(-0.2..last + 0.2, (0.5..highest * 1.2).log_scale())?;
    let name = |place: &f64| {
        let nearest = place.round();
        let is_on_it = (place - nearest).abs() < 0.01 && nearest >= 0.0;
        let cell = is_on_it.then(|| row.get(nearest as usize)).flatten();
        cell.map_or_else(String::new, |cell| cell.round_trip_ms.to_string())
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(row.len().max(2) * 2)
        .x_label_formatter(&name)
        .x_desc("round trip, ms")
        .y_desc("Mb/s")
        .label_style((FONT, 13))
        .draw()?;
    for (index, lane) in results.lanes().into_iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points = line(results, row, lane);
        let drawn = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
        chart
            .draw_series(drawn)?
            .label(lane.title())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 12))
        .draw()?;
    Ok(())
}

fn line(results: &Results, row: &[Cell], lane: Lane) -> Vec<(f64, f64)> {
    let points = row.iter().enumerate();
    points
        .filter_map(|(place, cell)| {
            let summary = results.summary(*cell, lane)?;
            Some((place as f64, summary.median))
        })
        .collect()
}
