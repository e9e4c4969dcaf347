"""Losses by their formulas (`formula` in each file's metadata), which torch autograd differentiates."""

import math

import torch
import torch.nn.functional as F
from golden import Loss, by_torch, reduced
from torch import exp, log, sigmoid


def softplus(x):
    """ln(1 + exp(x)): torch's own is linear above 20."""
    return -F.logsigmoid(-x)


def elementwise(function, inputs=("input", "target")):
    """`function(inputs…, options)` of each element, reduced."""

    def outputs(given, options):
        return reduced(function(*[given[name] for name in inputs], options), options["reduction"])

    return outputs


def residual(function):
    return elementwise(lambda x, t, options: function(x - t, options))


def of_labels(function):
    """`function(ln softmax of each row, the label's, options, inputs)`; ignored rows are 0 and not in the mean."""

    def outputs(given, options):
        x, y = given["input"], given["target"]
        kept = y != options.get("ignore_index", -100)
        label = torch.where(kept, y, 0).unsqueeze(1)
        log_p = torch.log_softmax(transformed(x, options), 1)
        losses = function(log_p.gather(1, label).squeeze(1), x, label, options, given)
        return reduced(torch.where(kept, losses, 0), options["reduction"], kept.to(x.dtype))

    return outputs


def transformed(x, options):
    if "softcap" in options:
        return options["softcap"] * torch.tanh(x / options["softcap"])
    return x / options.get("temperature", 1.0)


def generalized_ce(log_p, x, label, options, given):
    return -torch.expm1(options["q"] * log_p) / options["q"]


def symmetric_ce(log_p, x, label, options, given):
    return -options["alpha"] * log_p + options["beta"] * options["A"] * torch.expm1(log_p)


def taylor_ce(log_p, x, label, options, given):
    miss = -torch.expm1(log_p)
    return sum(miss**k / k for k in range(1, int(options["order"]) + 1))


def multiclass_focal(log_p, x, label, options, given):
    alpha = given["alpha"][label.squeeze(1)] if "alpha" in given else 1.0
    return -alpha * (-torch.expm1(log_p)) ** options["gamma"] * log_p


def z_loss(log_p, x, label, options, given):
    return -log_p + options["z"] * torch.logsumexp(x, 1) ** 2


def ldam(given, options):
    x, y = given["input"], given["target"]
    margin = F.one_hot(y, x.shape[1]).movedim(-1, 1).to(x.dtype) * given["margins"].reshape(-1, *[1] * (x.dim() - 2))
    log_p = torch.log_softmax(options["scale"] * (x - margin), 1).gather(1, y.unsqueeze(1)).squeeze(1)
    weight = given["weight"][y] if "weight" in given else torch.ones_like(log_p)
    return reduced(-weight * log_p, options["reduction"], weight)


def distillation(given, options):
    student, teacher, y = given["student_logits"], given["teacher_logits"], given["target"]
    t, alpha = options["temperature"], options["alpha"]
    log_p, log_q = torch.log_softmax(teacher / t, 1), torch.log_softmax(student / t, 1)
    soft = (exp(log_p) * (log_p - log_q)).sum(1)
    hard = F.cross_entropy(student, y, reduction="none")
    return reduced(alpha * t**2 * soft + (1 - alpha) * hard, options["reduction"])


def jsd(given, options):
    x, y, beta = given["input"], given["target"], options["beta"]
    q, p = exp(x), exp(y)
    if beta == 0:
        losses = p * (y - x)
    elif beta == 1:
        losses = q * (x - y)
    else:
        log_m = torch.logsumexp(torch.stack([y + math.log(beta), x + math.log1p(-beta)]), 0)
        losses = beta * p * (y - log_m) + (1 - beta) * q * (x - log_m)
    return reduced(losses.sum(-1), options["reduction"])


def tvd(given, options):
    return reduced(0.5 * (given["input"] - given["target"]).abs(), options["reduction"])


def quantile(d, options):
    return torch.where(d <= 0, -options["tau"] * d, (1 - options["tau"]) * d)


def expectile(d, options):
    return torch.where(d <= 0, options["tau"], 1 - options["tau"]) * d**2


def general_robust(d, options):
    alpha, z = float(options["alpha"]), (d / options["c"]) ** 2
    if alpha == 2:
        return z / 2
    if alpha == 0:
        return torch.log1p(z / 2)
    if alpha == -math.inf:
        return -torch.expm1(-z / 2)
    b = abs(alpha - 2)
    return b / alpha * torch.expm1(alpha / 2 * torch.log1p(z / b))


def tweedie(x, t, options):
    p, log_mu = options["p"], x if options["log_input"] else log(x)
    return -t * exp((1 - p) * log_mu) / (1 - p) + exp((2 - p) * log_mu) / (2 - p)


def gamma_nll(given, options):
    x, t = given["input"], given["target"]
    k = 1 / given["dispersion"] if "dispersion" in given else torch.ones_like(x)
    losses = k * ((t * exp(-x) + x) if options["log_input"] else (t / x + log(x)))
    if options["full"]:
        losses = losses - k * log(k) - (k - 1) * log(t) + torch.lgamma(k)
    return reduced(losses, options["reduction"])


def evidential(gamma, nu, alpha, beta, target, options):
    w, r = 2 * beta * (1 + nu), target - gamma
    nll = log(math.pi / nu) / 2 - alpha * log(w) + (alpha + 0.5) * log(nu * r**2 + w)
    nll = nll + torch.lgamma(alpha) - torch.lgamma(alpha + 0.5)
    return nll + options["lambda"] * r.abs() * (2 * nu + alpha)


def crps_gaussian(x, scale, t, options):
    z = (t - x) / scale
    density = 2 * exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return scale * (z * torch.erf(z / math.sqrt(2)) + density - 1 / math.sqrt(math.pi))


def label_smoothing_bce(given, options):
    x, smoothing = given["input"], options["label_smoothing"]
    y = given["target"] * (1 - smoothing) + smoothing / 2
    losses = -(given.get("pos_weight", 1.0) * y * F.logsigmoid(x) + (1 - y) * F.logsigmoid(-x))
    return reduced(losses, options["reduction"])


def asymmetric(x, t, options):
    p = sigmoid(x)
    q = torch.relu(p - options["clip"])
    powers = [sigmoid(-x) ** options["gamma_pos"], q ** options["gamma_neg"]]
    if options["detach_weights"]:
        powers = [power.detach() for power in powers]
    log_miss = F.logsigmoid(-x) if options["clip"] == 0 else torch.log1p(-q)
    return torch.where(t == 1, -powers[0] * F.logsigmoid(x), -powers[1] * log_miss)


def coral(given, options):
    x, y = given["input"], given["target"]
    above = (y.unsqueeze(1) > torch.arange(x.shape[1])).to(x.dtype)
    losses = (given.get("weight", 1.0) * (softplus(x) - x * above)).sum(1)
    return reduced(losses, options["reduction"])


def corn(given, options):
    x, y = given["input"], given["target"].unsqueeze(1)
    task = torch.arange(x.shape[1])
    reaches = (y >= task).to(x.dtype)
    each = reaches * (softplus(x) - x * (y > task).to(x.dtype))
    return reduced(each.sum(1), options["reduction"], reaches)


def ordinal_cumulative_link(given, options):
    x, th, y = given["input"], given["thresholds"], given["target"]
    last, none = th.shape[0], torch.zeros_like(x)
    above, below = th[y.clamp(max=last - 1)], th[(y - 1).clamp(min=0)]
    under = torch.where(y == last, none, softplus(x - above))
    over = torch.where(y == 0, none, softplus(below - x))
    gap = torch.where((y == 0) | (y == last), torch.ones_like(x), above - below)
    width = torch.where((y == 0) | (y == last), none, -log(-torch.expm1(-gap)))
    return reduced(under + over + width, options["reduction"])


def byol(given, options):
    def term(q, z):
        return 2 - 2 * F.cosine_similarity(q, z.detach(), -1)

    losses = term(given["online_1"], given["target_2"])
    if "online_2" in given:
        losses = losses + term(given["online_2"], given["target_1"])
    return reduced(losses, options["reduction"])


def margin_mse(positive, negative, teacher_positive, teacher_negative, options):
    return ((positive - negative) - (teacher_positive - teacher_negative)) ** 2


def over_factor(losses, options):
    if options["reduction"] == "mean" and options.get("avg_factor") is not None:
        return losses.sum() / options["avg_factor"]
    return reduced(losses, options["reduction"])


def varifocal(given, options):
    x, q = given["input"], given["target"]
    positive = -q * (q * F.logsigmoid(x) + (1 - q) * F.logsigmoid(-x))
    negative = -options["alpha"] * sigmoid(x) ** options["gamma"] * F.logsigmoid(-x)
    return over_factor(torch.where(q > 0, positive, negative), options)


def quality_focal(given, options):
    x, q = given["input"], given["target"]
    bce = -(q * F.logsigmoid(x) + (1 - q) * F.logsigmoid(-x))
    return over_factor((sigmoid(x) - q).abs() ** options["beta"] * bce, options)


def distribution_focal(given, options):
    x, t = given["input"], given["target"]
    k = t.detach().floor().clamp(max=x.shape[-1] - 2).long()
    log_p = torch.log_softmax(x, -1)
    left, right = (log_p.gather(-1, (k + step).unsqueeze(-1)).squeeze(-1) for step in (0, 1))
    losses = -((k + 1 - t) * left + (t - k) * right) * given.get("weight", 1.0)
    return over_factor(losses, options)


def boundary(given, options):
    p, first = torch.softmax(given["input"], 1), 0 if options["include_background"] else 1
    return (p * given["dist"])[:, first:].mean()


def sides(boxes):
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def union_and_hull(a, b, eps):
    """IoU, and the sides of the box around both."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = torch.relu(high - low).prod(-1)
    (w, h), (v, g) = sides(a), sides(b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    return shared / (w * h + v * g - shared + eps), hull[..., 0], hull[..., 1]


def centre_steps(a, b):
    return ((b[..., k] + b[..., k + 2] - a[..., k] - a[..., k + 2]) / 2 for k in (0, 1))


def eiou(a, b, options):
    eps = options["eps"]
    iou, cw, ch = union_and_hull(a, b, eps)
    dx, dy = centre_steps(a, b)
    (w, h), (v, g) = sides(a), sides(b)
    loss = 1 - iou + (dx**2 + dy**2) / (cw**2 + ch**2 + eps)
    return loss + (w - v) ** 2 / (cw**2 + eps) + (h - g) ** 2 / (ch**2 + eps)


def siou(a, b, options):
    eps, theta = options["eps"], options["theta"]
    iou, cw, ch = union_and_hull(a, b, eps)
    dx, dy = centre_steps(a, b)
    (w, h), (v, g) = sides(a), sides(b)
    angle = 2 * (dx * dy).abs() / (dx**2 + dy**2 + eps)
    distance = -torch.expm1(-(2 - angle) * (dx / (cw + eps)) ** 2) - torch.expm1(-(2 - angle) * (dy / (ch + eps)) ** 2)
    omega = [(x - y).abs() / (torch.maximum(x, y) + eps) for x, y in ((w, v), (h, g))]
    shape = sum((-torch.expm1(-o)) ** theta for o in omega)
    return 1 - iou + (distance + shape) / 2


def overlap(given, options, squared=False):
    """Softmax, and per class (and sample) the sums I, P and G."""
    x = given["input"]
    p = torch.softmax(x, 1)
    g = F.one_hot(given["target"], x.shape[1]).movedim(-1, 1).to(x.dtype)
    axes = [0, *range(2, x.dim())] if options["batch"] else list(range(2, x.dim()))
    first = 0 if options["include_background"] else 1
    sums = [(p * g), p**2 if squared else p, g]
    return [each.sum(axes)[..., first:] for each in sums]


def dice_of(given, options):
    i, p, g = overlap(given, options, options.get("squared_pred", False))
    return (1 - (2 * i + options["smooth"]) / (p + g + options["smooth"])).mean()


def dice_ce(given, options):
    ce = F.cross_entropy(given["input"], given["target"], given.get("weight"))
    return options["lambda_dice"] * dice_of(given, options) + options["lambda_ce"] * ce


def dice_focal(given, options):
    x, y = given["input"], given["target"].unsqueeze(1)
    log_p = torch.log_softmax(x, 1).gather(1, y)
    focal = (-((-torch.expm1(log_p)) ** options["gamma"]) * log_p).sum() / x.numel()
    return options["lambda_dice"] * dice_of(given, options) + options["lambda_focal"] * focal


def generalized_dice(given, options):
    i, p, g = overlap(given, options)
    power = {"square": 2, "simple": 1, "uniform": 0}[options["weight_type"]]
    w = 1 / g.detach() ** power
    finite = torch.where(torch.isfinite(w), w, 0)
    w = torch.where(torch.isfinite(w), w, finite.amax(-1, keepdim=True))
    smooth = options["smooth"]
    return (1 - (2 * (w * i).sum(-1) + smooth) / ((w * (p + g)).sum(-1) + smooth)).mean()


def focal_tversky(given, options):
    i, p, g = overlap(given, options)
    smooth = options["smooth"]
    index = (i + smooth) / (i + options["alpha"] * (p - i) + options["beta"] * (g - i) + smooth)
    return ((1 - index) ** options["gamma"]).mean()


def jaccard(given, options):
    i, p, g = overlap(given, options)
    return (1 - (i + options["smooth"]) / (p + g - i + options["smooth"])).mean()


def log_cosh_dice(given, options):
    return torch.log(torch.cosh(dice_of(given, options)))


def cumulative_gaps(given):
    """The cumulative softmax less the target's, at every class but the last."""
    x, target = given["input"], given["target"]
    q = target if target.is_floating_point() else F.one_hot(target, x.shape[1])
    return (torch.softmax(x, 1) - q).cumsum(1)[:, :-1]


def total_of(function):
    """The sum over a row's cumulative gaps."""
    return lambda given, options: reduced(function(cumulative_gaps(given)).sum(1), options["reduction"])


def rnnt(given, options):
    log_p = torch.log_softmax(given["input"], -1)
    blank = options["blank"] % log_p.shape[-1]
    losses = []
    for lattice, labels, frames, count in zip(log_p, given["target"], given["input_lengths"], given["target_lengths"]):
        ways = {}
        for t in range(int(frames)):
            for u in range(int(count) + 1):
                steps = [ways[t - 1, u] + lattice[t - 1, u, blank]] if t > 0 else []
                steps += [ways[t, u - 1] + lattice[t, u - 1, labels[u - 1]]] if u > 0 else []
                ways[t, u] = torch.logsumexp(torch.stack(steps), 0) if steps else torch.zeros(())
        losses.append(-(ways[int(frames) - 1, int(count)] + lattice[frames - 1, count, blank]))
    return reduced(torch.stack(losses), options["reduction"])


def adversarial(real=None, fake=None):
    def outputs(given, options):
        terms = [f(given[name], options).mean() for name, f in (("real", real), ("fake", fake)) if f is not None]
        return sum(terms)

    return outputs


FUNCTIONS = {
    "emd_squared": total_of(lambda gap: gap**2),
    "wasserstein1": total_of(torch.abs),
    "rnnt": rnnt,
    "rmse": lambda given, options: ((given["input"] - given["target"]) ** 2).mean().sqrt(),
    "exp_square": residual(lambda d, options: torch.expm1(-d) ** 2),
    "composite": residual(lambda d, options: options["mse_weight"] * d**2 + options["l1_weight"] * d.abs()),
    "quantile": residual(quantile),
    "expectile": residual(expectile),
    "charbonnier": residual(lambda d, options: torch.sqrt(d**2 + options["eps"] ** 2)),
    "welsch": residual(lambda d, options: -torch.expm1(-((d / options["c"]) ** 2) / 2)),
    "cauchy": residual(lambda d, options: torch.log1p((d / options["c"]) ** 2 / 2)),
    "general_robust": residual(general_robust),
    "tweedie": elementwise(tweedie),
    "gamma_nll": gamma_nll,
    "evidential": elementwise(evidential, ("gamma", "nu", "alpha", "beta", "target")),
    "crps_gaussian": elementwise(crps_gaussian, ("input", "scale", "target")),
    "l1_penalty": lambda given, options: options["lambda"] * given["w"].abs().sum(),
    "l2_penalty": lambda given, options: options["lambda"] / 2 * (given["w"] ** 2).sum(),
    "cross_entropy_temperature": of_labels(lambda log_p, *_: -log_p),
    "softcap_cross_entropy": of_labels(lambda log_p, *_: -log_p),
    "z_loss": of_labels(z_loss),
    "multiclass_focal": of_labels(multiclass_focal),
    "generalized_ce": of_labels(generalized_ce),
    "symmetric_ce": of_labels(symmetric_ce),
    "taylor_ce": of_labels(taylor_ce),
    "ldam": ldam,
    "distillation": distillation,
    "jsd": jsd,
    "tvd": tvd,
    "label_smoothing_bce": label_smoothing_bce,
    "asymmetric": elementwise(asymmetric),
    "coral": coral,
    "corn": corn,
    "ordinal_cumulative_link": ordinal_cumulative_link,
    "byol": byol,
    "bpr": elementwise(lambda p, n, options: -F.logsigmoid(p - n), ("positive", "negative")),
    "margin_mse": elementwise(margin_mse, ("positive", "negative", "teacher_positive", "teacher_negative")),
    "varifocal": varifocal,
    "quality_focal": quality_focal,
    "distribution_focal": distribution_focal,
    "boundary": boundary,
    "eiou": elementwise(eiou),
    "siou": elementwise(siou),
    "dice_ce": dice_ce,
    "dice_focal": dice_focal,
    "generalized_dice": generalized_dice,
    "focal_tversky": focal_tversky,
    "jaccard": jaccard,
    "log_cosh_dice": log_cosh_dice,
    "gan_nonsaturating_d": adversarial(lambda x, _: softplus(-x), lambda x, _: softplus(x)),
    "gan_nonsaturating_g": adversarial(fake=lambda x, _: softplus(-x)),
    "gan_hinge_d": adversarial(lambda x, _: torch.relu(1 - x), lambda x, _: torch.relu(1 + x)),
    "gan_hinge_g": adversarial(fake=lambda x, _: -x),
    "gan_wgan_d": adversarial(lambda x, _: -x, lambda x, _: x),
    "gan_wgan_g": adversarial(fake=lambda x, _: -x),
    "gan_lsgan_d": adversarial(
        lambda x, options: 0.5 * (x - options["real_label"]) ** 2,
        lambda x, options: 0.5 * (x - options["fake_label"]) ** 2,
    ),
    "gan_lsgan_g": adversarial(fake=lambda x, options: 0.5 * (x - options["real_label"]) ** 2),
}

LOSSES = {name: Loss(by_torch(function), source="formula") for name, function in FUNCTIONS.items()}
