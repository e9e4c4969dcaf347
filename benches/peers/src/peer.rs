//! The driver's side of a peer: a process that answers line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use wgloss_peers::{Fallible, Summary};

/// A peer that said hello.
pub struct Running {
    pub name: String,
    pub version: String,
    pub device: String,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

pub enum Reply {
    /// Prepared; what it computed.
    Ready(Summary),
    /// Cannot, and why.
    Skip(String),
    Ms(f64),
}

impl Running {
    fn start(command: &mut Command) -> Fallible<Running> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let to = child.stdin.take().ok_or("no way to the peer")?;
        let from = BufReader::new(child.stdout.take().ok_or("no way from the peer")?);
        let mut peer = Running { name: String::new(), version: String::new(), device: String::new(), child, to, from };
        let line = peer.line()?;
        let mut words = line.split('\t').map(str::to_owned);
        match (words.next().as_deref(), words.next(), words.next(), words.next()) {
            (Some("hello"), Some(name), Some(version), Some(device)) => {
                (peer.name, peer.version, peer.device) = (name, version, device);
                Ok(peer)
            }
            _ => Err(format!("said `{line}` instead of hello").into()),
        }
    }

    /// A peer that ends answers nothing more: that is a reason to leave it out, not to stop the others.
    pub fn ask(&mut self, line: &str) -> Fallible<Reply> {
        let told = writeln!(self.to, "{line}").and_then(|()| self.to.flush());
        let answer = match told.map_err(Into::into).and_then(|()| self.line()) {
            Ok(answer) => answer,
            Err(error) => return Ok(Reply::Skip(format!("ended: {error}"))),
        };
        let number = |word: Option<&str>| -> Fallible<f64> { Ok(word.ok_or("a number is missing")?.parse()?) };
        match answer.split_once(' ') {
            Some(("skip", reason)) => Ok(Reply::Skip(reason.to_owned())),
            Some(("ms", ms)) => Ok(Reply::Ms(number(Some(ms))?)),
            Some(("ready", numbers)) => {
                let mut words = numbers.split(' ');
                let (loss, norm) = (number(words.next())?, number(words.next())?);
                Ok(Reply::Ready(Summary { loss, norm, projection: number(words.next())? }))
            }
            _ => Err(format!("{}: `{answer}` to `{line}`", self.name).into()),
        }
    }

    fn line(&mut self) -> Fallible<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err(format!("{} ended: {}", self.name, self.child.wait()?).into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A peer that has ended already hears neither.
        let _ = writeln!(self.to, "quit");
        let _ = self.child.wait();
    }
}

/// What can run here, wgloss first; a line for each that cannot.
pub fn start(python: &str) -> Fallible<Vec<Running>> {
    let here = std::env::current_exe()?;
    let program = |name: &str| -> PathBuf { here.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX)) };
    let mut peers =
        vec![Running::start(&mut Command::new(program("peer-wgloss"))).map_err(|error| format!("wgloss: {error}"))?];
    let mut add = |name: &str, command: &mut Command| match Running::start(command) {
        Ok(peer) => peers.push(peer),
        Err(error) => println!("skip {name}: {error}"),
    };
    add("wgloss-cpu", Command::new(program("peer-wgloss")).arg("cpu"));
    for (name, how) in [("burn", "make bench-peers BURN=1 (13 minutes on 2 cores)"), ("candle", "make bench-peers")] {
        let path = program(&format!("peer-{name}"));
        match path.exists() {
            true => add(name, &mut Command::new(path)),
            false => println!("skip {name}: not built; {how}"),
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers.py");
    let listed = match Command::new(python).arg(&script).arg("--list").output() {
        Ok(listed) if listed.status.success() => String::from_utf8(listed.stdout)?,
        Ok(listed) => format!("{python}\t{}", listed.status),
        Err(error) => format!("{python}\t{error}"),
    };
    for (name, state) in listed.lines().filter_map(|line| line.split_once('\t')) {
        match state {
            "ok" => add(name, Command::new(python).arg(&script).arg(name)),
            reason => println!("skip {name}: {reason}"),
        }
    }
    Ok(peers)
}
