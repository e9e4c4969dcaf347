"""Loss and gradient by PyTorch, eager and compiled, by Liger and by QuACK: checked, then timed with CUDA events.

    device_peers.py [--like WGLOSS.json] [--json PATH] [--seconds S]

Takes works and sizes from the record of the `device` benchmark, or, without one, its full sizes. Bytes are those that
must move: inputs read once, gradient and loss written once; labels count 4 bytes, as there. Before each timed step a
buffer larger than the L2 cache is written, outside the events; a peer that waits for the device in the midst of its
step pays for that. Without torch or CUDA it says so and exits with 0.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
import warnings

K = 1024
FLUSH_BYTES = 256 << 20  # as benches/device/clock.rs
SLEEP_CYCLES = 2_000_000
WARM_UP, ROUNDS = 5, 31
SPAN = 6.0  # as benches/device/kernels.wgsl
SIZE = {"bf16": 2, "f32": 4}
# ‖got − want‖/‖want‖ of gradients, |got − want|/|want| of the loss: a few roundings of the storage type.
TOLERANCE = {"bf16": 1e-2, "f32": 1e-4}


def full_works():
    shapes = [("cross_entropy", 32 * K, 4 * K), ("cross_entropy", 32 * K, 32 * K), ("cross_entropy", 16 * K, 128 * K)]
    shapes += [("cross_entropy", 8 * K, 256 * K), ("cross_entropy", 64 * K, 10), ("cross_entropy", 128 * K, 1000)]
    shapes += [("cross_entropy", 4 * K, 32_000), ("cross_entropy", 16 * K, 50_257), ("cross_entropy", 2 * K, 128_256)]
    shapes += [(name, 64 * K, 4 * K) for name in ("mse", "huber", "bce_with_logits")]
    return [dict(work=w, dtype=d, rows=r, cols=c) for d in SIZE for w, r, c in shapes]


def works_like(path):
    with open(path, encoding="utf-8") as file:
        lines = json.load(file)["lines"]
    return [{key: line[key] for key in ("work", "dtype", "rows", "cols")} for line in lines] or full_works()


def bytes_of(work):
    """read inputs; write gradient and loss"""
    elements = work["rows"] * work["cols"] * SIZE[work["dtype"]]
    return 2 * elements + 4 * work["rows"] + 4 if work["work"] == "cross_entropy" else 3 * elements + 4


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


class Peers:
    """What runs a work: each gives loss and gradient of `x`, `y`."""

    def __init__(self, torch):
        self.torch = torch
        self.missing = {}
        self.versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
        self.liger = self.optional("liger", "liger_kernel.ops.cross_entropy")
        self.quack = self.optional("quack", "quack.cross_entropy")

    def optional(self, name, module):
        try:
            return importlib.import_module(module)
        except Exception as error:  # Packages for other machines fail at import in many ways.
            self.missing[name] = first_line(error)
            return None

    def loss(self, name):
        F = self.torch.nn.functional
        bce = F.binary_cross_entropy_with_logits
        return {"cross_entropy": F.cross_entropy, "mse": F.mse_loss, "huber": F.huber_loss, "bce_with_logits": bce}[name]

    def with_gradient(self, loss):
        def step(x, y):
            value = loss(x, y)
            return value, self.torch.autograd.grad(value, x)[0]

        return step

    def of(self, work):
        """Name, step, and whether the step overwrites `x`."""
        torch, loss = self.torch, self.loss(work["work"])
        torch._dynamo.reset()
        yield "torch eager", self.with_gradient(loss), False
        compiled = torch.compile(lambda x, y: loss(x, y), dynamic=False)
        yield "torch.compile", self.with_gradient(compiled), False
        if work["work"] != "cross_entropy":
            return
        if self.liger:
            apply = self.liger.LigerCrossEntropyFunction.apply
            # Its gradient takes the logits' place, without autograd knowing.
            yield "liger", self.with_gradient(lambda x, y: apply(x, y, None)[0]), True
        if self.quack:
            yield "quack", self.with_gradient(self.quack.cross_entropy), False
            if hasattr(self.quack, "cross_entropy_fwd"):
                rows = work["rows"]

                def fused(x, y):
                    # Losses and gradients of rows, as of their sum: the mean would be one more trip.
                    losses, grad = self.quack.cross_entropy_fwd(x.detach(), y, return_dx=True)
                    return losses.sum() / rows, grad

                yield "quack fused", fused, False


def sample_rows(rows):
    count = min(16, rows)
    return sorted({k * (rows - 1) // max(count - 1, 1) for k in range(count)})


def reference(torch, loss, work, x, y):
    """The mean, and gradients of sampled rows, in f64, without a copy of the whole in f64."""
    rows, total = work["rows"], 0.0
    step = max(1, (1 << 26) // work["cols"])
    for first in range(0, rows, step):
        some = slice(first, min(first + step, rows))
        total += loss(x[some].double(), y[some].double() if y.is_floating_point() else y[some], reduction="sum").item()
    count = rows if work["work"] == "cross_entropy" else rows * work["cols"]
    picked = sample_rows(rows)
    sample = x.detach()[picked].double().requires_grad_()
    targets = y[picked].double() if y.is_floating_point() else y[picked]
    (grad,) = torch.autograd.grad(loss(sample, targets, reduction="sum") / count, sample)
    return total / count, grad, picked, count


def fault(torch, work, name, value, grad, want):
    mean, rows_grad, picked, count = want
    tolerance = TOLERANCE[work["dtype"]]
    if name == "quack fused":
        rows_grad = rows_grad * count
    off = abs(float(value) - mean) / abs(mean)
    if not off <= tolerance:
        return f"loss {float(value)}, want {mean}"
    got = grad[picked].double()
    off = (torch.linalg.norm(got - rows_grad) / torch.linalg.norm(rows_grad)).item()
    return None if off <= tolerance else f"gradient off by {off:.1e} of its norm"


def summary(samples, count):
    ordered = sorted(samples)
    ms = statistics.median(ordered)
    at = lambda share: ordered[round((len(ordered) - 1) * share)]
    return dict(ms=ms, p10_ms=at(0.1), p90_ms=at(0.9), gb_per_s=count / ms / 1e6, samples_ms=samples)


def measure(peers, work, flush):
    torch = peers.torch
    shape, dtype = (work["rows"], work["cols"]), {"bf16": torch.bfloat16, "f32": torch.float32}[work["dtype"]]
    torch.manual_seed(1)
    x0 = torch.empty(shape, dtype=dtype, device="cuda").uniform_(-SPAN, SPAN)
    if work["work"] == "cross_entropy":
        y = torch.randint(0, work["cols"], shape[:1], device="cuda")
    else:
        y = torch.empty(shape, dtype=dtype, device="cuda").uniform_(-SPAN, SPAN)
    want = reference(torch, peers.loss(work["work"]), work, x0, y)
    spare = torch.empty_like(x0)

    def prepared(in_place):
        if not in_place:
            return x0.detach().requires_grad_()
        spare.copy_(x0)
        return spare.detach().requires_grad_()

    def timed(step, in_place):
        x = prepared(in_place) if step else None
        flush.zero_()
        # Longer than the host takes to queue the step, so that its launches do not wait for Python.
        torch.cuda._sleep(SLEEP_CYCLES)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        if step:
            step(x, y)
        else:
            spare.copy_(x0)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    runs, steps = {}, []
    for name, step, in_place in peers.of(work):
        try:
            value, grad = step(prepared(in_place), y)
            problem = fault(torch, work, name, value, grad, want)
            del value, grad
            for _ in range(0 if problem else WARM_UP):
                timed(step, in_place)
        except Exception as error:  # Out of memory, or a shape that a peer does not take: its own row says so.
            problem = first_line(error)
        torch.cuda.empty_cache()
        if problem:
            runs[name] = dict(fault=problem)
        else:
            steps.append((name, step, in_place))
    steps.append(("copy", None, False))
    samples = {name: [] for name, *_ in steps}
    for round_ in range(ROUNDS):
        for turn in range(len(steps)):
            name, step, in_place = steps[(turn + round_) % len(steps)]
            samples[name].append(timed(step, in_place))
    copy = summary(samples.pop("copy"), 2 * x0.numel() * x0.element_size())
    for name, values in samples.items():
        runs[name] = summary(values, bytes_of(work))
        runs[name]["share_of_copy"] = runs[name]["gb_per_s"] / copy["gb_per_s"]
    return dict(work, bytes=bytes_of(work), copy=dict(copy, name="Tensor.copy_"), runs=runs)


def show(line):
    head = f"{line['work']:<14} {line['dtype']:<5} {line['rows']:>6} x {line['cols']:<7}"
    if "skipped" in line:
        print(head, "skipped:", line["skipped"], flush=True)
        return
    for name, run in line["runs"].items():
        if "fault" in run:
            print(head, f"{name:<13}", run["fault"], flush=True)
            continue
        rate, share = f"{run['gb_per_s']:>7.1f} GB/s", f"{100 * run['share_of_copy']:.0f} %"
        print(head, f"{name:<13} {run['ms']:>9.3f} ms {rate} {share} of {line['copy']['gb_per_s']:.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--like", help="record of the device benchmark, for works and sizes")
    parser.add_argument("--json", help="where the record goes")
    parser.add_argument("--seconds", type=float, default=360.0, help="works are begun for so long (360)")
    options = parser.parse_args()
    begin = time.monotonic()
    try:
        import torch
    except Exception as error:
        print(f"no peers: {first_line(error)}")
        return
    if not torch.cuda.is_available():
        print(f"no peers: torch {torch.__version__} finds no CUDA device")
        return
    warnings.filterwarnings("ignore")
    peers = Peers(torch)
    for name, why in peers.missing.items():
        print(f"{name} is missing: {why}")
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    lines = []
    for work in works_like(options.like) if options.like else full_works():
        try:
            if time.monotonic() - begin > options.seconds:
                raise TimeoutError(f"{options.seconds:.0f} seconds are over")
            line = measure(peers, work, flush)
        except (torch.cuda.OutOfMemoryError, TimeoutError) as error:
            line = dict(work, skipped=first_line(error))
        torch.cuda.empty_cache()
        show(line)
        lines.append(line)
        # After each work, so that what was measured is kept where time runs out.
        if options.json:
            device = torch.cuda.get_device_name()
            record = dict(adapter=device, versions=peers.versions, missing=peers.missing, timer="CUDA events")
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump(dict(record, lines=lines), file, indent=2)
                file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
