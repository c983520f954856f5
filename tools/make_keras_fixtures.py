"""Make tests/fixtures/keras with Keras itself: the tests compare our networks and optimisers with the originals.

Keras is no dependency of the project. It is needed here alone, in an environment of its own:

    python3 -m venv /tmp/keras-venv
    /tmp/keras-venv/bin/pip install keras==3.15.1 tensorflow-cpu==2.21.0 tf-keras==2.21.0 numpy
    TF_ENABLE_ONEDNN_OPTS=0 /tmp/keras-venv/bin/python tools/make_keras_fixtures.py

`networks.npz` holds latents and reconstructions of the published networks, in Keras's layout (N, H, W, C). Weights and
images are not stored: they come from a seed and the stored shapes, by `fill`, here and in the tests alike.
`training.npz` holds ten steps of each optimiser with each loss. Its `strided` case is made with Keras 2 (`tf_keras`),
which the systems were published with: Keras 3 keeps the biased batch variance, Keras 2 the corrected one, as torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found]
import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]
import tf_keras  # type: ignore[import-not-found]
from keras import layers

TARGET = Path(__file__).parent.parent / "tests/fixtures/keras"
# name: registered model, its options, shape (H, W, C), images, the step at which the reconstruction is stored.
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int], int, int]] = {
    "autoencoder": ("dense", {"hidden": [64]}, (28, 28, 1), 4, 1),
    "deep_autoencoder": ("dense-deep", {"hidden": [128, 64]}, (28, 28, 1), 4, 1),
    "held_out_digit": ("dense", {"hidden": [32]}, (28, 28, 1), 4, 1),
    "convolutional_autoencoder": ("conv-pooling", {"filters": [32, 16, 8]}, (28, 28, 1), 4, 1),
    "convolutional_autoencoder_colour": ("conv-pooling", {"filters": [32, 16, 8]}, (20, 36, 3), 3, 1),
    "latent_plane": ("latent-plane", {"latent_dim": 2}, (28, 28, 1), 4, 1),
    "contaminated_ones": ("conv-strided", {"filters": [32, 64], "latent_dim": 16, "slope": 0.2}, (28, 28, 1), 4, 1),
    "contaminated_ones_other": (
        "conv-strided",
        {"filters": [4, 6, 8], "latent_dim": 5, "slope": 0.2},
        (24, 40, 2),
        3,
        1,
    ),
    "deepweeds_small": (
        "conv-strided-deep",
        {"filters": [16, 32, 64], "latent_dim": 32, "slope": 0.3},
        (32, 32, 3),
        3,
        1,
    ),
    "deepweeds": (
        "conv-strided-deep",
        {"filters": [16, 32, 64], "latent_dim": 32, "slope": 0.3},
        (256, 256, 3),
        1,
        8,
    ),
}


def fill(rng: np.random.Generator, layer: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Return the weights of one layer: Glorot-sized kernels, biases and batch statistics away from their start."""
    draws = [rng.random(shape) * 2 - 1 for shape in shapes]
    if layer == "BatchNormalization":
        gamma, beta, mean, variance = draws
        weights = [1 + 0.3 * gamma, 0.2 * beta, 0.2 * mean, 1 + 0.5 * variance]
    else:
        kernel, bias = draws
        field = int(np.prod(kernel.shape[:-2]))
        weights = [kernel * np.sqrt(6 / (field * sum(kernel.shape[-2:]))), 0.1 * bias]
    return [weight.astype(np.float32) for weight in weights]


# --- the networks as their authors wrote them


def dense(shape: tuple[int, int, int], hidden: list[int]) -> tuple[keras.Model, keras.Model]:
    """Systems 1 (`autoencoder`, `deep_autoencoder`) and 2."""
    images = keras.Input(shape)
    x = layers.Flatten()(images)
    for units in hidden:
        x = layers.Dense(units, activation="relu")(x)
    latent = y = keras.Input((hidden[-1],))
    for units in hidden[-2::-1]:
        y = layers.Dense(units, activation="relu")(y)
    y = layers.Dense(int(np.prod(shape)), activation="sigmoid")(y)
    return keras.Model(images, x), keras.Model(latent, layers.Reshape(shape)(y))


def pooling(shape: tuple[int, int, int], filters: list[int]) -> tuple[keras.Model, keras.Model]:
    """System 1, `convolutional_autoencoder`."""
    images = keras.Input(shape)
    x = layers.Conv2D(filters[0], (3, 3), activation="relu", padding="same")(images)
    x = layers.MaxPooling2D((2, 2), padding="same")(x)
    x = layers.Conv2D(filters[1], (3, 3), activation="relu", padding="same")(x)
    x = layers.MaxPooling2D((2, 2), padding="same")(x)
    x = layers.Conv2D(filters[2], (3, 3), activation="relu", padding="same")(x)
    latent = y = keras.Input(x.shape[1:])
    y = layers.UpSampling2D((2, 2))(y)
    y = layers.Conv2D(filters[1], (3, 3), activation="relu", padding="same")(y)
    y = layers.UpSampling2D((2, 2))(y)
    y = layers.Conv2D(filters[0], (3, 3), activation="relu", padding="same")(y)
    y = layers.Conv2D(shape[2], (3, 3), activation="sigmoid", padding="same")(y)
    return keras.Model(images, x), keras.Model(latent, y)


def plane(shape: tuple[int, int, int], latent_dim: int) -> tuple[keras.Model, keras.Model]:
    """System 3."""
    images = keras.Input(shape)
    x = layers.Conv2D(32, 3, strides=2, activation="relu", padding="same")(images)
    x = layers.Conv2D(64, 3, strides=2, activation="relu", padding="same")(x)
    x = layers.Conv2D(latent_dim, 7, padding="valid")(x)
    latent = y = keras.Input(x.shape[1:])
    y = layers.Conv2DTranspose(64, 7, activation="relu", padding="valid")(y)
    y = layers.Conv2DTranspose(32, 3, strides=2, activation="relu", padding="same")(y)
    y = layers.Conv2DTranspose(shape[2], 7, strides=2, padding="same")(y)
    return keras.Model(images, x), keras.Model(latent, y)


def strided(
    shape: tuple[int, int, int],
    filters: list[int],
    latent_dim: int,
    slope: float,
    k: Any = keras,  # noqa: ANN401 - either Keras
) -> tuple[Any, Any]:
    """Systems 4 and 5; `k` is Keras 3 or Keras 2, whose LeakyReLU calls the slope alpha."""
    made = k.layers
    leaky = {"negative_slope" if k is keras else "alpha": slope}
    images = x = k.Input(shape)
    for count in filters:
        x = made.Conv2D(count, (3, 3), strides=2, padding="same")(x)
        x = made.LeakyReLU(**leaky)(x)
        x = made.BatchNormalization(axis=-1)(x)
    volume = tuple(x.shape[1:])
    x = made.Dense(latent_dim)(made.Flatten()(x))
    latent = k.Input((latent_dim,))
    y = made.Reshape(volume)(made.Dense(int(np.prod(volume)))(latent))
    for count in filters[::-1]:
        y = made.Conv2DTranspose(count, (3, 3), strides=2, padding="same")(y)
        y = made.LeakyReLU(**leaky)(y)
        y = made.BatchNormalization(axis=-1)(y)
    y = made.Conv2DTranspose(shape[2], (3, 3), padding="same")(y)
    return k.Model(images, x), k.Model(latent, made.Activation("sigmoid")(y))


BUILDERS = {
    "dense": dense,
    "dense-deep": dense,
    "conv-pooling": pooling,
    "latent-plane": plane,
    "conv-strided": strided,
    "conv-strided-deep": strided,
}


def weighted(*models: Any) -> list[Any]:  # noqa: ANN401 - either Keras
    """Return the layers that have weights, encoder first."""
    return [layer for model in models for layer in model.layers if layer.weights]


def describe(found: list[Any]) -> list[dict[str, Any]]:
    """Return class, shapes of the weights and Keras's parameter count of each layer."""
    return [
        {
            "layer": type(layer).__name__,
            "shapes": [list(weight.shape) for weight in layer.get_weights()],
            "parameters": int(layer.count_params()),
        }
        for layer in found
    ]


def make_networks() -> None:
    """Write `networks.npz`."""
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {"keras": keras.__version__, "tensorflow": tf.__version__, "cases": {}}
    for seed, (name, (model, options, shape, count, step)) in enumerate(NETWORKS.items()):
        encoder, decoder = BUILDERS[model](shape, **options)  # type: ignore[operator]
        found, rng, checksum = weighted(encoder, decoder), np.random.default_rng(seed), 0.0
        for layer in found:
            weights = fill(rng, type(layer).__name__, [weight.shape for weight in layer.get_weights()])
            layer.set_weights(weights)
            checksum += sum(float(np.abs(weight).sum(dtype=np.float64)) for weight in weights)
        images = rng.random((count, *shape)).astype(np.float32)
        latent = encoder(images, training=False).numpy()
        output = decoder(latent, training=False).numpy()
        about["cases"][name] = {
            "model": model,
            "options": options,
            "shape": shape,
            "seed": seed,
            "count": count,
            "step": step,
            "checksum": checksum,
            "layers": describe(found),
            "encoder_parameters": encoder.count_params(),
            "parameters": encoder.count_params() + decoder.count_params(),
        }
        arrays[f"{name}/latent"] = latent.reshape(count, -1)
        arrays[f"{name}/output"] = output[:, ::step, ::step]
        print(name, about["cases"][name]["encoder_parameters"], about["cases"][name]["parameters"], output.std())
    np.savez_compressed(TARGET / "networks.npz", about=np.array(json.dumps(about)), **arrays)


# --- training


def tiny_dense() -> keras.Model:
    """Return a dense autoencoder of 12 numbers, hidden 5."""
    model = keras.Sequential(
        [keras.Input((12,)), layers.Dense(5, activation="relu"), layers.Dense(12, activation="sigmoid")]
    )
    rng = np.random.default_rng(100)
    for layer in model.layers:
        layer.set_weights(fill(rng, "Dense", [weight.shape for weight in layer.get_weights()]))
    return model


def tiny_batches() -> np.ndarray:
    """Return (10, 4, 12): one number always 0, and one so small that its gradient is of the size of epsilon."""
    batches = np.random.default_rng(101).random((10, 4, 12)).astype(np.float32)
    batches[..., 0] = 0
    batches[..., 1] *= 1e-5
    return batches


def make_optimizers(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Ten steps of each optimiser, each loss and each schedule; the weights after each step's end are what is kept."""
    kinds = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD, "adagrad": keras.optimizers.Adagrad}
    batches = tiny_batches()
    arrays["batches"] = batches
    arrays.update({f"start/{i}": weight for i, weight in enumerate(tiny_dense().get_weights())})
    for optimizer, kind in kinds.items():
        about["defaults"][optimizer] = float(kind().learning_rate.numpy())
        for loss, keras_loss in {"mse": "mean_squared_error", "bce": "binary_crossentropy"}.items():
            for decay in (0.0, 0.05):
                # Ten times the default rate, so that ten steps go somewhere.
                rate = 10 * about["defaults"][optimizer]
                schedule = keras.optimizers.schedules.InverseTimeDecay(rate, 1, decay) if decay else rate
                model = tiny_dense()
                model.compile(optimizer=kind(schedule), loss=keras_loss)
                losses = [float(model.train_on_batch(batch, batch)) for batch in batches]
                case = {"optimizer": optimizer, "loss": loss, "decay": decay, "rate": rate, "losses": losses}
                about["optimizers"].append(case)
                number = len(about["optimizers"]) - 1
                arrays.update({f"{number}/{i}": weight for i, weight in enumerate(model.get_weights())})


def make_losses(arrays: dict[str, np.ndarray]) -> None:
    """Binary cross-entropy, and its gradient, where predictions touch 0 and 1."""
    target = np.array([[0, 1, 0, 1, 0.5, 0.25, 1, 0]], np.float32)
    output = np.array([[0, 1, 1, 0, 0.5, 0.75, 1e-8, 1 - 1e-6]], np.float32)
    arrays["bce/target"], arrays["bce/output"] = target, output
    with tf.GradientTape() as tape:
        variable = tf.Variable(output)
        value = keras.losses.binary_crossentropy(target, variable)
    arrays["bce/value"], arrays["bce/gradient"] = value.numpy(), tape.gradient(value, variable).numpy()


def make_strided(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Ten steps of a tiny system 5 in Keras 2 with its own optimiser: batch statistics and decay as published."""
    shape, options = (8, 8, 1), {"filters": [4, 6], "latent_dim": 3, "slope": 0.2}
    encoder, decoder = strided(shape, **options, k=tf_keras)  # type: ignore[arg-type]
    found, rng = weighted(encoder, decoder), np.random.default_rng(102)
    for layer in found:
        layer.set_weights(fill(rng, type(layer).__name__, [weight.shape for weight in layer.get_weights()]))
    arrays.update({f"strided/start/{i}": w for i, w in enumerate(w for layer in found for w in layer.get_weights())})
    images = tf_keras.Input(shape)
    model = tf_keras.Model(images, decoder(encoder(images)))
    model.compile(loss="mse", optimizer=tf_keras.optimizers.legacy.Adam(learning_rate=1e-3, decay=1e-3 / 20))
    batches = rng.random((10, 4, *shape)).astype(np.float32)
    losses = [float(model.train_on_batch(batch, batch)) for batch in batches]
    arrays["strided/batches"] = batches
    arrays.update({f"strided/end/{i}": w for i, w in enumerate(w for layer in found for w in layer.get_weights())})
    about["strided"] = {"shape": shape, "options": options, "rate": 1e-3, "decay": 1e-3 / 20, "losses": losses}


def make_training() -> None:
    """Write `training.npz`."""
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {
        "keras": keras.__version__,
        "tf_keras": tf_keras.__version__,
        "tensorflow": tf.__version__,
        "defaults": {},
        "optimizers": [],
    }
    make_optimizers(arrays, about)
    make_losses(arrays)
    make_strided(arrays, about)
    np.savez_compressed(TARGET / "training.npz", about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    TARGET.mkdir(parents=True, exist_ok=True)
    make_networks()
    make_training()
