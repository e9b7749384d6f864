"""What a question about labelled images may be asked of; of a path, it does not load torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.data.labelled import describe_source
from tlkit.errors import DataError
from tlkit.recipe.recipe import Recipe, make_recipe, read_recipe
from tlkit.recipe.schema import DataSpec

if TYPE_CHECKING:
    from tlkit.analysis.images import TrainingImages
    from tlkit.experiment.observer import Observer


def recipe_for(
    target: Recipe | TrainingImages,
    labels: str | Iterable[object] | None = None,
    observer: Observer | None = None,
) -> Recipe:
    """Returns the recipe that a question's target stands for.

    Args:
        target: a recipe, its file, a run folder or another folder that holds ``recipe.toml``; or labelled
            images as for `tlkit.fit`.
        labels: of a list of images; None of all else.
        observer: is shown how images that are not files are written.

    Raises:
        RecipeError: the recipe has mistakes.
        DataError: the target does not exist, or is nothing that has labels.
    """
    if isinstance(target, Recipe):
        if labels is not None:
            raise DataError("a recipe names where its labels are: leave labels out")
        return target
    if labels is not None or not isinstance(target, str | Path):
        from tlkit.analysis.images import image_data
        from tlkit.experiment.observer import Observer

        listed = image_data(target, labels, observer or Observer())
        return make_recipe({"name": listed.name, "data": listed.table(), "phase": []})
    path = Path(target)
    if path.suffix == ".toml" or (path / "recipe.toml").is_file():
        return read_recipe(path)
    if not path.exists():
        raise DataError(
            f"{path} does not exist: name a folder per class, a CSV file, a recipe or a run folder"
        )
    source, root = describe_source(path)
    data = DataSpec(source=source, root=root).model_dump(exclude_unset=True)
    return make_recipe({"name": "images", "data": {**data, "source": source.table()}, "phase": []})
