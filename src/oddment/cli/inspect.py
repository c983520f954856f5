"""`oddment inspect`: everything a model file says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oddment.cli._shared import Debug, Json, consoles, print_card, print_json, reporting

__all__ = ["inspect"]


def inspect(
    model: Annotated[Path, typer.Argument(help="The model file.", show_default=False)],
    history: Annotated[bool, typer.Option("--history", help="Also the losses of every epoch.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a model file: verdict, images, model, training, data, checks, versions.

    The file is verified as it is read; nothing in it can run code.
    """
    with reporting(debug=debug):
        from oddment.artifact import FORMAT_VERSION, read_model
        from oddment.card import model_card

        contents = read_model(model)
        if as_json:
            calibration = contents.calibration
            print_json(
                {
                    "format_version": FORMAT_VERSION,
                    "preparation": contents.preparation.as_dict(),
                    "calibration": {
                        **calibration.as_dict(),
                        "scores": calibration.scores.tolist(),
                        "training_scores": calibration.training_scores.tolist(),
                    },
                    "scoring_batch": contents.scoring_batch,
                    "map_range": list(contents.map_range),
                    "info": contents.info,
                }
            )
            return
        out, _ = consoles()
        out.print(f"[bold]{model}[/bold]  {model.stat().st_size / 1e6:,.1f} MB, format {FORMAT_VERSION}, verified\n")
        print_card(out, model_card(contents))
        for title, key in (("Rejected while fitting", "rejections"), ("Exact duplicates", "duplicates")):
            entries = contents.info.get("data", {}).get(key) or []
            if entries:
                print_card(out, {title: {str(entry[0]): " ".join(map(str, entry[1:])) for entry in entries}})
        if history:
            epochs = contents.info.get("training", {}).get("history", [])
            rows = {
                f"epoch {epoch['number']}": (
                    f"training {epoch['training_loss']:.5g}, validation {epoch['validation_loss']:.5g}"
                )
                for epoch in epochs
            }
            print_card(out, {"History": rows})
