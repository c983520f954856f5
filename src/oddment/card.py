"""The model card: what a model file says of itself, in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oddment.artifact import ModelFile

__all__ = ["model_card"]

# Changes of the calibration that the card lists, the latest ones.
_CALIBRATIONS = 12


def model_card(model: ModelFile, info: Mapping[str, Any] | None = None) -> dict[str, dict[str, str]]:
    """Return section → label → value, all text.

    Args:
        model: contents of a model file.
        info: what it says of its making; the model's own unless given.
    """
    info = model.info if info is None else info
    sections = {
        "Verdict": _verdict(model),
        "Images": _images(model),
        "Model": _told(lambda about: _model(about, model), info.get("model")),
        "Training": _told(_training, info.get("training")),
        "Data": _told(_data, info.get("data")),
        "Calibrations": _told(_calibrations, info.get("calibrations")),
        "Checks": _told(_checks, info.get("parity")) | _told(_baselines, info.get("training")),
        "Versions": _told(_versions, info.get("versions")),
    }
    if "created" in info:
        sections["Versions"]["created"] = str(info["created"])
    return {name: rows for name, rows in sections.items() if rows}


def _told(describe: Callable[[Any], dict[str, str]], info: Any) -> dict[str, str]:  # noqa: ANN401
    """What a section of `info` says; the format lets a file say anything there, and a card is not worth an error."""
    if not info:
        return {}
    try:
        return describe(info)
    except (KeyError, TypeError, ValueError, AttributeError):
        return {"not told": "the file says nothing here that this release understands"}


def _versions(info: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in info.items()}


def _verdict(model: ModelFile) -> dict[str, str]:
    calibration = model.calibration
    rows = {
        "threshold": f"{calibration.threshold:.6g}",
        "rule": calibration.rule.describe(),
        "calibration images": f"{calibration.scores.size:,}, held out from training"
        if calibration.scores.size
        else "none",
        "independent groups": f"{calibration.n_groups:,}",
    }
    if calibration.scores.size:
        low, middle, high = (float(calibration.scores[i]) for i in (0, calibration.scores.size // 2, -1))
        rows["calibration scores"] = f"{low:.6g} … {middle:.6g} … {high:.6g} (least, median, largest)"
        rows["flagged in calibration"] = f"{calibration.flagged_share:.2%}"
    caveat = calibration.caveat()
    return rows | ({"caveat": caveat} if caveat else {})


def _calibrations(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What was changed since fitting, the latest last; files that nothing was changed in say nothing here."""
    words = {"fit": "fitted", "replace": "recalibrated", "add": "images added", "threshold": "another rule"}
    rows = {}
    for number, entry in enumerate(history[-_CALIBRATIONS:], start=max(1, len(history) - _CALIBRATIONS + 1)):
        note = f"; {entry['note']}" if entry["note"] else ""
        rule = f"{entry['rule']['kind']}={entry['rule']['value']:g}"
        rows[f"{number}. {words[entry['how']]}"] = (
            f"{entry['when']}: {entry['images']:,} images, {rule}, threshold {entry['threshold']:.6g}{note}"
        )
    return rows


def _images(model: ModelFile) -> dict[str, str]:
    preparation = model.preparation
    how = {
        "letterbox": "aspect ratio kept, padding never scored",
        "stretch": "stretched",
        "tile": "cut into tiles at its own resolution",
    }[preparation.fit]
    colour = "gray" if preparation.channels == 1 else "colour"
    ranges = ", ".join(f"{name} {low:g}…{high:g}" for name, (low, high) in preparation.ranges.items())
    return {
        "prepared as": f"{preparation.width}×{preparation.height} pixels, {colour}",
        "fit": how,
        "value ranges": ranges,
        **_exposure(model),
        "training images kept": _examples(model),
    }


def _exposure(model: ModelFile) -> dict[str, str]:
    about = model.info.get("model")
    told = isinstance(about, dict) and about.get("standardise_exposure") is True
    return {"exposure": "each picture brought to mean 0.5 and contrast 0.2"} if told else {}


def _examples(model: ModelFile) -> str:
    if not len(model.examples):
        return "none"
    size = sum(map(len, model.examples.pictures))
    return f"{len(model.examples):,} small pictures with their names, {size / 1e6:.2f} MB, for people to compare with"


def _model(info: Mapping[str, Any], model: ModelFile) -> dict[str, str]:
    if not info:
        return {}
    options = ", ".join(f"{key}={value}" for key, value in info.get("options", {}).items())
    return {
        "name": f"{info.get('name')} ({info.get('chosen')})",
        "what it is": str(info.get("summary", "")),
        "options": options or "none",
        "score": _score(str(info.get("score", "model")), str(info.get("pool", "model"))),
        "parameters": f"{info.get('parameters', 0):,}",
        "scoring batch": str(model.scoring_batch),
    }


def _score(score: str, pool: str) -> str:
    parts = score.split(",")
    how = "the model's own" if parts == ["model"] else parts[0]
    if len(parts) > 1:
        how = f"{' + '.join(parts)}, each in standard deviations of normal images"
    return how if pool == "model" else f"{how}, pooled by {pool}"


def _training(info: Mapping[str, Any]) -> dict[str, str]:
    history = info.get("history") or []
    notes = {"chosen": "; ".join(map(str, info["choices"]))} if info.get("choices") else {}
    notes |= {"note": " ".join(map(str, info["notes"]))} if info.get("notes") else {}
    if not history:
        once = {"fitted": "in one pass", "time": f"{info['seconds']:.1f} s", "seed": str(info["seed"])} if info else {}
        return once | notes
    best = min(history, key=lambda epoch: float(epoch["validation_loss"]))
    return {
        "epochs": f"{len(history)} of {info['epochs']}; best at {best['number']}",
        "stopped": str(info["stopped"]),
        "loss": f"training {best['training_loss']:.5g}, validation {best['validation_loss']:.5g}",
        "batch and rate": f"{info['batch_size']} images, {info['learning_rate']:g}",
        "time": f"{info['seconds']:.1f} s on {info['device']}",
        "seed": str(info["seed"]),
    } | notes


def _data(info: Mapping[str, Any]) -> dict[str, str]:
    if not info:
        return {}
    excluded = info.get("excluded")
    files = ", ".join(str(entry["name"]) for entry in excluded["files"]) if excluded else ""
    return {
        "images": f"{info['usable']:,} usable, {info['rejected']:,} rejected",
        **({"left out": f"{excluded['images']:,} by {files}"} if excluded else {}),
        "split": ", ".join(f"{info[part]:,} {part}" for part in ("training", "validation", "calibration")),
        "independent groups": f"{info['groups']:,} (near duplicates and groups share a side)",
        "exact duplicates": f"{info['exact_duplicates']:,}",
        "median size": "×".join(map(str, info["median_size"])),
        "fingerprint": str(info["fingerprint"])[:16],
    }


def _baselines(info: Mapping[str, Any]) -> dict[str, str]:
    """How plain baselines did beside the model; files of earlier releases say nothing of them."""
    tried = info.get("baselines")
    if not tried:
        return {}
    if "skipped" in tried:
        return {"plain baselines": f"not tried: {tried['skipped']}"}
    figures = ", ".join(f"{name} {value:.3f}" for name, value in tried["auroc"].items())
    ahead = tried["ahead"]
    return {
        "plain baselines": f"AUROC {figures} on synthetic defects in {tried['images']:,} held-out images",
        "ahead of the best of them": f"{ahead['value']:+.3f} [{ahead['low']:+.3f}, {ahead['high']:+.3f}], a hint",
    }


def _checks(info: Mapping[str, Any]) -> dict[str, str]:
    if not info:
        return {}
    return {
        "torch against ONNX Runtime": (
            f"largest score difference {info['max_abs_difference']:.2g} on {info['images']:,} calibration images"
        )
    }
