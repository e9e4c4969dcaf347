#!/usr/bin/env python3
"""Makes the golden data of tests/golden from public packages, and checks what is there.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 torchvision==0.29.2 keras==3.15.1 optax==0.2.8 \\
        jax==0.10.2 pytorch-metric-learning==2.9.0 safetensors numpy
    venv/bin/python tests/golden/generate/generate.py --check           # every loss; or some, by name
    venv/bin/python tests/golden/generate/generate.py cosface arcface   # writes these files again

torch and torchvision losses are in of_torch.py, Keras's in of_keras.py, optax's in of_optax.py, those of
pytorch-metric-learning in metric.py, formulas in formulas.py, lists.py, preference.py and own.py. Every file is covered; `--check`
names files that are not. Libraries that confirmed formulas (trl, liger-kernel, monai, timm, kornia, ...: `source` in the
files) are not needed.

A file's inputs and options are data: where the generator has no cases of its own they are read from the file that is
there, and its loss, gradients and `lib_f32_err` are computed again. `--check` writes nothing: it compares, in f64, with
what the file holds, within what tests/golden.rs allows a path in f64 (a relative 1e-9).
"""

import argparse
import sys
import warnings
from pathlib import Path

import formulas
import golden
import lists
import metric
import numpy as np
import of_keras
import of_optax
import of_torch
import own
import preference

BY_LIBRARY = of_torch.LOSSES | of_keras.LOSSES | of_optax.LOSSES | metric.LOSSES
LOSSES = BY_LIBRARY | own.LOSSES | preference.LOSSES | formulas.LOSSES | lists.LOSSES


def check(name: str, loss: golden.Loss) -> bool:
    """Compares what the file holds with what is computed; prints a row."""
    cases, outputs, _ = golden.load(golden.path_of(name))
    own = loss.cases() if loss.cases else cases
    complaints = [f"{label} is not there" for label in own if label not in cases]
    worst = 0.0
    for label, case in cases.items():
        try:
            made = loss.outputs(case, np.float64)
        except Exception as error:  # A library's own, of whatever type.
            complaints.append(f"{label}: {type(error).__name__}: {error}")
            continue
        units, where = golden.worst_difference(made, outputs[label])
        worst = max(worst, units)
        if units > 1:
            complaints.append(f"{label}: {where} is off by {units:.1e} of what is allowed")
        if label in own and not golden.same_problem(own[label], case):
            complaints.append(f"{label} has other inputs or options")
    print(f"{name:<28} {len(cases):>5} {worst:9.1e}  {'FAIL' if complaints else 'pass'}")
    for complaint in complaints:
        print(f"  {name}/{complaint}")
    return not complaints


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files, write nothing")
    parser.add_argument("--out", type=Path, default=golden.FOLDER, help="the folder to write to; this repository's")
    parser.add_argument("losses", nargs="*", help="names of files; with --check, none means all")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.losses if name not in LOSSES]
    if unknown or not (arguments.losses or arguments.check):
        parser.error(f"losses are some of {' '.join(sorted(LOSSES))}")
    warnings.simplefilter("ignore")
    if not arguments.check:
        for name in arguments.losses:
            loss = LOSSES[name]
            cases = loss.cases() if loss.cases else golden.load(golden.path_of(name))[0]
            golden.save(name, loss, cases, arguments.out)
        return 0
    names = arguments.losses or sorted(LOSSES)
    passed = [check(name, LOSSES[name]) for name in names]
    print(f"generate: {len(passed)} losses, {passed.count(False)} failed")
    if not arguments.losses:
        missing = sorted(path.stem for path in golden.FOLDER.glob("*.safetensors") if path.stem not in LOSSES)
        print(f"not covered: {' '.join(missing) or 'none'}")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
