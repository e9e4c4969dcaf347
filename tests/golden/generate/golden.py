"""Golden files: reading, computing and writing them. A file is one loss; its format is that of ../README.md."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parent.parent


@dataclass
class Case:
    """A problem: options by the library's names, inputs in order, and the inputs that have a gradient."""

    options: dict
    inputs: dict[str, np.ndarray]
    grads: list[str]
    notes: str = ""


@dataclass
class Loss:
    """A loss of one file, and what computes it: from inputs and options, all outputs of a case in one precision."""

    outputs: Callable[[Case, type], dict[str, np.ndarray]]
    source: str
    formula: str = ""
    notes: str = ""
    #: The cases, where this generator has them; else those of the file that is there.
    cases: Callable[[], dict[str, Case]] | None = None


def by_torch(function) -> Callable[[Case, type], dict[str, np.ndarray]]:
    """Outputs of a function of torch tensors: the loss, and its gradients by autograd."""

    def outputs(case: Case, dtype: type) -> dict[str, np.ndarray]:
        precision = {np.float64: torch.float64, np.float32: torch.float32}[dtype]
        torch.set_default_dtype(precision)

        def tensor(name: str, value: np.ndarray) -> torch.Tensor:
            if value.dtype.kind == "i":
                return torch.from_numpy(np.array(value))
            return torch.from_numpy(np.array(value, dtype=dtype)).requires_grad_(name in case.grads)

        inputs = {name: tensor(name, value) for name, value in case.inputs.items()}
        loss = function(inputs, dict(case.options))
        assert loss.dtype == precision, "one precision throughout"
        wanted = [inputs[name] for name in case.grads]
        grads = torch.autograd.grad(loss.sum(), wanted, allow_unused=True) if wanted else []
        made = {"loss": loss.detach().numpy()}
        for name, value, grad in zip(case.grads, wanted, grads):
            made[f"grad_{name}"] = (torch.zeros_like(value) if grad is None else grad).numpy()
        return made

    return outputs


def reduced(losses: torch.Tensor, reduction: str, denominator=None) -> torch.Tensor:
    """The losses as `reduction` says; the mean divides by their number, or by the sum of `denominator`."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "batchmean":
        return losses.sum() / losses.shape[0]
    return losses.mean() if denominator is None else losses.sum() / denominator.sum()


def path_of(name: str, folder: Path = FOLDER) -> Path:
    return folder / f"{name}.safetensors"


def load(path: Path) -> tuple[dict[str, Case], dict[str, dict[str, np.ndarray]], dict]:
    """The cases of a file, their outputs, and its metadata, in which `cases` is a dictionary."""
    with safe_open(path, "np") as file:
        metadata = dict(file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    metadata["cases"] = json.loads(metadata["cases"])
    cases, outputs = {}, {}
    for name, about in metadata["cases"].items():
        inputs = {key: tensors[f"{name}/{key}"] for key in about["inputs"]}
        cases[name] = Case(about["options"], inputs, about["grads"], about.get("notes") or "")
        wanted = ["loss"] + [f"grad_{key}" for key in about["grads"]]
        outputs[name] = {key: tensors[f"{name}/{key}"] for key in wanted}
    return cases, outputs, metadata


def error_of(got: np.ndarray, want: np.ndarray):
    """The largest error of f32 outputs, and that beside the largest value; None where they are not finite."""
    if not np.isfinite(got).all() or want.size == 0:
        return None
    largest = float(np.abs(want).max())
    error = float(np.abs(got.astype(np.float64) - want).max())
    return [float(f"{x:.1e}") for x in (error, error / largest if largest > 0 else 0.0)]


def lib_f32_err(loss: Loss, name: str, case: Case, outputs: dict[str, np.ndarray]):
    """The errors of the same function in f32, by output; None where it refuses f32."""
    if name.startswith("nonfinite_"):
        return None
    try:
        single = loss.outputs(case, np.float32)
    except Exception:  # A library may refuse a precision in any way.
        return None
    return {key: error_of(single[key], want) for key, want in outputs.items()}


def same_problem(a: Case, b: Case) -> bool:
    """Whether two cases have the same inputs, options and gradients."""
    if list(a.inputs) != list(b.inputs):
        return False
    is_same = all(np.array_equal(a.inputs[key], b.inputs[key], equal_nan=True) for key in a.inputs)
    return is_same and a.options == b.options and a.grads == b.grads


def save(name: str, loss: Loss, cases: dict[str, Case], folder: Path = FOLDER) -> None:
    """Computes the cases in f64 and writes their file. What a file says of itself stays where its cases are its own."""
    path, present = path_of(name, folder), path_of(name)
    known = load(present)[2] if present.exists() and loss.cases is None else {}
    tensors, about = {}, {}
    for label, case in sorted(cases.items()):
        outputs = loss.outputs(case, np.float64)
        for key, value in outputs.items():
            assert label.startswith("nonfinite_") or np.isfinite(value).all(), f"{name}/{label}/{key} is not finite"
            tensors[f"{label}/{key}"] = np.array(value, dtype=np.float64, order="C")
        for key, value in case.inputs.items():
            tensors[f"{label}/{key}"] = np.array(value, order="C")
        about[label] = {"options": case.options, "inputs": list(case.inputs), "grads": case.grads}
        about[label] |= {"notes": case.notes, "lib_f32_err": lib_f32_err(loss, label, case, outputs)}
    metadata = {key: known.get(key) or getattr(loss, key) for key in ("source", "formula", "notes")}
    metadata["cases"] = json.dumps(about)
    save_file(tensors, path, {key: text for key, text in metadata.items() if text})
    path.chmod(0o644)


def worst_difference(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> tuple[float, str]:
    """The largest difference in units of what is allowed in f64, and where it is; 1 or less passes."""
    worst, where = 0.0, ""
    for key, expected in want.items():
        made = got[key]
        if made.shape != expected.shape:
            return float("inf"), f"{key} has shape {made.shape}, not {expected.shape}"
        finite = np.isfinite(expected)
        if not np.array_equal(np.isfinite(made), finite) or not np.array_equal(
            made[~finite], expected[~finite], equal_nan=True
        ):
            return float("inf"), f"{key} differs in what is not finite"
        if not finite.any():
            continue
        largest = np.abs(expected[finite]).max()
        # As tests/golden.rs allows a path in f64: another version or processor may round otherwise.
        allowed = 1e-9 * (np.abs(expected[finite]) + largest) + 1e-12
        units = (np.abs(made[finite] - expected[finite]) / allowed).max()
        if units > worst:
            worst, where = float(units), key
    return worst, where
