//! The page: plots with the tables behind them, errors, ratios, adapters.

use super::plots::{Palette, roofline, series_name, throughput};
use crate::Fallible;
use measure::record::{Clock, Measurement, NotTimed, Peer, Record, Work};
use std::collections::BTreeMap;

const STYLE: &str = include_str!("page.css");

/// One page for all records.
pub fn page(records: &[Record]) -> Fallible<String> {
    let mut body = String::from("<h1>wgloss: measured throughput and errors</h1>\n");
    body.push_str(
        "<p>Every time is a median. <em>Kernels</em> are GPU timestamps around the work, <em>calls</em> are wall clock \
         from encoding to idle; the two are never compared. Throughput counts what must move, inputs once and outputs \
         once. An error of 1 is as much as is allowed, by the numerics contract or by the comparison with peers.</p>\n",
    );
    body.push_str(&adapters(records));
    let palette = Palette::new(records.iter().flat_map(|record| &record.results).map(series_name));
    for (index, record) in records.iter().enumerate() {
        body.push_str(&section(record, index, &palette)?);
    }
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>wgloss report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    ))
}

/// Text as it stands between tags, and in quoted attributes.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

/// An element of one line. Whatever a record says comes to the page through this, [`figure`] and [`table`] alone.
fn line(opening: &str, text: &str) -> String {
    let name = opening.split(' ').next().unwrap_or(opening);
    format!("<{opening}>{}</{name}>\n", escaped(text))
}

/// A table with a caption, heads of columns, and the first cell of each row as its head.
fn table(caption: &str, heads: &[&str], rows: &[Vec<String>]) -> String {
    let head: String = heads.iter().map(|head| format!("<th scope=\"col\">{}</th>", escaped(head))).collect();
    let row = |cells: &Vec<String>| {
        let cell = |(index, cell): (usize, &String)| match index {
            0 => format!("<th scope=\"row\">{}</th>", escaped(cell)),
            _ => format!("<td>{}</td>", escaped(cell)),
        };
        format!("<tr>{}</tr>\n", cells.iter().enumerate().map(cell).collect::<String>())
    };
    let rows: String = rows.iter().map(row).collect();
    let caption = escaped(caption);
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\"><table>\n<caption>{caption}</caption>\n\
         <thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

/// Three digits, without an exponent where that can be.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1e15 => format!("{value:.1e}"),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        v if v >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

fn percent(share: f64) -> String {
    if share.abs() < 1e6 { format!("{:.0}%", 100.0 * share) } else { format!("{:.1e}%", 100.0 * share) }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), digits)
}

/// How fast the adapter copied, and by whose clock.
fn copied(record: &Record) -> String {
    let rate = optional(record.copy_gb_per_s);
    record.copy_clock.map_or(rate.clone(), |clock| format!("{rate}, {}", clock.what()))
}

fn adapters(records: &[Record]) -> String {
    let row = |record: &Record| {
        let adapter = &record.adapter;
        vec![
            adapter.name.clone(),
            adapter.r#type.clone(),
            format!("{}, {}", adapter.backend, adapter.driver),
            copied(record),
            format!("{}, {} threads", record.cpu, record.threads),
            record.date.clone(),
            format!("{} ({})", record.wgloss, record.commit.as_deref().unwrap_or("commit not known")),
        ]
    };
    let heads = ["adapter", "type", "backend, driver", "copy (GB/s)", "CPU", "date", "wgloss"];
    format!("<h2>Adapters</h2>\n{}", table("Adapters", &heads, &records.iter().map(row).collect::<Vec<_>>()))
}

fn section(record: &Record, index: usize, palette: &Palette) -> Fallible<String> {
    let mut text = format!("<section aria-labelledby=\"record{index}\">\n");
    let title = format!("{}, {}", record.adapter.name, record.date);
    text.push_str(&line(&format!("h2 id=\"record{index}\""), &title));
    if let Some(svg) = roofline(record)? {
        text.push_str("<h3>Under the roof of memory</h3>\n");
        text.push_str(&figure(&svg, "Throughput of every loss measured, against a copy of as many bytes"));
    }
    text.push_str(&ratios(record));
    let mut groups: BTreeMap<(String, String, &str), Vec<&Measurement>> = BTreeMap::new();
    for m in &record.results {
        groups.entry((m.loss.clone(), m.dtype.clone(), m.work.name())).or_default().push(m);
    }
    for ((loss, dtype, work), measurements) in &groups {
        let what = format!("{loss}, {dtype}, {}", work.replace('_', " + "));
        text.push_str(&line("h3", &what));
        text.push_str(&figure(&throughput(measurements, palette)?, &format!("Throughput against size: {what}")));
        text.push_str("<details>");
        text.push_str(&line("summary", &format!("Numbers of {what}")));
        text.push_str(&numbers(&what, measurements));
        text.push_str("</details>\n");
    }
    text.push_str(&errors(record));
    text.push_str(&not_timed(record));
    text.push_str(&measured(record));
    text.push_str("</section>\n");
    Ok(text)
}

fn figure(svg: &str, caption: &str) -> String {
    let caption = escaped(caption);
    format!(
        "<figure>\n<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n{svg}\n</div>\n\
         <figcaption>{caption}</figcaption>\n</figure>\n"
    )
}

fn numbers(what: &str, measurements: &[&Measurement]) -> String {
    let row = |m: &&Measurement| {
        vec![
            format!("{} × {}", m.rows, m.cols),
            series_name(m),
            format!("{} ({} to {})", digits(m.median_ms), digits(m.min_ms), digits(m.max_ms)),
            m.runs.to_string(),
            digits(m.gb_per_s),
            m.share_of_copy.map_or_else(|| "–".to_owned(), percent),
            optional(m.error),
        ]
    };
    let heads = ["rows × columns", "by", "median (range), ms", "runs", "GB/s", "of a copy", "error"];
    table(what, &heads, &measurements.iter().map(row).collect::<Vec<_>>())
}

/// How many times faster wgloss is than each peer, call by call.
fn ratios(record: &Record) -> String {
    let mut rows = Vec::new();
    for m in record.results.iter().filter(|m| m.by == "wgloss" && m.clock == Clock::Wall) {
        let same = |other: &&Measurement| {
            other.by != "wgloss"
                && other.clock == Clock::Wall
                && (&other.loss, other.rows, other.cols, &other.dtype, other.work)
                    == (&m.loss, m.rows, m.cols, &m.dtype, m.work)
        };
        for other in record.results.iter().filter(same) {
            let work = if m.work == Work::Forward { "forward" } else { "forward + backward" };
            rows.push(vec![
                format!("{} {} × {}, {}, {work}", m.loss, m.rows, m.cols, m.dtype),
                other.by.clone(),
                digits(m.median_ms),
                digits(other.median_ms),
                digits(other.median_ms / m.median_ms),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let heads = ["work", "peer", "wgloss, ms", "peer, ms", "times faster"];
    format!("<h3>Beside others</h3>\n{}", table("wgloss beside others: medians of calls", &heads, &rows))
}

fn errors(record: &Record) -> String {
    let mut worst: BTreeMap<(&str, &str), (f64, String)> = BTreeMap::new();
    for m in &record.results {
        let Some(error) = m.error else { continue };
        let entry = worst.entry((&m.loss, &m.by)).or_insert((f64::NEG_INFINITY, String::new()));
        // NaN is the worst there is.
        if error.is_nan() || error > entry.0 {
            *entry = (error, format!("{} × {}, {}", m.rows, m.cols, m.dtype));
        }
    }
    if worst.is_empty() {
        return String::new();
    }
    let row = |((loss, by), (error, at)): (&(&str, &str), &(f64, String))| {
        vec![(*loss).to_owned(), (*by).to_owned(), digits(*error), at.clone()]
    };
    let rows: Vec<Vec<String>> = worst.iter().map(row).collect();
    format!(
        "<h3>Worst errors</h3>\n{}",
        table("Worst errors; 1 is as much as is allowed", &["loss", "by", "error", "at"], &rows)
    )
}

/// The works that could not be measured.
fn not_timed(record: &Record) -> String {
    let row = |left: &NotTimed| vec![left.work.clone(), left.by.clone(), left.reason.clone()];
    titled("Not timed", &["work", "by", "why"], record.not_timed.iter().map(row).collect())
}

/// Versions and devices of who was measured.
fn measured(record: &Record) -> String {
    let row = |peer: &Peer| vec![peer.by.clone(), peer.version.clone(), peer.device.clone()];
    titled("Who was measured", &["by", "version", "device"], record.peers.iter().map(row).collect())
}

/// A table under a heading of its own; nothing where it would be empty.
fn titled(title: &str, heads: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() { String::new() } else { line("h3", title) + &table(title, heads, &rows) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use measure::record::Adapter;

    fn measurement(by: &str, cols: usize, clock: Clock, median_ms: f64) -> Measurement {
        let bytes = 8 * 1024 * cols as u64;
        Measurement {
            loss: "cross_entropy".to_owned(),
            rows: 1024,
            cols,
            dtype: "f32".to_owned(),
            work: Work::ForwardBackward,
            by: by.to_owned(),
            clock,
            bytes,
            median_ms,
            min_ms: median_ms,
            max_ms: 2.0 * median_ms,
            runs: 5,
            gb_per_s: bytes as f64 / median_ms / 1e6,
            share_of_copy: Some(0.9),
            error: Some(0.25),
        }
    }

    fn record() -> Record {
        let text = |text: &str| text.to_owned();
        Record {
            format: 1,
            wgloss: text("0.1.0"),
            commit: None,
            date: text("2026-11-21"),
            adapter: Adapter {
                name: text("A <b> & \"c\""),
                backend: text("Vulkan"),
                driver: text("d"),
                r#type: text("Cpu"),
            },
            cpu: text("a CPU"),
            threads: 2,
            copy_gb_per_s: Some(20.0),
            copy_clock: Some(Clock::Gpu),
            notes: None,
            peers: vec![Peer { by: text("burn"), version: text("0.22"), device: text("a <device>") }],
            not_timed: vec![NotTimed { work: text("mse 8x8 bf16"), by: text("burn"), reason: text("it is f32") }],
            results: vec![
                measurement("wgloss", 1000, Clock::Gpu, 2.0),
                measurement("wgloss", 1000, Clock::Wall, 3.0),
                measurement("wgloss", 32_000, Clock::Wall, 90.0),
                measurement("burn", 1000, Clock::Wall, 30.0),
                measurement("pytorch-cpu", 32_000, Clock::Wall, 45.0),
            ],
        }
    }

    #[test]
    fn ratios_compare_calls_of_the_same_work() {
        let page = page(&[record()]).unwrap();
        assert!(page.contains("<td>burn</td><td>3.00</td><td>30.0</td><td>10.0</td>"), "ten times faster");
        assert!(page.contains("<td>pytorch-cpu</td><td>90.0</td><td>45.0</td><td>0.50</td>"), "half as fast");
        assert_eq!(page.matches("<td>burn</td>").count(), 3, "a ratio, an error, what was left out: {page}");
    }

    #[test]
    fn a_record_tells_what_is_missing_and_whose_clock() {
        let page = page(&[record()]).unwrap();
        assert!(page.contains("<td>20.0, kernels</td>"), "{page}");
        assert!(page.contains("<th scope=\"row\">mse 8x8 bf16</th><td>burn</td><td>it is f32</td>"), "{page}");
        assert!(page.contains("<td>0.22</td><td>a &lt;device&gt;</td>"), "{page}");
        let silent = super::page(&[Record { peers: vec![], not_timed: vec![], copy_clock: None, ..record() }]).unwrap();
        assert!(
            silent.contains("<td>20.0</td>") && !silent.contains("Not timed") && !silent.contains("Who was measured")
        );
    }

    #[test]
    fn whatever_a_record_says_is_text() {
        let evil = "'\"><script>alert(1)</script><img src=x onerror=alert(2)>".to_owned();
        let all = |m: Measurement| Measurement { loss: evil.clone(), dtype: evil.clone(), by: evil.clone(), ..m };
        let wgloss =
            Measurement { loss: evil.clone(), dtype: evil.clone(), ..measurement("wgloss", 8, Clock::Wall, 1.0) };
        let record = Record {
            wgloss: evil.clone(),
            commit: Some(evil.clone()),
            date: evil.clone(),
            adapter: Adapter { name: evil.clone(), backend: evil.clone(), driver: evil.clone(), r#type: evil.clone() },
            cpu: evil.clone(),
            peers: vec![Peer { by: evil.clone(), version: evil.clone(), device: evil.clone() }],
            not_timed: vec![NotTimed { work: evil.clone(), by: evil.clone(), reason: evil.clone() }],
            results: vec![all(measurement("", 8, Clock::Wall, 1.0)), wgloss],
            ..record()
        };
        let page = page(&[record]).unwrap();
        for tag in ["<script", "<img", "'\">", "'>"] {
            assert!(!page.contains(tag), "{tag}");
        }
        assert!(page.matches("&lt;script&gt;").count() > 20, "each field is shown");
    }

    #[test]
    fn numbers_out_of_all_proportion_are_listed_and_not_plotted() {
        let begin = std::time::Instant::now();
        for number in [1e308, 5e-324, 0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 1e30] {
            let mut odd = record();
            odd.copy_gb_per_s = Some(number);
            for m in &mut odd.results[..2] {
                (m.gb_per_s, m.median_ms, m.share_of_copy, m.error) = (number, number, Some(number), Some(number));
            }
            odd.results[2].bytes = u64::MAX;
            odd.results[3].bytes = 0;
            let page = page(&[odd]).unwrap();
            assert!(page.len() < 200_000, "{number}: {} bytes", page.len());
            assert!(!page.contains("NaN\"") && !page.contains("-2147483648"), "{number}: a place in a plot");
            assert!(page.contains("<svg"), "{number}");
        }
        assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_page_stands_by_itself_and_names_are_text() {
        let page = page(&[record(), record()]).unwrap();
        assert!(page.contains("A &lt;b&gt; &amp; &quot;c&quot;") && !page.contains("<b>"));
        assert!(!page.contains("src=") && !page.contains("href="), "nothing is loaded from elsewhere");
        assert_eq!(page.matches("<svg").count(), 4, "a roof and a loss for each record");
        assert!(page.contains("prefers-color-scheme") || page.contains("color-scheme"));
        assert_eq!(page.matches("<table>").count(), page.matches("<caption>").count());
    }
}
