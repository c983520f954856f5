"""The precision of training goes by what model and processor are, and memory is kept between steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oddment.allocator import kept_pages
from oddment.calibration import ThresholdRule
from oddment.errors import ParameterError
from oddment.fitting import fit_images
from oddment.images.inputs import as_refs
from oddment.training import precision
from oddment.training.precision import pick_precision
from oddment.training.settings import Settings

CPU = torch.device("cpu")


def fitted(name: str) -> tuple[str, list[float]]:
    rng = np.random.default_rng(0)
    images = (rng.random((96, 16, 16)) * np.linspace(0, 255, 16)).astype(np.uint8)
    settings = Settings(
        model="conv-small",
        precision=name,  # type: ignore[arg-type]
        epochs=6,
        batch_size=16,
        rule=ThresholdRule("max_normal", 0.0, "training"),
        find_duplicates=False,
    )
    training = fit_images(lambda: as_refs(images), len(images), settings).model.info["training"]
    return training["precision"], [epoch["validation_loss"] for epoch in training["history"]]


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("gains", [True, False])
def test_auto_needs_both_model_and_processor(units: bool, gains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 is taken only where the model gains from it and the processor has units for it."""
    monkeypatch.setattr(precision, "_has_units", lambda _: units)
    assert pick_precision("auto", CPU, gains=gains) == ("bfloat16" if units and gains else "float32")


def test_what_is_asked_for_is_done_and_recorded() -> None:
    """The model file names the precision, and the lower one ends at nearly the same validation loss."""
    (plain, losses), (half, others) = fitted("float32"), fitted("bfloat16")
    assert (plain, half) == ("float32", "bfloat16")
    assert losses != others
    assert others[-1] == pytest.approx(losses[-1], rel=0.05)


def test_an_unknown_precision_is_refused() -> None:
    """The message names the choices."""
    with pytest.raises(ParameterError, match="precision"):
        Settings(precision="half").check()  # type: ignore[arg-type]


def test_kept_pages_gives_memory_back_at_the_end() -> None:
    """What is freed inside the block stays, and goes back to the system when the block ends."""

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    size = 256 * 1024**2  # bytes
    before = resident()
    with kept_pages():
        torch.ones(size // 4)  # made and dropped
        inside = resident() - before
    after = resident() - before
    assert inside > 0.9 * size
    assert after < 0.2 * size
