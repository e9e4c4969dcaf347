"""Losses of pytorch-metric-learning, of given cosines: its losses take embeddings, and their cosines are replaced."""

import numpy as np
import torch
from golden import Case, Loss, by_torch, reduced
from pytorch_metric_learning import losses, reducers

VERSION = "pytorch-metric-learning 2.9.0"


def of_cosines(make):
    """The library's large-margin loss of cosines: its own class weights are left out."""

    class Given(make):
        def get_cosine(self, cosines):
            return cosines

    def function(inputs, options):
        cosines, target = inputs["input"], inputs["target"]
        classes = cosines.shape[1]
        rows = cosines.movedim(1, -1).reshape(-1, classes)
        arguments = {"margin": options["margin"], "scale": options["scale"], "reducer": reducers.DoNothingReducer()}
        if make is losses.ArcFaceLoss:
            arguments["margin"] = float(np.degrees(options["margin"]))
        each = Given(num_classes=classes, embedding_size=1, **arguments)(rows, target.reshape(-1))
        return reduced(each["loss"]["losses"].reshape(target.shape), options["reduction"])

    return function


def cosine_cases(margin: float, scale: float, seed: int) -> dict[str, Case]:
    random = np.random.default_rng(seed)

    def case(shape, low=-0.9, high=0.9, notes="", **options) -> Case:
        cosines = random.uniform(low, high, shape).astype(np.float32)
        target = random.integers(0, shape[1], [shape[0], *shape[2:]])
        options = {"margin": margin, "scale": scale, "reduction": "mean"} | options
        return Case(options, {"input": cosines, "target": target}, ["input"], notes)

    def certain(cosine, notes) -> Case:
        made = case([6, 5], reduction="none", scale=30.0, notes=notes)
        rows = np.arange(6)
        made.inputs["input"][rows, made.inputs["target"]] = np.float32(cosine)
        return made

    return {
        "mean": case([7, 5], scale=30.0),
        "sum": case([3, 4], reduction="sum", margin=0.3, scale=16.0),
        "none": case([5, 9], reduction="none"),
        "margin0": case([4, 3], margin=0.0),
        "single": case([1, 33]),
        "spatial": case([2, 3, 4], reduction="none", scale=10.0),
        "mid": case([24, 40]),
        "aligned": certain(0.999, "the label's cosine is nearly 1: small losses"),
        "opposite": certain(-0.97, "the label's cosine is nearly -1"),
        "all_near": case([5, 6], 0.7, 0.7001, reduction="none", notes="cosines that differ in their last digits"),
    }


def supcon(inputs, options):
    scores, is_positive = inputs["scores"], inputs["positives"] != 0
    is_kept = (inputs["where"] if "where" in inputs else torch.ones_like(scores)) != 0
    is_positive, is_negative = is_positive & is_kept, ~is_positive & is_kept
    of_scores = losses.SupConLoss(temperature=options["temperature"])._compute_loss
    each = of_scores(scores, is_positive.to(scores.dtype), is_negative.to(scores.dtype))["loss"]["losses"]
    return reduced(each, options["reduction"], is_positive.any(1))


def supcon_cases() -> dict[str, Case]:
    random = np.random.default_rng(3)

    def case(labels, keys=None, low=-1.0, notes="", **options) -> Case:
        labels = np.array(labels)
        keys = labels if keys is None else np.array(keys)
        scores = random.uniform(low, 1.0, [labels.size, keys.size]).astype(np.float32)
        if keys is labels:
            scores[range(labels.size), range(labels.size)] = 1.0
        positives = (labels[:, None] == keys[None, :]).astype(np.float32)
        inputs = {"scores": scores, "positives": positives}
        if keys is labels:
            inputs["where"] = 1 - np.eye(labels.size, dtype=np.float32)
        return Case({"temperature": 0.1, "reduction": "mean"} | options, inputs, ["scores"], notes)

    return {
        "mean": case([0, 1, 2, 0, 1, 2, 0, 0]),
        "sum": case([0, 0, 1, 1, 1], reduction="sum", temperature=0.5),
        "none": case([3, 1, 1, 3, 3, 1], reduction="none"),
        "unequal": case([0, 0, 0, 0, 1, 1, 2], notes="the last row has no positive"),
        "unequal_none": case([0, 0, 0, 0, 1, 1, 2], reduction="none", notes="the last row has no positive"),
        "pairs": case([0, 1, 2, 3, 0, 1, 2, 3], notes="two views of each row (SimCLR)", temperature=0.07),
        "bank": case([0, 1, 2], keys=[0, 1, 2, 0, 1, 2, 0], reduction="none", notes="scores with other embeddings"),
        "near": case([0, 0, 1, 1], low=0.999, reduction="none", notes="scores that differ in their last digits"),
        "mid": case(random.integers(0, 5, 24)),
    }


LOSSES = {
    "cosface": Loss(
        by_torch(of_cosines(losses.CosFaceLoss)),
        source=f"{VERSION} CosFaceLoss, of given cosines",
        formula="z_ij = scale * (input_ij - margin * [j = target_i]); l_i = logsumexp_j(z_ij) - z_i,target_i; "
        "mean divides by the number of rows",
        cases=lambda: cosine_cases(0.35, 64.0, 1),
    ),
    "arcface": Loss(
        by_torch(of_cosines(losses.ArcFaceLoss)),
        source=f"{VERSION} ArcFaceLoss, of given cosines",
        formula="theta = arccos(input_i,target); z_i,target = scale * cos(theta + margin) if theta <= pi - margin else "
        "scale * (input_i,target - margin * sin(margin)); other z_ij = scale * input_ij; "
        "l_i = logsumexp_j(z_ij) - z_i,target_i; mean divides by the number of rows",
        notes="margin in radians (the library takes degrees)",
        cases=lambda: cosine_cases(0.5, 64.0, 2),
    ),
    "supcon": Loss(
        by_torch(supcon),
        source=f"{VERSION} SupConLoss, of given scores",
        formula="x = scores / temperature; A_i = columns where `where` is not 0, or all; P_i = columns of A_i where "
        "positives is not 0; l_i = -(1/|P_i|) sum_{j in P_i} (x_ij - ln(sum_{k in A_i} exp(x_ik))), 0 where P_i is "
        "empty; "
        "mean divides by the number of rows with a positive",
        cases=supcon_cases,
    ),
}
