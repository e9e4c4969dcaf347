"""PyTorch and what builds on it, as peers of the driver: eager and compiled, CPU and CUDA; Liger, QuACK.

    peers.py --list      names, each with `ok` or why it cannot run here
    peers.py NAME        answers the driver; src/serve.rs has the protocol

Numbers, bytes and checks are those of src/work.rs. A step is loss and gradient, waited for.
"""

import importlib
import sys
import time
import warnings

TURN = 0.05  # seconds, as in src/serve.rs
CPU, CUDA = "cpu", "cuda"
# Name: device, whether compiled, package of the kernel.
PEERS = {
    "pytorch-cpu": (CPU, False, None),
    "pytorch-cpu-compiled": (CPU, True, None),
    "pytorch-cuda": (CUDA, False, None),
    "pytorch-cuda-compiled": (CUDA, True, None),
    "liger": (CUDA, False, "liger_kernel.ops.cross_entropy"),
    "quack": (CUDA, False, "quack.cross_entropy"),
}
LIST_ONLY = {"cce": "cut-cross-entropy takes embeddings and a classifier, never logits: other work than this"}


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def missing(name):
    """Why a peer cannot run here; None where it can."""
    device, _, module = PEERS[name]
    try:
        import torch
    except Exception as error:  # Packages for other machines fail at import in many ways.
        return first_line(error)
    if device == CUDA and not torch.cuda.is_available():
        return "no CUDA device"
    try:
        if module:
            importlib.import_module(module)
    except Exception as error:
        return first_line(error)
    return None


class Peer:
    def __init__(self, name):
        import torch

        self.torch, self.name = torch, name
        self.device, self.compiled, module = PEERS[name]
        self.kernel = importlib.import_module(module) if module else None
        self.work = None

    def hello(self):
        torch = self.torch
        cpu = f"{torch.get_num_threads()} threads"
        return self.name, torch.__version__, torch.cuda.get_device_name() if self.device == CUDA else cpu

    def hash(self, word):
        """PCG, Jarzynski and Olano (2020), on 32 bits held in 64."""
        mask = 0xFFFFFFFF
        state = (word * 747796405 + 2891336453) & mask
        word = (((state >> ((state >> 28) + 4)) ^ state) * 277803737) & mask
        return (word >> 22) ^ word

    def numbers(self, count, seed):
        """Uniform in -4..4; every step is exact in f32."""
        torch = self.torch
        seed = self.hash(torch.tensor(seed, dtype=torch.int64)).item()
        parts = []
        for first in range(0, count, 1 << 22):
            place = torch.arange(first, min(first + (1 << 22), count), dtype=torch.int64)
            parts.append((self.hash(place ^ seed) >> 8).to(torch.float32) / (1 << 21) - 4.0)
        return torch.cat(parts)

    def prepare(self, text):
        torch = self.torch
        loss, shape, dtype = text.split(" ")
        rows, cols = map(int, shape.split("x"))
        is_labels = loss == "cross_entropy"
        if self.kernel and not is_labels:
            raise ValueError(f"{self.name} has no {loss} of this kind")
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        self.x = self.numbers(rows * cols, 1).to(dtype).to(self.device)
        if is_labels:
            self.x = self.x.view(rows, cols)
            self.y = (torch.arange(rows, dtype=torch.int64) * 7919 % cols).to(self.device)
        else:
            self.y = self.numbers(rows * cols, 2).to(dtype).to(self.device)
        self.x.requires_grad_()
        self.forward = self.loss(loss)
        self.step()
        return self.read()

    def loss(self, name):
        F = self.torch.nn.functional
        if self.name == "liger":
            apply = self.kernel.LigerCrossEntropyFunction.apply
            # Its gradient takes the logits' place: it gets a copy, whose time counts as that of keeping the logits.
            return lambda x, y: apply(x.clone(), y, None)[0]
        if self.name == "quack":
            return lambda x, y: self.kernel.cross_entropy(x, y, reduction="mean")
        loss = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss, "huber": F.huber_loss}[name]
        if not self.compiled:
            return loss
        self.torch._dynamo.reset()
        return self.torch.compile(lambda x, y: loss(x, y), dynamic=False)

    def step(self):
        self.x.grad = None
        self.value = self.forward(self.x, self.y)
        self.value.backward()
        if self.device == CUDA:
            self.torch.cuda.synchronize()

    def read(self):
        torch = self.torch
        grad = self.x.grad.detach().flatten().to("cpu").double()
        weights = self.numbers(grad.numel(), 3).double()
        return self.value.item(), torch.linalg.vector_norm(grad).item(), torch.dot(grad, weights).item()

    def time(self):
        self.step()
        begin, steps = time.perf_counter(), 0
        while time.perf_counter() - begin < TURN:
            self.step()
            steps += 1
        return (time.perf_counter() - begin) * 1e3 / steps


def say(line):
    print(line, flush=True)


def serve(name):
    peer = Peer(name)
    say("hello\t" + "\t".join(peer.hello()))
    for line in sys.stdin:
        line = line.rstrip("\n")
        if line.startswith("work "):
            try:
                say("ready {:.17e} {:.17e} {:.17e}".format(*peer.prepare(line.removeprefix("work "))))
            except Exception as error:
                say(f"skip {first_line(error)}")
        elif line == "time":
            say(f"ms {peer.time()}")
        elif line == "quit":
            return
        else:
            sys.exit(f"`{line}`: not one of work, time, quit")


def main():
    warnings.filterwarnings("ignore")
    if len(sys.argv) != 2 or sys.argv[1] not in ("--list", *PEERS):
        sys.exit(__doc__)
    if sys.argv[1] != "--list":
        return serve(sys.argv[1])
    for name in PEERS:
        say(f"{name}\t{missing(name) or 'ok'}")
    for name, reason in LIST_ONLY.items():
        say(f"{name}\t{reason}")


if __name__ == "__main__":
    main()
