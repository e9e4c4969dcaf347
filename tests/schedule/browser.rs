//! Kernels in a browser: Chromium's compiler, Tint, makes pipelines of every kernel family, with the limits that every
//! WebGPU device has. `WGLOSS_CHROMIUM` is the browser, and `make test-browser` sets it where one is installed.

use super::backends::families;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wgloss::Limits;

/// Time for the browser to start, compile and answer.
const PATIENCE: Duration = Duration::from_secs(240);

/// Compiles each kernel, makes a pipeline of it, and posts a line for each that is refused, then one with the count.
const PAGE: &str = r#"<!doctype html><script type="module">
const said = [];
try {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("no adapter");
  const device = await adapter.requestDevice();
  const kernels = await (await fetch("/kernels")).json();
  for (const code of kernels) {
    const title = code.slice(0, code.indexOf("\n"));
    const module = device.createShaderModule({ code });
    const { messages } = await module.getCompilationInfo();
    const errors = messages.filter(({ type }) => type === "error").map(({ lineNum, message }) => `${lineNum}: ${message}`);
    const compute = { module, entryPoint: "main" };
    const made = device.createComputePipelineAsync({ layout: "auto", compute });
    await made.catch((error) => errors.push(error.message));
    if (errors.length > 0) said.push(`${title}: ${errors.join("; ").replaceAll("\n", " ")}`);
  }
  said.push(`compiled ${kernels.length}`);
} catch (error) {
  said.push(`failed: ${error.message}`);
}
await fetch("/said", { method: "POST", body: said.join("\n") });
</script>"#;

/// A kernel that no compiler takes: one that is not refused would mean that nothing is looked at.
const REFUSED: &str = "// refused on purpose\n@compute @workgroup_size(1) fn main() { return 1.5; }";

/// A request's path and body.
fn request(stream: &TcpStream) -> std::io::Result<(String, String)> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = first.split_whitespace().nth(1).unwrap_or_default().to_owned();
    Ok((path, String::from_utf8_lossy(&body).into_owned()))
}

fn answer(mut stream: TcpStream, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Serves the page and the kernels until the page has said what became of them.
fn serve(listener: &TcpListener, kernels: &str, browser: &mut Child) -> String {
    listener.set_nonblocking(true).expect("a listener that does not wait");
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let Ok((stream, _)) = listener.accept() else {
            assert!(browser.try_wait().expect("a child").is_none(), "the browser ended before it answered");
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        stream.set_nonblocking(false).expect("a stream that waits");
        // A browser opens connections that it does not use.
        let Ok((path, body)) = request(&stream) else { continue };
        let answered = match path.as_str() {
            "/" => answer(stream, "text/html", PAGE),
            "/kernels" => answer(stream, "application/json", kernels),
            "/said" => return body,
            _ => answer(stream, "text/plain", ""),
        };
        drop(answered);
    }
    panic!("the browser did not answer in {PATIENCE:?}");
}

#[test]
fn tint_takes_every_kernel_family() {
    let Some(program) = std::env::var_os("WGLOSS_CHROMIUM").filter(|program| !program.is_empty()) else {
        println!("WGLOSS_CHROMIUM names no browser: Tint compiles nothing");
        return;
    };
    let planned = families(&Limits::WEBGPU).into_iter().flat_map(|(_, preview)| preview.planned.kernels());
    let kernels: BTreeSet<String> = planned.chain([REFUSED.to_owned()]).collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://127.0.0.1:{}/", listener.local_addr().expect("its address").port());
    let profile = std::env::temp_dir().join(format!("wgloss-browser-{}", std::process::id()));
    let mut browser = Command::new(program)
        .args(["--headless", "--no-sandbox", "--no-first-run", "--disable-extensions"])
        .args(["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(address)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    let json = serde_json::to_string(&kernels).expect("text");
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(&listener, &json, &mut browser)));
    browser.kill().expect("a browser that was started here");
    browser.wait().expect("its end");
    let _ = std::fs::remove_dir_all(&profile);
    let said = said.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let lines: Vec<&str> = said.lines().collect();
    let [refused, count] = lines[..] else { panic!("{said}") };
    assert!(refused.starts_with("// refused on purpose: "), "{said}");
    assert_eq!(count, format!("compiled {}", kernels.len()));
}
