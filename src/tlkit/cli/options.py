"""Arguments and options that several commands have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tlkit.errors import DataError

if TYPE_CHECKING:
    from tlkit.recipe.recipe import Recipe

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe, or a folder that holds recipe.toml.")]
TargetArgument = Annotated[
    Path, typer.Argument(help="A folder per class, a CSV file, a recipe or a run folder.")
]
BackboneOption = Annotated[
    str | None,
    typer.Option(help="Any backbone, or local-dir:PATH; the recipe's, or fit's default, unless given."),
]
WeightsOption = Annotated[
    str | None, typer.Option(help="pretrained, none, or a .safetensors file; pretrained unless given.")
]
ModelArgument = Annotated[
    Path,
    typer.Argument(help="A model folder, a run folder, a folder that timm saved, or an exported .onnx file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one key, such as phase.fine-tune.epochs=5."),
]
EngineOption = Annotated[
    str | None,
    typer.Option(help="Compute features in an engine's workers, such as ray; sets compute.engine.name."),
]
WorkersOption = Annotated[
    str | None, typer.Option("--engine", help="Predict in an engine's workers, such as ray, on a cluster.")
]
WorkersSetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set an option of the engine, such as cpus=8."),
]
OutOption = Annotated[Path | None, typer.Option(help="The run folder; runs/NAME/NUMBER unless given.")]
SeparatorOption = Annotated[
    str | None, typer.Option(help="Between the labels of an image in a CSV file; | unless given.")
]
#: Of the images of `predict` and `explain`.
IMAGES_HELP = "Images, folders or patterns; - reads paths from stdin."
PhaseOption = Annotated[str | None, typer.Option(help="A run's phase; its last one unless given.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="Such as cpu, cuda, cuda:1 or mps; the best one unless given.")
]
PrecisionOption = Annotated[
    Literal["float32", "bfloat16", "auto"],
    typer.Option(help="bfloat16 can be faster where the hardware computes in it; auto uses it there."),
]
RejectOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Label images below this confidence 'unclassified'; the model's own threshold unless given.",
    ),
]
UnknownOption = Annotated[
    bool,
    typer.Option("--unknown/--no-unknown", help="Label images that belong to none of the classes 'unknown'."),
]
ReportOption = Annotated[bool, typer.Option("--report/--no-report", help="Make report.html at the end.")]


def read_recipe_file(recipe: Path, assignments: list[str] | None, engine: str | None = None) -> Recipe:
    """Reads a recipe; raises RecipeError if that cannot be done. Torch is not imported."""
    from tlkit.recipe.recipe import draft_recipe

    # its options may be in the recipe, or follow by --set
    named = [] if engine is None else [f"compute.engine.name={json.dumps(engine)}"]
    return draft_recipe(recipe, [*named, *(assignments or ())])


def workers_table(engine: str | None, assignments: Sequence[str] | None) -> dict[str, Any] | None:
    """Returns the table of the engine that predicts; None: this process does.

    Raises:
        DataError: there are options without an engine, or one of them names it.
    """
    if engine is None:
        if assignments:
            raise DataError(f"--set {assignments[0]} is an option of an engine: name it with --engine")
        return None
    from tlkit.recipe.reader import read_options

    table = read_options(assignments or ())
    if "name" in table:
        raise DataError("--set name=…: --engine has the engine's name: leave this out")
    return {"name": engine, **table}


def check_target(target: Path) -> None:
    """Raises an error if images, a recipe or a run cannot be found there; torch is not imported."""
    from tlkit.analysis.targets import recipe_for

    if recipe_for(target).path is None:
        check_holds_images(target)


def check_holds_images(path: Path) -> None:
    """Raises DataError if a path does not exist, or is a folder without images; torch is not imported."""
    from tlkit.data.image_paths import why_no_images

    if problem := why_no_images(str(path)):
        raise DataError(f"{problem}: name a folder per class, or a .csv file with the columns path and label")
