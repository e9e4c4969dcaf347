"""Losses of torch.nn.functional and torchvision.ops."""

import torch
import torch.nn.functional as F
import torchvision.ops as ops
from golden import Loss, by_torch, reduced

TORCH, TORCHVISION = "torch 2.15.0", "torchvision 0.29.2"


def called(function, *required: str, **renamed: str):
    """The function of the required inputs in order, of the others by name, and of the options."""

    def outputs(inputs, options):
        positional = [inputs[name] for name in required]
        named = {renamed.get(name, name): value for name, value in inputs.items() if name not in required}
        return function(*positional, **named, **{name: value for name, value in options.items() if value is not None})

    return outputs


def triplet_margin(inputs, options):
    options["p"] = float(options["p"])  # "inf" too
    return called(F.triplet_margin_loss, "anchor", "positive", "negative")(inputs, options)


def triplet_margin_cosine(inputs, options):
    def distance(x, y):
        return 1 - F.cosine_similarity(x, y)

    function = F.triplet_margin_with_distance_loss
    return called(function, "anchor", "positive", "negative")(inputs, options | {"distance_function": distance})


def diagonal_iou(inputs):
    boxes = [inputs[name].reshape(-1, 4) for name in ("boxes1", "boxes2")]
    return ops.box_iou(*boxes).diagonal().reshape(inputs["boxes1"].shape[:-1])


def torch_loss(function, name: str, *required: str) -> Loss:
    required = required or ("input", "target")
    return Loss(by_torch(called(function, *required)), source=f"{TORCH} torch.nn.functional.{name}")


def boxes_loss(name: str) -> Loss:
    function = called(getattr(ops, name), "boxes1", "boxes2")
    return Loss(by_torch(function), source=f"{TORCHVISION} torchvision.ops.{name}")


def iou_loss(formula: str, function) -> Loss:
    by_iou = by_torch(lambda inputs, options: reduced(function(diagonal_iou(inputs)), options["reduction"]))
    formula = f"iou = |A inter B| / |A union B|; loss = {formula}"
    return Loss(by_iou, source=f"{TORCHVISION} torchvision.ops.box_iou, diagonal", formula=formula)


LOSSES = {
    "l1": torch_loss(F.l1_loss, "l1_loss"),
    "mse": torch_loss(F.mse_loss, "mse_loss"),
    "huber": torch_loss(F.huber_loss, "huber_loss"),
    "smooth_l1": torch_loss(F.smooth_l1_loss, "smooth_l1_loss"),
    "bce": torch_loss(F.binary_cross_entropy, "binary_cross_entropy"),
    "bce_with_logits": torch_loss(F.binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits"),
    "kl_div": torch_loss(F.kl_div, "kl_div"),
    "poisson_nll": torch_loss(F.poisson_nll_loss, "poisson_nll_loss"),
    "gaussian_nll": torch_loss(F.gaussian_nll_loss, "gaussian_nll_loss", "input", "target", "var"),
    "hinge_embedding": torch_loss(F.hinge_embedding_loss, "hinge_embedding_loss"),
    "margin_ranking": torch_loss(F.margin_ranking_loss, "margin_ranking_loss", "input1", "input2", "target"),
    "soft_margin": torch_loss(F.soft_margin_loss, "soft_margin_loss"),
    "cosine_embedding": torch_loss(F.cosine_embedding_loss, "cosine_embedding_loss", "input1", "input2", "target"),
    "triplet_margin": Loss(by_torch(triplet_margin), source=f"{TORCH} torch.nn.functional.triplet_margin_loss"),
    "triplet_margin_cosine": Loss(
        by_torch(triplet_margin_cosine),
        source=f"{TORCH} torch.nn.functional.triplet_margin_with_distance_loss, distance 1 - cosine_similarity",
    ),
    "cross_entropy": torch_loss(F.cross_entropy, "cross_entropy (class indices)"),
    "cross_entropy_prob": torch_loss(F.cross_entropy, "cross_entropy (class probabilities)"),
    "nll": torch_loss(F.nll_loss, "nll_loss"),
    "multi_margin": torch_loss(F.multi_margin_loss, "multi_margin_loss"),
    "multilabel_margin": torch_loss(F.multilabel_margin_loss, "multilabel_margin_loss"),
    "multilabel_soft_margin": torch_loss(F.multilabel_soft_margin_loss, "multilabel_soft_margin_loss"),
    "ctc": torch_loss(F.ctc_loss, "ctc_loss", "log_probs", "targets", "input_lengths", "target_lengths"),
    "sigmoid_focal": Loss(
        by_torch(called(ops.sigmoid_focal_loss, "inputs", "targets")),
        source=f"{TORCHVISION} torchvision.ops.sigmoid_focal_loss",
    ),
    "giou": boxes_loss("generalized_box_iou_loss"),
    "diou": boxes_loss("distance_box_iou_loss"),
    "ciou": boxes_loss("complete_box_iou_loss"),
    "iou": iou_loss("1 - iou", lambda iou: 1 - iou),
    "iou_log": iou_loss("-ln(iou)", lambda iou: -torch.log(iou)),
}
