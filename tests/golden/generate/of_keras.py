"""Losses of keras.losses, on the torch backend. Keras forces float64 to float32 there; its TensorFlow backend does not,
and the entry of its promotion table is set as there."""

import os

os.environ["KERAS_BACKEND"] = "torch"
import keras  # noqa: E402 (the backend is chosen on import)
import torch  # noqa: E402
from golden import Loss, by_torch  # noqa: E402
from keras.src.backend.common import dtypes  # noqa: E402

dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"

VERSION = "keras 3.15.1"


def of(name: str) -> Loss:
    def function(inputs, options):
        keras.config.set_floatx(str(torch.get_default_dtype()).removeprefix("torch."))
        if isinstance(options.get("axis"), list):
            options["axis"] = tuple(options["axis"])
        loss = getattr(keras.losses, name)(**options)
        return loss(inputs["y_true"], inputs["y_pred"], inputs.get("sample_weight"))

    return Loss(by_torch(function), source=f"{VERSION} keras.losses.{name}")


LOSSES = {
    "hinge": of("Hinge"),
    "squared_hinge": of("SquaredHinge"),
    "categorical_hinge": of("CategoricalHinge"),
    "log_cosh": of("LogCosh"),
    "mape": of("MeanAbsolutePercentageError"),
    "msle": of("MeanSquaredLogarithmicError"),
    "poisson": of("Poisson"),
    "cosine_similarity": of("CosineSimilarity"),
    "kl_divergence": of("KLDivergence"),
    "dice": of("Dice"),
    "tversky": of("Tversky"),
    "binary_focal": of("BinaryFocalCrossentropy"),
    "categorical_focal": of("CategoricalFocalCrossentropy"),
    "categorical_crossentropy": of("CategoricalCrossentropy"),
}
