"""Losses of which no package has a function, with cases of their own: torch autograd differentiates their formulas."""

import numpy as np
import torch
from golden import Case, Loss, by_torch, reduced


def c51(inputs, options):
    """The projection is algorithm 1 of the paper, by scatter: the data hold what it makes, rounded to f32."""
    losses = -(inputs["target"] * torch.log_softmax(inputs["logits"], -1)).sum(-1)
    return reduced(losses, options["reduction"])


def projected(probabilities, rewards, dones, gamma: float, low: float, high: float) -> np.ndarray:
    """Algorithm 1: each source atom's probability is split between its two neighbours among the atoms."""
    rows, atoms = probabilities.shape
    spacing, target = (high - low) / (atoms - 1), np.zeros([rows, atoms])
    for row in range(rows):
        for j in range(atoms):
            value = np.clip(rewards[row] + gamma * (1 - dones[row]) * (low + j * spacing), low, high)
            place = (value - low) / spacing
            below = min(int(np.floor(place)), atoms - 2)
            target[row, below] += probabilities[row, j] * (below + 1 - place)
            target[row, below + 1] += probabilities[row, j] * (place - below)
    return target.astype(np.float32)


def c51_cases() -> dict[str, Case]:
    random = np.random.default_rng(4)

    def case(rows: int, atoms: int, reach=3.0, notes="", reduction="mean", offset=0.0) -> Case:
        logits = (offset + random.uniform(-reach, reach, [rows, atoms])).astype(np.float32)
        next_probabilities = random.dirichlet(np.ones(atoms), rows)
        rewards, dones = random.uniform(-3, 3, rows), random.integers(0, 2, rows)
        target = projected(next_probabilities, rewards, dones, 0.99, -10.0, 10.0)
        return Case({"reduction": reduction}, {"logits": logits, "target": target}, ["logits"], notes)

    return {
        "mean": case(8, 51),
        "sum": case(3, 11, reduction="sum"),
        "none": case(6, 51, reduction="none"),
        "two_atoms": case(4, 2, reduction="none"),
        "single": case(1, 21),
        "offset": case(4, 11, offset=1e4, reduction="none", notes="logits around 10000"),
        "extreme": case(4, 11, reach=1e4, reduction="none", notes="logits to +-1e4"),
        "mid": case(16, 51),
    }


def total_variation(inputs, options):
    difference = (inputs["next"] - inputs["input"]).abs()
    return reduced(difference if options["p"] == 1 else difference**2, options["reduction"])


def variation_cases() -> dict[str, Case]:
    random = np.random.default_rng(5)

    def case(shape, axis: int, p=1.0, reduction="mean", values=None, notes="") -> Case:
        image = random.uniform(0, 1, shape).astype(np.float32) if values is None else values
        size = image.shape[axis]
        views = {"input": image.take(range(size - 1), axis), "next": image.take(range(1, size), axis)}
        return Case({"p": p, "reduction": reduction}, views, ["input", "next"], notes)

    steps = np.repeat(np.arange(6, dtype=np.float32), 3).reshape(2, 9)
    return {
        "width": case([2, 3, 5, 7], 3),
        "height": case([2, 3, 5, 7], 2),
        "sum": case([4, 6], 1, reduction="sum"),
        "none": case([4, 6], 0, reduction="none"),
        "squared": case([4, 6], 1, p=2.0),
        "squared_none": case([3, 8], 1, p=2.0, reduction="none"),
        "flat": case(None, 1, reduction="none", values=steps, notes="equal neighbours: gradient 0"),
        "large": case(None, 1, values=(random.uniform(-1e4, 1e4, [3, 9])).astype(np.float32)),
    }


LOSSES = {
    "c51": Loss(
        by_torch(c51),
        source="formula",
        formula="l = -sum_i target_i * ln softmax(logits)_i; mean divides by the number of rows",
        notes="target is the projected Bellman target (Bellemare et al., algorithm 1), a constant",
        cases=c51_cases,
    ),
    "total_variation": Loss(
        by_torch(total_variation),
        source="formula",
        formula="l = |next - input|^p; mean divides by the number of differences",
        notes="input and next are views of one tensor, one step apart along an axis",
        cases=variation_cases,
    ),
}
