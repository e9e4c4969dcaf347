"""Losses of optax.losses. They return unreduced values; `sum` and `mean` are taken over them."""

import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp  # noqa: E402 (x64 is chosen first)
import numpy as np  # noqa: E402
import optax.losses as library  # noqa: E402
from golden import Case, Loss  # noqa: E402

VERSION = "optax 0.2.8"
REDUCTIONS = {"none": lambda x: x, "sum": jnp.sum, "mean": jnp.mean}


def of(name: str, *required: str, reduces=False) -> Loss:
    """The function of that name; `reduces` if it takes the reduction, else it is applied to its values."""
    library_function = getattr(library, name)

    def function(inputs: dict, options: dict):
        options = {key: value for key, value in options.items() if value is not None}
        name = options.pop("reduction")
        reduction = REDUCTIONS[name]
        positional = [inputs[key] for key in required]
        named = {key: value for key, value in inputs.items() if key not in required}
        if reduces:
            named["where"] = named["where"] != 0 if "where" in named else None
            return library_function(*positional, **named, **options, reduce_fn=None if name == "none" else reduction)
        return reduction(library_function(*positional, **named, **options))

    def outputs(case: Case, dtype: type) -> dict[str, np.ndarray]:
        def cast(value):
            return jnp.asarray(value, dtype=None if value.dtype.kind == "i" else dtype)

        inputs = {key: cast(value) for key, value in case.inputs.items()}

        def total(moved):
            loss = function(inputs | dict(zip(case.grads, moved)), dict(case.options))
            return loss.sum(), loss

        moved = [inputs[key] for key in case.grads]
        (_, loss), grads = jax.value_and_grad(total, has_aux=True)(moved)
        made = {"loss": np.asarray(loss)}
        return made | {f"grad_{key}": np.asarray(grad) for key, grad in zip(case.grads, grads)}

    return Loss(outputs, source=f"{VERSION} optax.losses.{name}")


LOSSES = {
    "poly_cross_entropy": of("poly_loss_cross_entropy", "logits", "labels"),
    "sigmoid_cross_entropy": of("sigmoid_binary_cross_entropy", "logits", "labels"),
    "optax_sigmoid_focal": of("sigmoid_focal_loss", "logits", "labels"),
    "optax_hinge": of("hinge_loss", "predictor_outputs", "targets"),
    "perceptron": of("perceptron_loss", "predictor_outputs", "targets"),
    "sparsemax": of("sparsemax_loss", "logits", "labels"),
    "multiclass_sparsemax": of("multiclass_sparsemax_loss", "scores", "labels"),
    "multiclass_hinge": of("multiclass_hinge_loss", "scores", "labels"),
    "multiclass_perceptron": of("multiclass_perceptron_loss", "scores", "labels"),
    "generalized_kl": of("generalized_kl_divergence", "log_predictions", "targets"),
    "optax_ctc": of("ctc_loss", "logits", "logit_paddings", "labels", "label_paddings"),
    "ranking_softmax": of("ranking_softmax_loss", "logits", "labels", reduces=True),
}
