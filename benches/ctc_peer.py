"""PyTorch's side of benches/ctc.rs: a step of log-softmax, ctc_loss and their gradient per line read."""

import sys
import time

import torch

sequences, frames, classes, labels = (int(arg) for arg in sys.argv[1:5])
logits = torch.empty(frames, sequences, classes)
n = torch.arange(sequences, dtype=torch.int64)
c = torch.arange(classes, dtype=torch.int64)
for t in range(frames):
    logits[t] = ((t * 31 + n[:, None] * 17 + c[None] * 7919) % 1009).float() / 1009.0 * 6.0 - 3.0
logits.requires_grad_(True)
s = torch.arange(labels, dtype=torch.int64)
targets = 1 + (n[:, None] * 13 + s[None] * 29) % (classes - 1)
input_lengths, target_lengths = frames - n % 8, labels - n % 16
for _ in sys.stdin:
    logits.grad = None
    start = time.perf_counter()
    log_probs = torch.log_softmax(logits, -1)
    loss = torch.nn.functional.ctc_loss(log_probs, targets, input_lengths, target_lengths)
    loss.backward()
    print((time.perf_counter() - start) * 1e3, loss.item(), flush=True)
