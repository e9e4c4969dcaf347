//! The loss curve as an SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::Result;

/// One reading: the loss of the training batch, and of all validation digits.
pub struct Reading {
    pub step: usize,
    pub train: f32,
    pub validation: f32,
}

/// Draws both losses against the step into `path`, with a dot at `best`, the reading whose weights are kept.
pub fn draw(path: &Path, readings: &[Reading], best: &Reading) -> Result<()> {
    let losses = || readings.iter().flat_map(|reading| [reading.train, reading.validation]);
    let low = losses().fold(f32::INFINITY, f32::min);
    let high = losses().fold(0.0, f32::max);
    let last = readings.last().map_or(0, |reading| reading.step);

    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let area = SVGBackend::new(path, (800, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Training 784-128-10 on MNIST digits", ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(0..last, low * 0.95..high * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("step (batches of 64)")
        .y_desc("smoothed cross entropy (nats)")
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .draw()?;

    type Value = fn(&Reading) -> f32;
    let series: [(&str, Value, RGBColor); 2] = [
        ("training batch, shifted", |reading| reading.train, RGBColor(150, 180, 215)),
        ("validation", |reading| reading.validation, RGBColor(200, 70, 40)),
    ];
    for (name, value, colour) in series {
        let points = readings.iter().map(|reading| (reading.step, value(reading)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .draw_series([Circle::new((best.step, best.validation), 4, BLACK.filled())])?
        .label("weights kept")
        .legend(|(x, y)| Circle::new((x + 10, y), 4, BLACK.filled()));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 13))
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    Ok(())
}
