"""What a question about labelled images may be asked of; it does not load torch."""

from __future__ import annotations

from pathlib import Path

from tlkit.data.labelled import describe_source
from tlkit.errors import DataError
from tlkit.recipe.recipe import Recipe, make_recipe, read_recipe
from tlkit.recipe.schema import DataSpec


def recipe_for(target: Path | str) -> Recipe:
    """Returns the recipe that a question's target stands for.

    Args:
        target: a recipe, a run folder or another folder that holds ``recipe.toml``, a folder per class, or a
            CSV file with columns `path` and `label`.

    Raises:
        RecipeError: the recipe has mistakes.
        DataError: the target does not exist.
    """
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
