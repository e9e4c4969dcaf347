//! Plots of a record as SVG that takes the page's text colour.

use crate::Fallible;
use measure::record::{Clock, Measurement, Record};
use plotters::coord::{CoordTranslate, Shift};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use std::collections::BTreeMap;

const SIZE: (u32, u32) = (720, 440);
/// Okabe and Ito (2008): told apart by colour-blind readers, on light and on dark.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(140, 140, 140),
];
/// Stands for the page's text colour until the picture is drawn.
const INK: RGBColor = RGBColor(1, 2, 3);

/// The name of a series with its clock: kernels by timestamps and calls by wall clock are never the same series.
pub fn series_name(m: &Measurement) -> String {
    format!("{}, {}", m.by, m.clock.what())
}

/// Colour and mark of each name, the same in every plot of a page; unknown names come last.
pub struct Palette(Vec<String>);

impl Palette {
    pub fn new(names: impl Iterator<Item = String>) -> Palette {
        // wgloss first: its look does not depend on who was measured beside it.
        let mut names: Vec<String> = names.collect();
        names.sort_by_key(|name| (!name.starts_with("wgloss"), name.clone()));
        names.dedup();
        Palette(names)
    }

    fn index(&self, name: &str) -> usize {
        self.0.iter().position(|known| known == name).unwrap_or(self.0.len())
    }
}

/// Bounds of an axis: beyond any machine, and few enough decades to draw.
const PLOTTABLE: std::ops::RangeInclusive<f64> = 1e-6..=1e9;

fn is_plottable(value: &f64) -> bool {
    PLOTTABLE.contains(value)
}

/// A series: its points, in megabytes that must move and gigabytes a second.
type Series = BTreeMap<String, Vec<(f64, f64)>>;

fn series<'a>(measurements: impl Iterator<Item = &'a Measurement>, name: impl Fn(&Measurement) -> String) -> Series {
    let mut all = Series::new();
    for m in measurements {
        let (x, y) = (m.bytes as f64 / 1e6, m.gb_per_s);
        let points = all.entry(name(m)).or_default();
        points.extend((is_plottable(&x) && is_plottable(&y)).then_some((x, y)));
    }
    all.values_mut().for_each(|points| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    all
}

/// Throughput of the adapter per loss and size, under the roof of a copy measured in the same run.
pub fn roofline(record: &Record) -> Fallible<Option<String>> {
    let clock =
        if record.results.iter().any(|m| m.by == "wgloss" && m.clock == Clock::Gpu) { Clock::Gpu } else { Clock::Wall };
    let own = record.results.iter().filter(|m| m.by == "wgloss" && m.clock == clock);
    let all = series(own, |m| format!("{} {}", m.dtype, m.work.name().replace('_', " + ")));
    if all.is_empty() {
        return Ok(None);
    }
    let palette = Palette::new(all.keys().cloned());
    let roof = record.copy_gb_per_s.filter(is_plottable).map(|rate| {
        let what = record.copy_clock.map_or_else(String::new, |clock| format!(" ({})", clock.what()));
        Roof { rate, name: format!("copy in the same run{what}") }
    });
    draw(&all, &palette, roof.as_ref(), false).map(Some)
}

struct Roof {
    rate: f64,
    name: String,
}

/// Throughput against size of one loss: the GPU, the CPU, and peers.
pub fn throughput(measurements: &[&Measurement], palette: &Palette) -> Fallible<String> {
    draw(&series(measurements.iter().copied(), series_name), palette, None, true)
}

fn draw(all: &Series, palette: &Palette, roof: Option<&Roof>, lines: bool) -> Fallible<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw_on(&area, all, palette, roof, lines).map_err(|error| format!("a plot: {error}"))?;
    }
    // As wide as the page, in the page's colours.
    let svg = svg.replace("#010203", "currentColor");
    let sized = format!("width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1);
    Ok(svg.replacen(&sized, "class=\"plot\" aria-hidden=\"true\" focusable=\"false\"", 1))
}

/// A range on a logarithmic axis with some room around the values.
fn room(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, 0.0f64);
    for value in values {
        (low, high) = (low.min(value), high.max(value));
    }
    if high == 0.0 { (1.0, 10.0) } else { (low / 2.0, high * 2.0) }
}

/// Values to be named on a logarithmic axis: 1, 2 and 5 of each decade, or the decades alone of a long one.
fn named((low, high): (f64, f64)) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let steps: &[f64] = if high / low > 1e4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
    all.filter(|value| (low..=high).contains(value)).collect()
}

/// As short as it can be told.
fn number(value: &f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

fn draw_on(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    all: &Series,
    palette: &Palette,
    roof: Option<&Roof>,
    lines: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || all.values().flatten();
    let (left, right) = room(points().map(|p| p.0));
    let (bottom, top) = room(points().map(|p| p.1).chain(roof.map(|roof| roof.rate)));
    let axis = |(low, high): (f64, f64)| (low..high).log_scale().with_key_points(named((low, high)));
    // The legend stands below the plot, two names a line, where it covers nothing.
    let names = all.len() + usize::from(roof.is_some());
    let legend = 26 * names.div_ceil(2) as i32 + 8;
    let (upper, lower) = area.split_vertically(SIZE.1 as i32 - legend);
    let mut chart = ChartBuilder::on(&upper)
        .margin(12)
        .margin_right(24)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(axis((left, right)), axis((bottom, top)))?;
    let text = ("sans-serif", 15).into_font().color(&INK);
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(INK.mix(0.25))
        .light_line_style(INK.mix(0.08))
        .label_style(text.clone())
        .axis_desc_style(text.clone())
        .x_desc("bytes that must move (MB)")
        .y_desc("throughput (GB/s)")
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .draw()?;
    if let Some(roof) = roof {
        chart.draw_series([dashed([(left, roof.rate), (right, roof.rate)])])?;
    }
    for (name, points) in all {
        let look = palette.index(name);
        if lines {
            let line = LineSeries::new(points.iter().copied(), COLOURS[look % COLOURS.len()].stroke_width(2));
            chart.draw_series(line)?;
        }
        points.iter().try_for_each(|point| mark(chart.plotting_area(), look, *point))?;
    }
    draw_legend(&lower, all, palette, roof)?;
    area.present()?;
    Ok(())
}

/// Names beside their marks, two a line.
fn draw_legend(
    lower: &DrawingArea<SVGBackend<'_>, Shift>,
    all: &Series,
    palette: &Palette,
    roof: Option<&Roof>,
) -> Result<(), Box<dyn std::error::Error>> {
    let text = ("sans-serif", 15).into_font().color(&INK);
    let at = |index: usize| (76 + (index % 2) as i32 * 320, 14 + 26 * (index / 2) as i32);
    let name = |name: &str, (x, y)| Text::new(name.to_owned(), (x + 16, y - 8), text.clone());
    // As in the plot, whatever the order: by the palette.
    let mut known: Vec<&String> = all.keys().collect();
    known.sort_by_key(|name| palette.index(name));
    for (index, series) in known.iter().enumerate() {
        mark(lower, palette.index(series), at(index))?;
        lower.draw(&name(series, at(index)))?;
    }
    if let Some(roof) = roof {
        let (x, y) = at(known.len());
        lower.draw(&dashed([(x - 11, y), (x + 11, y)]))?;
        lower.draw(&name(&roof.name, (x, y)))?;
    }
    Ok(())
}

/// Looks like nothing that is measured.
fn dashed<C: Clone>(path: [C; 2]) -> DashedPathElement<std::array::IntoIter<C, 2>, i32> {
    DashedPathElement::new(path, 8, 6, INK.stroke_width(2))
}

/// A mark of a series: told by its shape, not only by its colour.
fn mark<C>(area: &DrawingArea<SVGBackend<'_>, C>, look: usize, at: C::From) -> Result<(), Box<dyn std::error::Error>>
where
    C: CoordTranslate<From: Clone + 'static>,
{
    let colour = COLOURS[look % COLOURS.len()];
    let (filled, hollow) = (colour.filled(), colour.stroke_width(2));
    let square = |style| EmptyElement::at(at.clone()) + Rectangle::new([(-5, -5), (5, 5)], style);
    match look % 6 {
        0 => area.draw(&Circle::new(at, 6, filled)),
        1 => area.draw(&Circle::new(at, 6, hollow)),
        2 => area.draw(&square(filled)),
        3 => area.draw(&TriangleMarker::new(at, 7, filled)),
        4 => area.draw(&square(hollow)),
        _ => area.draw(&Cross::new(at, 6, hollow)),
    }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_looks_the_same_whoever_else_is_in_the_plot() {
        let names = ["burn, calls", "wgloss, calls", "burn, calls", "wgloss, kernels"].map(str::to_owned);
        let palette = Palette::new(names.into_iter());
        assert_eq!(
            ["wgloss, calls", "wgloss, kernels", "burn, calls", "else"].map(|name| palette.index(name)),
            [0, 1, 2, 3]
        );
    }
}
