//! The outcomes of tuning, kept between runs in a small text file, one line per outcome.

use crate::limits::{Exp2, Limits};
use crate::schedule::{Kernel, Pinned};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// First line of the file; a file that begins otherwise is not read, and written anew.
const HEADER: &str = "wgloss tune cache 1";
/// Most outcomes that a file keeps; the oldest goes first.
const MOST_ENTRIES: usize = 1024;
/// Most bytes of a file; a longer one was not written here.
const MOST_BYTES: u64 = 4 << 20;

/// Outcomes of [`Plan::tune`](crate::Plan::tune) in a file, so that a program tunes once and not at every start.
///
/// An outcome is found again for the same adapter (name, backend, driver, limits), the same kernels, element types and
/// alignment, and rows and columns that round up to the same powers of two. The file is text; one that is damaged, or of
/// another version, is ignored and written anew. It is replaced as a whole: of two processes that write at the same
/// time, one may lose its outcome, and measures again.
///
/// ```no_run
/// use wgloss::{Context, DType, PlanSpec, TuneCache, TuneOptions, losses};
/// # fn main() -> wgloss::Result<()> {
/// let ctx = Context::new()?;
/// let spec = PlanSpec::new().input("input", DType::F32, &[8192, 1000]).input("target", DType::I32, &[8192]);
/// let options = TuneOptions::new().cache(TuneCache::open("target/wgloss-tune.txt"));
/// let plan = ctx.plan(&losses::cross_entropy(), &spec.grad("input"))?.tune(&options)?;
/// println!("{}", plan.explain());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuneCache {
    path: PathBuf,
}

impl TuneCache {
    /// The cache in that file, which need not exist yet, nor its folder.
    pub fn open(path: impl Into<PathBuf>) -> TuneCache {
        TuneCache { path: path.into() }
    }

    /// The cache of this user; `None` where the environment names no folder for it (see [`TuneCache::default_path`]).
    pub fn open_default() -> Option<TuneCache> {
        TuneCache::default_path().map(TuneCache::open)
    }

    /// `wgloss/tune.txt` in the user's cache folder: `%LOCALAPPDATA%` on Windows, `~/Library/Caches` on macOS,
    /// elsewhere `$XDG_CACHE_HOME`, or `~/.cache` where that is not set to an absolute path.
    pub fn default_path() -> Option<PathBuf> {
        cache_folder(std::env::consts::OS, |name| std::env::var_os(name)).map(|folder| folder.join("wgloss/tune.txt"))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Kept> {
        let line = key.line();
        let find = |entry: &String| entry.split_once('\t').filter(|(known, _)| *known == line)?.1.parse().ok();
        self.entries().iter().rev().find_map(find)
    }

    pub(crate) fn put(&self, key: &Key, kept: &Kept) -> io::Result<()> {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let line = key.line();
        let mut entries = self.entries();
        entries.retain(|entry| entry.split_once('\t').is_some_and(|(known, _)| known != line));
        entries.push(format!("{line}\t{}", kept.text()));
        let newest = entries.len().saturating_sub(MOST_ENTRIES);
        let text = std::iter::once(HEADER).chain(entries[newest..].iter().map(String::as_str));
        let text: String = text.flat_map(|line| [line, "\n"]).collect();
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Beside the file, so that a rename replaces it at once.
        let mut beside = self.path.clone().into_os_string();
        beside.push(format!(".{}-{}.tmp", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
        let written = std::fs::File::create(&beside).and_then(|mut file| file.write_all(text.as_bytes()));
        let replaced = written.and_then(|()| std::fs::rename(&beside, &self.path));
        if replaced.is_err() {
            // Nothing more can be done about it; the first error is the one to report.
            let _ = std::fs::remove_file(&beside);
        }
        replaced
    }

    /// Lines after the header; none where the file is missing, too long, not text, or of another version.
    fn entries(&self) -> Vec<String> {
        let mut text = String::new();
        let read = std::fs::File::open(&self.path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
        let mut lines = text.lines().map(str::to_owned);
        match (read, lines.next()) {
            (Ok(bytes), Some(header)) if header == HEADER && (bytes as u64) < MOST_BYTES => lines.collect(),
            _ => Vec::new(),
        }
    }
}

fn cache_folder(os: &str, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.has_root());
    match os {
        "windows" => variable("LOCALAPPDATA").map(PathBuf::from),
        "macos" => absolute("HOME").map(|home| home.join("Library/Caches")),
        _ => absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache"))),
    }
}

/// The facts that an outcome depends on.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// Name, backend, driver, driver's version.
    pub adapter: [String; 4],
    pub limits: Limits,
    pub program: String,
    /// [`fnv`] of the program's kernels under one schedule.
    pub kernels: u64,
    pub rows: u64,
    pub cols: u64,
    /// Element type and mode of each tensor.
    pub tensors: Vec<String>,
    /// Alignment of the tensors, per pass.
    pub alignment: Vec<String>,
    /// The fields that the caller pinned.
    pub pinned: Pinned,
}

impl Key {
    /// One line without tabs. Sizes are rounded up to powers of two.
    fn line(&self) -> String {
        let mut line = self.adapter.join("; ");
        let (rows, cols) = (self.rows.next_power_of_two().ilog2(), self.cols.next_power_of_two().ilog2());
        let _ = write!(
            line,
            "; limits {:016x}; {} {:016x}; rows 2^{rows}, cols 2^{cols}; {}; {}; {}; wgloss {}",
            fnv([format!("{:?}", self.limits).as_bytes()]),
            self.program,
            self.kernels,
            self.tensors.join(", "),
            self.alignment.join(", "),
            schedule_words(&self.pinned),
            env!("CARGO_PKG_VERSION"),
        );
        line.replace(char::is_control, " ")
    }
}

/// FNV-1a, 64 bits: the same on every machine and in every run.
pub(crate) fn fnv<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// An outcome: the fastest schedule, and the medians in milliseconds of the default and of that one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kept {
    pub schedule: Pinned,
    pub default_ms: f64,
    pub ms: f64,
}

impl Kept {
    fn text(&self) -> String {
        format!("{}\t{}\t{}", schedule_words(&self.schedule), self.default_ms, self.ms)
    }
}

impl std::str::FromStr for Kept {
    type Err = ();

    fn from_str(text: &str) -> Result<Kept, ()> {
        let [schedule, default_ms, ms] = text.split('\t').collect::<Vec<_>>()[..] else { return Err(()) };
        let time = |text: &str| text.parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms > 0.0).ok_or(());
        Ok(Kept { schedule: parse_schedule(schedule)?, default_ms: time(default_ms)?, ms: time(ms)? })
    }
}

fn schedule_words(pinned: &Pinned) -> String {
    let mut words = Vec::new();
    match pinned.kernel {
        Some(Kernel::Elementwise) => words.push("elementwise".to_owned()),
        Some(Kernel::Row) => words.push("row".to_owned()),
        Some(Kernel::RowPairs) => words.push("pairs".to_owned()),
        Some(Kernel::RowResident { .. }) => words.push("resident".to_owned()),
        Some(Kernel::RowSplit { splits }) => words.push(format!("splits={splits}")),
        Some(Kernel::ColumnSums { .. } | Kernel::RowScan { .. }) => {
            unreachable!("kernels of column sums and of scans are refused where they are pinned, and never tuned")
        }
        None => {}
    }
    for (name, value) in [("workgroup", pinned.workgroup), ("lanes", pinned.lanes), ("width", pinned.width)] {
        words.extend(value.map(|value| format!("{name}={value}")));
    }
    words.extend(pinned.subgroups.map(|on| format!("subgroups={}", u32::from(on))));
    words.extend(pinned.exp2.map(|exp2| format!("exp2={}", exp2 as u32)));
    words.extend(pinned.carries_nan.map(|on| format!("carries_nan={}", u32::from(on))));
    if words.is_empty() { "default".to_owned() } else { words.join(" ") }
}

const EXP2: [Exp2; 3] = [Exp2::Nothing, Exp2::Sums, Exp2::Functions];

fn parse_schedule(text: &str) -> Result<Pinned, ()> {
    let mut pinned = Pinned::default();
    for word in text.split(' ').filter(|_| text != "default") {
        let (name, value) = word.split_once('=').unwrap_or((word, "0"));
        let value: u32 = value.parse().map_err(|_| ())?;
        match name {
            "elementwise" => pinned.kernel = Some(Kernel::Elementwise),
            "row" => pinned.kernel = Some(Kernel::Row),
            "pairs" => pinned.kernel = Some(Kernel::RowPairs),
            "resident" => pinned.kernel = Some(Kernel::RowResident { trips: 0 }),
            "splits" => pinned.kernel = Some(Kernel::RowSplit { splits: value }),
            "workgroup" => pinned.workgroup = Some(value),
            "lanes" => pinned.lanes = Some(value),
            "width" => pinned.width = Some(value),
            "subgroups" => pinned.subgroups = Some(value != 0),
            "exp2" => pinned.exp2 = Some(*EXP2.get(value as usize).ok_or(())?),
            "carries_nan" => pinned.carries_nan = Some(value != 0),
            _ => return Err(()),
        }
    }
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            adapter: ["llvmpipe", "Vulkan", "llvmpipe", "Mesa 22"].map(str::to_owned),
            limits: Limits::WEBGPU,
            program: "cross_entropy".to_owned(),
            kernels: 7,
            rows: 1000,
            cols: 1000,
            tensors: vec!["input f32".to_owned()],
            alignment: vec!["vectors".to_owned()],
            pinned: Pinned::default(),
        }
    }

    fn kept() -> Kept {
        let kernel = Some(Kernel::RowSplit { splits: 16 });
        let schedule = Pinned {
            kernel,
            workgroup: Some(256),
            lanes: Some(256),
            width: Some(1),
            subgroups: Some(false),
            exp2: Some(Exp2::Sums),
            carries_nan: Some(false),
        };
        Kept { schedule, default_ms: 1.25, ms: 0.1 }
    }

    /// A file of its own in the folder for temporary files, gone afterwards.
    struct Scratch(TuneCache);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let folder = std::env::temp_dir().join(format!("wgloss-{}-{name}", std::process::id()));
            Scratch(TuneCache::open(folder.join("below/tune.txt")))
        }

        fn write(&self, bytes: &[u8]) {
            std::fs::create_dir_all(self.0.path().parent().unwrap()).unwrap();
            std::fs::write(self.0.path(), bytes).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.path().ancestors().nth(2).unwrap());
        }
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let scratch = Scratch::new("found");
        let cache = &scratch.0;
        assert_eq!(cache.get(&key()), None);
        cache.put(&key(), &kept()).unwrap();
        assert_eq!(cache.get(&key()), Some(kept()));
        let other = Key { rows: 5000, ..key() };
        cache.put(&other, &Kept { schedule: Pinned::default(), ..kept() }).unwrap();
        cache.put(&key(), &Kept { ms: 0.2, ..kept() }).unwrap();
        assert_eq!(cache.get(&key()), Some(Kept { ms: 0.2, ..kept() }));
        assert_eq!(cache.get(&other).unwrap().schedule, Pinned::default());
        let text = std::fs::read_to_string(cache.path()).unwrap();
        assert_eq!(text.lines().count(), 3, "a header and one line per key:\n{text}");
        let files = std::fs::read_dir(cache.path().parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside the file");
    }

    #[test]
    fn damaged_and_foreign_files_are_written_anew() {
        let scratch = Scratch::new("damaged");
        let cache = &scratch.0;
        let good = format!("{HEADER}\n{}\t{}\n", key().line(), kept().text());
        let foreign = good.replace("cache 1", "cache 2");
        let cut = &good[..good.len() - 6];
        let never = good.replace("1.25", "NaN");
        for bytes in [&b""[..], b"\xff\xfe\x00", foreign.as_bytes(), never.as_bytes(), b"wgloss tune cache 1\n\t\t\n\n"]
        {
            scratch.write(bytes);
            assert_eq!(cache.get(&key()), None);
            cache.put(&key(), &kept()).unwrap();
            assert_eq!(cache.get(&key()), Some(kept()));
        }
        scratch.write(cut.as_bytes());
        assert_eq!(cache.get(&key()), None, "a line that ends early");
        scratch.write(good.as_bytes());
        assert_eq!(cache.get(&key()), Some(kept()));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_of_put_alone() {
        let cache = TuneCache::open(std::env::temp_dir());
        assert_eq!(cache.get(&key()), None);
        assert!(cache.put(&key(), &kept()).is_err(), "a folder is no file");
    }

    #[test]
    fn the_oldest_outcomes_go_first() {
        let scratch = Scratch::new("oldest");
        let line = |k: usize| format!("{}\t{}\n", Key { kernels: k as u64, ..key() }.line(), kept().text());
        scratch.write((format!("{HEADER}\n") + &(0..MOST_ENTRIES).map(line).collect::<String>()).as_bytes());
        let cache = &scratch.0;
        cache.put(&Key { kernels: u64::MAX, ..key() }, &kept()).unwrap();
        assert_eq!(cache.get(&Key { kernels: 0, ..key() }), None);
        assert!(cache.get(&Key { kernels: 1, ..key() }).is_some());
        assert!(cache.get(&Key { kernels: u64::MAX, ..key() }).is_some());
    }

    #[test]
    fn every_ingredient_changes_the_key() {
        let mut others = vec![
            Key { limits: Limits { subgroup: 32, ..Limits::WEBGPU }, ..key() },
            Key { program: "nll".to_owned(), ..key() },
            Key { kernels: 8, ..key() },
            Key { rows: 1025, ..key() },
            Key { cols: 512, ..key() },
            Key { tensors: vec!["input f16".to_owned()], ..key() },
            Key { alignment: vec!["single".to_owned()], ..key() },
            Key { pinned: Pinned { width: Some(1), ..Pinned::default() }, ..key() },
        ];
        for part in 0..4 {
            let mut other = key();
            other.adapter[part].push('2');
            others.push(other);
        }
        let mut lines: Vec<String> = others.iter().map(Key::line).collect();
        lines.push(key().line());
        let count = lines.len();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), count);
        // The same class: sizes that round up to the same powers of two.
        assert_eq!(Key { rows: 1024, cols: 513, ..key() }.line(), key().line());
        let strange = Key { program: "tab\there\nand there".to_owned(), ..key() };
        assert!(!strange.line().contains(char::is_control));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // Test vectors of Noll's FNV-1a, 64 bits.
        assert_eq!(fnv([&b""[..]]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv([&b"foo"[..], b"bar"]), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn schedules_survive_their_text() {
        let resident = Pinned { kernel: Some(Kernel::RowResident { trips: 0 }), ..Pinned::default() };
        let row = Pinned { kernel: Some(Kernel::Row), lanes: Some(8), subgroups: Some(true), ..Pinned::default() };
        for pinned in [Pinned::default(), resident, row, kept().schedule] {
            assert_eq!(parse_schedule(&schedule_words(&pinned)), Ok(pinned));
        }
        for wrong in ["", "rows", "width=x", "splits=-1", "default width=1"] {
            assert_eq!(parse_schedule(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn folders_are_those_of_the_platform() {
        let none = |_: &str| None;
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/me"));
        let relative = |name: &str| match name {
            "XDG_CACHE_HOME" => Some(OsString::from("cache")),
            _ => home(name),
        };
        let xdg = |name: &str| (name == "XDG_CACHE_HOME").then(|| OsString::from("/cache"));
        assert_eq!(cache_folder("linux", none), None);
        assert_eq!(cache_folder("linux", home), Some(PathBuf::from("/home/me/.cache")));
        assert_eq!(cache_folder("linux", relative), Some(PathBuf::from("/home/me/.cache")), "the XDG rule");
        assert_eq!(cache_folder("linux", xdg), Some(PathBuf::from("/cache")));
        assert_eq!(cache_folder("macos", home), Some(PathBuf::from("/home/me/Library/Caches")));
        assert_eq!(
            cache_folder("windows", |name| (name == "LOCALAPPDATA").then(|| "C:\\me".into())),
            Some("C:\\me".into())
        );
    }
}
