"""Losses of answers' and tokens' log-probabilities, by their formulas: preference pairs, policies and values."""

import math

import torch
import torch.nn.functional as F
from golden import Loss, by_torch, reduced
from torch import exp, log, sigmoid


def masked(losses, given, options):
    mask = given.get("mask")
    if mask is None:
        return reduced(losses, options["reduction"])
    kept = torch.where(mask != 0, losses, 0)
    if options["reduction"] == "mean":
        return kept.sum() / mask.sum().clamp(min=1)
    return reduced(kept, options["reduction"])


def policy_gradient(given, options):
    losses = -given["log_probs"] * given["advantages"].detach()
    if "entropy" in given:
        losses = losses - options["entropy_coef"] * given["entropy"]
    return masked(losses, given, options)


def ppo_clip(given, options):
    r, a = exp(given["log_probs"] - given["old_log_probs"]), given["advantages"]
    return masked(-torch.minimum(r * a, r.clamp(1 - options["clip_low"], 1 + options["clip_high"]) * a), given, options)


def value_clip(given, options):
    values, old, returns, clip = given["values"], given["old_values"], given["returns"], options["clip"]
    clipped = old + (values - old).clamp(-clip, clip)
    return masked(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2) / 2, given, options)


PAIRS = ["policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps"]


def of_pairs(function):
    """`function(beta·h, chosen log-ratio, rejected log-ratio, options, inputs)` of each pair of answers."""

    def outputs(given, options):
        pc, pr, rc, rr = [given[name] for name in PAIRS]
        chosen, rejected = pc - rc, pr - rr
        losses = function(options["beta"] * (chosen - rejected), chosen, rejected, options, given)
        return reduced(losses, options["reduction"])

    return outputs


def smoothed(h, options):
    smoothing = options["label_smoothing"]
    return -(1 - smoothing) * F.logsigmoid(h) - smoothing * F.logsigmoid(-h)


def dpo_ipo(h, chosen, rejected, options, given):
    lengths = [given.get(f"{side}_lengths", torch.ones(())).clamp(min=1) for side in ("chosen", "rejected")]
    return (chosen / lengths[0] - rejected / lengths[1] - 1 / (2 * options["beta"])) ** 2


def dpo_exo_pair(h, chosen, rejected, options, given):
    smoothing = torch.tensor(options["label_smoothing"])
    left = sigmoid(h) * (F.logsigmoid(h) - torch.log1p(-smoothing))
    return left + sigmoid(-h) * (F.logsigmoid(-h) - log(smoothing))


def dpo_nca_pair(h, chosen, rejected, options, given):
    a, b = options["beta"] * chosen, options["beta"] * rejected
    return -F.logsigmoid(a) - F.logsigmoid(-a) / 2 - F.logsigmoid(-b) / 2


def dpo_robust(h, chosen, rejected, options, given):
    smoothing = options["label_smoothing"]
    losses = -(1 - smoothing) * F.logsigmoid(h) + smoothing * F.logsigmoid(-h)
    return losses / (1 - 2 * smoothing)


def dpo_bco_pair(h, chosen, rejected, options, given):
    beta, delta = options["beta"], given.get("delta", 0.0)
    return -F.logsigmoid(beta * chosen - delta) - F.logsigmoid(-(beta * rejected - delta))


def dpo_sppo_hard(h, chosen, rejected, options, given):
    return (chosen - 0.5 / options["beta"]) ** 2 + (rejected + 0.5 / options["beta"]) ** 2


def dpo_apo_zero(h, chosen, rejected, options, given):
    return sigmoid(-options["beta"] * chosen) + sigmoid(options["beta"] * rejected)


def dpo_apo_down(h, chosen, rejected, options, given):
    return sigmoid(options["beta"] * chosen) + sigmoid(-h)


def dpo_discopop(h, chosen, rejected, options, given):
    m = sigmoid(h / options["tau"])
    return -F.logsigmoid(h) * (1 - m) + exp(-h) * m


def simpo(given, options):
    h = options["beta"] * (given["chosen_logps"] - given["rejected_logps"]) - options["gamma"]
    return reduced(smoothed(h, options), options["reduction"])


def log_of_rest(x):
    """ln(1 - exp(x)), in the form that keeps its digits."""
    return torch.where(x > -math.log(2), log(-torch.expm1(x)), torch.log1p(-exp(x)))


def orpo(given, options):
    chosen, rejected = given["chosen_logps"], given["rejected_logps"]
    h = (chosen - rejected) - (log_of_rest(chosen) - log_of_rest(rejected))
    losses = -options["nll_weight"] * chosen - options["beta"] * F.logsigmoid(h)
    return reduced(losses, options["reduction"])


def cpo(given, options):
    chosen, rejected = given["chosen_logps"], given["rejected_logps"]
    losses = reduced(smoothed(options["beta"] * (chosen - rejected), options), options["reduction"])
    if options["alpha"] == 0:
        return losses
    return losses - options["alpha"] * chosen.sum() / given["chosen_lengths"].sum()


def kto(given, options):
    r, beta = given["policy_logps"] - given["ref_logps"], options["beta"]
    z = given["kl"].detach() if "kl" in given else 0.0
    desirable = options["desirable_weight"] * sigmoid(-beta * (r - z))
    undesirable = options["undesirable_weight"] * sigmoid(-beta * (z - r))
    return reduced(torch.where(given["label"] == 1, desirable, undesirable), options["reduction"])


def grpo(given, options):
    logp, old, a = given["log_probs"], given["old_log_probs"].detach(), given["advantages"].unsqueeze(1)
    mask = given.get("mask", torch.ones_like(logp))
    counts, ratio = mask.sum(1, keepdim=True).clamp(min=1), logp - old
    if options["importance_level"] == "sequence":
        ratio = (mask * ratio).sum(1, keepdim=True) / counts
    r = exp(ratio)
    losses = -torch.minimum(r * a, r.clamp(1 - options["clip_low"], 1 + options["clip_high"]) * a)
    losses = (losses + kl_term(given, options)) * mask
    match options["loss_type"]:
        case "grpo":
            return (losses.sum(1, keepdim=True) / counts).mean()
        case "bnpo":
            return losses.sum() / mask.sum().clamp(min=1)
        case "dr_grpo":
            return losses.sum() / (logp.shape[0] * options["max_length"])
        case "dapo":
            return losses.sum() / options["num_tokens"]


def kl_term(given, options):
    if options["beta"] == 0:
        return 0.0
    ratio = given["ref_log_probs"].detach() - given["log_probs"]
    return options["beta"] * (torch.expm1(ratio) - ratio)


def cispo(given, options):
    logp, a = given["log_probs"], given["advantages"].unsqueeze(1)
    mask = given.get("mask", torch.ones_like(logp))
    w = exp(logp - given["old_log_probs"]).clamp(max=options["clip_high"]).detach()
    losses = -w * a * logp + kl_term(given, options)
    return (losses * mask).sum() / max(options["num_tokens"], 1)


FUNCTIONS = {
    "policy_gradient": policy_gradient,
    "ppo_clip": ppo_clip,
    "value_clip": value_clip,
    "dpo": of_pairs(lambda h, chosen, rejected, options, given: smoothed(h, options)),
    "dpo_hinge": of_pairs(lambda h, *_: torch.relu(1 - h)),
    "dpo_ipo": of_pairs(dpo_ipo),
    "dpo_exo_pair": of_pairs(dpo_exo_pair),
    "dpo_nca_pair": of_pairs(dpo_nca_pair),
    "dpo_robust": of_pairs(dpo_robust),
    "dpo_bco_pair": of_pairs(dpo_bco_pair),
    "dpo_sppo_hard": of_pairs(dpo_sppo_hard),
    "dpo_apo_zero": of_pairs(dpo_apo_zero),
    "dpo_apo_down": of_pairs(dpo_apo_down),
    "dpo_discopop": of_pairs(dpo_discopop),
    "simpo": simpo,
    "orpo": orpo,
    "cpo": cpo,
    "kto": kto,
    "grpo": grpo,
    "cispo": cispo,
}

LOSSES = {name: Loss(by_torch(function), source="formula") for name, function in FUNCTIONS.items()}
