use super::{report, *};

fn series(cell: Cell, lane: Lane, megabits: &[f64]) -> Series {
    Series {
        cell,
        lane,
        megabits: megabits.iter().copied().map(Some).collect(),
    }
}

const CELL: Cell = Cell {
    round_trip_ms: 60,
    lost_percent: 0.1,
};

fn results(tls: &[f64], quic: &[f64], auto: &[f64]) -> Results {
    let ours = |way| Lane::Tunnel(Tunnel::new(way));
    Results {
        schema: SCHEMA.to_owned(),
        command: "corinth-perf matrix".to_owned(),
        started: "then".to_owned(),
        bits_per_second: 500_000_000,
        rounds: 5,
        seconds: 5,
        partial: false,
        series: vec![
            series(CELL, Lane::Direct(Congestion::Cubic), &[100.0; 5]),
            series(CELL, ours(Way::Tls), tls),
            series(CELL, ours(Way::Quic), quic),
            series(CELL, ours(Way::Auto), auto),
        ],
        problems: Vec::new(),
    }
}

#[test]
fn every_loss_is_measured_at_every_distance() {
    let cells = Cell::all(&[0, 60], &[0.0, 1.0]);
    let shown: Vec<String> = cells.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["0 ms, 0 %", "60 ms, 0 %", "0 ms, 1 %", "60 ms, 1 %"]
    );
}

#[test]
fn a_cell_has_half_of_its_round_trip_each_way() {
    let impairment = CELL.impairment(Rate::new(1));
    assert_eq!(impairment.delay, Duration::from_millis(30));
    assert_eq!(impairment.loss, Loss::Bernoulli(0.001));
}

#[test]
fn auto_is_held_against_the_better_of_the_two() {
    let found = results(&[50.0; 5], &[80.0; 5], &[76.0; 5]);
    let chosen_from = |lane: Lane| lane.is(Way::Tls) || lane.is(Way::Quic);
    let ratio = found.ratio(CELL, Way::Auto, chosen_from);
    assert!((ratio.expect("there is data").median - 0.95).abs() < 1e-9);
    assert_eq!(report::missed(&found), []);
    let worse = results(&[50.0; 5], &[80.0; 5], &[60.0; 5]);
    assert_eq!(report::missed(&worse), [CELL]);
}

#[test]
fn rounds_without_a_figure_are_left_out_and_not_zero() {
    let mut found = results(&[50.0; 5], &[80.0; 5], &[80.0; 5]);
    found.series[3].megabits[0] = None;
    let lane = found.series[3].lane;
    assert_eq!(found.summary(CELL, lane).expect("four are there").count, 4);
    found.series[3].megabits.fill(None);
    assert_eq!(found.summary(CELL, lane), None);
    assert!(report::markdown(&found).contains("no data"));
}

#[test]
fn the_report_has_a_line_for_each_cell_and_a_plot() {
    let found = results(&[50.0; 5], &[80.0; 5], &[76.0; 5]);
    let text = report::markdown(&found);
    assert!(
        text.contains("| 60 ms, 0.1 % | 100.0 [100.0 – 100.0] | 50.0"),
        "{text}"
    );
    assert!(text.contains("| 0.95 [0.95 – 0.95] | met |"), "{text}");
    let plot = report::plot(&found).expect("it can be drawn");
    assert!(plot.contains("0.1 % lost each way"));
}

#[test]
fn tunnels_of_one_lab_share_no_port_and_no_folder() {
    let place = campaign::place(std::path::Path::new("/f"));
    let lanes = Lane::all(Some(Congestion::Bbr));
    let recipes: Vec<_> = lanes.iter().map(|lane| lane.recipe(&place, "gw")).collect();
    let ours = &recipes[2..];
    for (index, one) in ours.iter().enumerate() {
        for other in &ours[index + 1..] {
            assert_ne!(one.target, other.target);
            assert_ne!(one.folder, other.folder);
        }
        let files = one.files.iter().map(|file| &file.text);
        assert!(files.clone().any(|text| text.contains("congestion: bbr")));
    }
}
