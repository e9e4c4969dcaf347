"""Losses of ranked lists, of subjects at risk and of sorted errors, by their formulas."""

import torch
import torch.nn.functional as F
from golden import Loss, by_torch, reduced


def softplus(x):
    """ln(1 + exp(x)): torch's own is linear above 20."""
    return -F.logsigmoid(-x)


def of_lists(function):
    """`function(scores, labels, options)` of the items of each list."""

    def outputs(given, options):
        x, y = given["input"], given["labels"].to(given["input"].dtype)
        mask = given.get("mask")
        kept = torch.ones_like(y, dtype=torch.bool) if mask is None else mask != 0
        return [function(x[row][kept[row]], y[row][kept[row]], options) for row in range(len(x))]

    return outputs


def ordered(y):
    """Whether the first of each pair has the larger label."""
    return y[:, None] > y[None, :]


def descending(x):
    return torch.sort(x, descending=True, stable=True).indices


def gains(y):
    gain = torch.exp2(y) - 1
    place = torch.log2(torch.arange(len(y)) + 2.0).to(y.dtype)
    ideal = (gain[descending(y)] / place).sum()
    return gain / ideal if ideal > 0 else torch.zeros_like(gain)


def ranknet(given, options):
    pairs = of_lists(lambda x, y, options: softplus(-options["sigma"] * (x[:, None] - x[None, :]))[ordered(y)])
    all_pairs = torch.cat(pairs(given, options))
    total = all_pairs.sum()
    return total / max(len(all_pairs), 1) if options["reduction"] == "mean" else total


def lambdarank(x, y, options):
    rank = torch.empty_like(x)
    rank[descending(x)] = torch.arange(len(x)).to(x.dtype)
    gain, place = gains(y), 1 / torch.log2(rank + 2)
    weight = (gain[:, None] - gain[None, :]).abs() * (place[:, None] - place[None, :]).abs()
    loss = weight.detach() * softplus(-options["sigma"] * (x[:, None] - x[None, :]))
    return loss[ordered(y)].sum()


def approx_ndcg(x, y, options):
    above = torch.sigmoid(options["alpha"] * (x[None, :] - x[:, None]))
    rank = 1 + (above * (1 - torch.eye(len(x), dtype=x.dtype))).sum(1)
    return -(gains(y) / torch.log2(1 + rank)).sum()


def list_mle(x, y, options):
    x = x[descending(y)]
    return (torch.logcumsumexp(x.flip(0), 0).flip(0) - x).sum()


def mean_of_lists(function):
    lists = of_lists(function)
    return lambda given, options: reduced(torch.stack(lists(given, options)), options.get("reduction", "mean"))


def cox_partial_likelihood(given, options):
    x, time, event = given["input"], given["time"], given["event"] == 1
    at_risk = torch.where(time[None, :] >= time[:, None], x[None, :], -torch.inf)
    total = (torch.logsumexp(at_risk, 1) - x)[event].sum()
    return total / max(int(event.sum()), 1) if options["reduction"] == "mean" else total


def lovasz(errors, truth, counted):
    order = descending(errors.detach())
    truth = truth[order]
    jaccard = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
    return (counted(errors[order]) * torch.diff(jaccard, prepend=jaccard.new_zeros(1))).sum()


def lovasz_hinge(given, options):
    x, t = given["input"], given["target"].to(given["input"].dtype)
    images = len(x) if options["per_image"] else 1
    x, t = x.reshape(images, -1), t.reshape(images, -1)
    return torch.stack([lovasz(1 - x[k] * (2 * t[k] - 1), t[k], torch.relu) for k in range(images)]).mean()


def lovasz_softmax(given, options):
    p, target = torch.softmax(given["input"], 1), given["target"]

    def of_classes(p, target):
        losses = []
        for c in range(p.shape[1]):
            truth = (target == c).to(p.dtype).flatten()
            if options["classes"] == "all" or truth.sum() > 0:
                losses.append(lovasz((truth - p[:, c].flatten()).abs(), truth, lambda error: error))
        return torch.stack(losses).mean()

    if not options["per_image"]:
        return of_classes(p, target)
    return torch.stack([of_classes(p[k : k + 1], target[k : k + 1]) for k in range(len(p))]).mean()


FUNCTIONS = {
    "ranknet": ranknet,
    "lambdarank": mean_of_lists(lambdarank),
    "approx_ndcg": mean_of_lists(approx_ndcg),
    "list_mle": mean_of_lists(list_mle),
    "cox_partial_likelihood": cox_partial_likelihood,
    "lovasz_hinge": lovasz_hinge,
    "lovasz_softmax": lovasz_softmax,
}
LOSSES = {name: Loss(by_torch(function), source="formula") for name, function in FUNCTIONS.items()}
