//! Plots, each an SVG of its own. What has no data has no bar and no line, and says so.

use plotters::{
    coord::ranged1d::SegmentValue,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    measure::{Figure, Measure, Sample},
    results::Results,
    rows::{Row, by_id},
    statistics::Summary,
    system::SystemKey,
};

/// Rows drawn as bars, in their order.
const BARS: [&str; 9] = [
    "bulk-1-up",
    "bulk-8-up",
    "bulk-8-down",
    "cpu-8-up",
    "crr",
    "added-p50",
    "open-same-p99",
    "rss-bulk",
    "rss-8000",
];
const WIDTH: u32 = 720;
const BAR_HEIGHT: u32 = 26;
const FONT: &str = "sans-serif";
const OURS: RGBColor = RGBColor(0x0b, 0x5c, 0xad);
const OTHERS: RGBColor = RGBColor(0x9a, 0xa8, 0xb5);
/// Of lines, by system.
const COLOURS: [RGBColor; 12] = [
    RGBColor(0x77, 0x77, 0x77),
    OURS,
    RGBColor(0x5f, 0x9c, 0xd9),
    RGBColor(0x1f, 0x3b, 0x63),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xc0, 0x1c, 0x28),
    RGBColor(0x7b, 0x3f, 0xa0),
    RGBColor(0x8d, 0x6e, 0x4f),
    RGBColor(0x2a, 0xa1, 0xb3),
];

/// A plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("drawing {title}: {why}")]
pub struct DrawError {
    title: String,
    why: String,
}

/// All plots there is data for.
///
/// # Errors
/// When one cannot be drawn.
pub fn all(results: &Results) -> Result<Vec<String>, DrawError> {
    let mut plots = Vec::new();
    for row in BARS.iter().filter_map(|id| by_id(id)) {
        if let Some(plot) = bars(results, row)? {
            plots.push(plot);
        }
    }
    plots.extend(curves(results)?);
    Ok(plots)
}

/// A bar for each system with its interval.
fn bars(results: &Results, row: &Row) -> Result<Option<String>, DrawError> {
    // The direct path is the limit, no competitor, and would make all other bars short.
    let systems: Vec<(SystemKey, Option<Summary>)> = results
        .measured()
        .filter(|key| *key != SystemKey::Direct)
        .filter(|key| !results.samples_of(row.measure, *key).is_empty())
        .filter(|key| !row.series(results, *key).is_empty())
        .map(|key| (key, row.summary(results, key)))
        .collect();
    let highest = systems
        .iter()
        .filter_map(|(_, summary)| Some(summary.as_ref()?.high));
    let Some(highest) = highest.reduce(f64::max).filter(|highest| *highest > 0.0) else {
        return Ok(None);
    };
    let direct = row.summary(results, SystemKey::Direct);
    let direct = direct.map_or_else(String::new, |direct| {
        format!("; the direct path: {}", row.text(direct.median))
    });
    let title = format!("{} ({}){direct}", row.title, row.unit);
    let height = 80 + BAR_HEIGHT * u32::try_from(systems.len()).unwrap_or(1);
    let mut svg = String::new();
    draw_bars(&mut svg, height, &title, row, &systems, highest).map_err(|why| DrawError {
        title,
        why: why.to_string(),
    })?;
    Ok(Some(svg))
}

fn draw_bars(
    svg: &mut String,
    height: u32,
    title: &str,
    row: &Row,
    systems: &[(SystemKey, Option<Summary>)],
    highest: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    let last = systems.len() - 1;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 19))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(170)
        .build_cartesian_2d(0.0..highest * 1.25, (0..last).into_segmented())?;
    let name = |value: &SegmentValue<usize>| match value {
        SegmentValue::CenterOf(index) | SegmentValue::Exact(index) => systems
            .get(last.saturating_sub(*index))
            .map_or_else(String::new, |(key, _)| key.title().to_owned()),
        SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(systems.len())
        .y_label_formatter(&name)
        .x_label_formatter(&|value| row.text(*value))
        .label_style((FONT, 15))
        .draw()?;
    let beside_bar = TextStyle::from((FONT, 15)).pos(Pos::new(HPos::Left, VPos::Center));
    for (index, (key, summary)) in systems.iter().enumerate() {
        // The first system is drawn at the top.
        let place = last - index;
        let at = SegmentValue::CenterOf(place);
        let Some(summary) = summary else {
            chart.draw_series([Text::new(
                "no data",
                (highest * 0.01, at),
                beside_bar.clone(),
            )])?;
            continue;
        };
        let colour = if *key == SystemKey::Corinth {
            OURS
        } else {
            OTHERS
        };
        let end = if place == last {
            SegmentValue::Last
        } else {
            SegmentValue::Exact(place + 1)
        };
        let mut bar = Rectangle::new(
            [
                (0.0, SegmentValue::Exact(place)),
                (summary.median.max(0.0), end),
            ],
            colour.filled(),
        );
        bar.set_margin(4, 4, 0, 0);
        chart.draw_series([bar])?;
        let spread = [
            (summary.low.max(0.0), at.clone()),
            (summary.high.max(0.0), at.clone()),
        ];
        chart.draw_series([PathElement::new(spread, BLACK.stroke_width(2))])?;
        let beside = summary.high.max(summary.median).max(0.0) + highest * 0.015;
        let label = row.text(summary.median);
        chart.draw_series([Text::new(label, (beside, at), beside_bar.clone())])?;
    }
    area.present()?;
    drop(chart);
    drop(area);
    Ok(())
}

/// Response times by percentile, of the round in the middle.
fn curves(results: &Results) -> Result<Option<String>, DrawError> {
    let title = "request on a schedule, same rate for all: response time by percentile (µs)";
    let lines: Vec<(SystemKey, Vec<(f64, f64)>)> = results
        .measured()
        .filter_map(|key| Some((key, curve(results, key)?)))
        .collect();
    let times = || {
        lines
            .iter()
            .flat_map(|(_, points)| points)
            .map(|(_, us)| *us)
    };
    let (Some(low), Some(high)) = (times().reduce(f64::min), times().reduce(f64::max)) else {
        return Ok(None);
    };
    let mut svg = String::new();
    draw_curves(&mut svg, title, &lines, low, high).map_err(|why| DrawError {
        title: title.to_owned(),
        why: why.to_string(),
    })?;
    Ok(Some(svg))
}

/// Points of the round whose p99 is in the middle: how many nines, and microseconds.
fn curve(results: &Results, key: SystemKey) -> Option<Vec<(f64, f64)>> {
    let samples = results.samples_of(Measure::OpenSame, key).iter().flatten();
    let mut samples: Vec<&Sample> = samples.filter(|sample| !sample.curve.is_empty()).collect();
    let p99 = |sample: &Sample| sample.figure(Figure::P99Us).unwrap_or(f64::INFINITY);
    samples.sort_by(|left, right| p99(left).total_cmp(&p99(right)));
    let middle = samples.get(samples.len() / 2)?;
    let points = middle.curve.iter().filter(|(_, us)| *us > 0.0);
    let points: Vec<_> = points
        .map(|(percentile, us)| (nines(*percentile), *us))
        .collect();
    (!points.is_empty()).then_some(points)
}

/// The most nines that are drawn.
const NINES_MAX: f64 = 4.0;

/// 90 is one, 99 two, 99.9 three.
fn nines(percentile: f64) -> f64 {
    let above = (1.0 - percentile / 100.0).max(10_f64.powf(-NINES_MAX));
    -above.log10()
}

fn draw_curves(
    svg: &mut String,
    title: &str,
    lines: &[(SystemKey, Vec<(f64, f64)>)],
    low: f64,
    high: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, (WIDTH, 420)).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(8)
        .margin_right(36)
        .x_label_area_size(32)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..NINES_MAX, ((low * 0.8)..(high * 1.3)).log_scale())?;
    let percentile = |nines: &f64| match nines.round() as u32 {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        many => format!(
            "99{}{} %",
            if many > 2 { "." } else { "" },
            "9".repeat(many as usize - 2)
        ),
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(5)
        .x_label_formatter(&percentile)
        .y_label_formatter(&|us| crate::rows::number(*us, 0))
        .label_style((FONT, 15))
        .draw()?;
    for (key, points) in lines {
        let index = SystemKey::ALL.iter().position(|known| known == key);
        let colour = COLOURS[index.unwrap_or_default() % COLOURS.len()];
        let width = if *key == SystemKey::Corinth { 3 } else { 1 };
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(width),
            ))?
            .label(key.title())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 15))
        .draw()?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(())
}
