"""The frozen pass alone, in parts: the bits of one process, and nothing is left for the run to compute."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import command
from processes import Started
from processes import tlkit as run_tlkit
from small_runs import RECIPE, write_recipe
from stores import stored

import tlkit
from tlkit.experiment.log import FeaturesComputed, read_events

#: What the third phase reads depends on what the second one trains.
THIRD = """
[[phase]]
name = "third"
start_from = "fine-tune"
"""


def test_parts_in_processes_at_once_have_the_bits_of_one(
    few_photos: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", few_photos, "residual")
    parts = [Started(run_tlkit, "features", recipe, "--shard", f"{part}/2") for part in (1, 2)]
    texts = [part.wait() for part in parts]
    assert [text.returncode for text in texts] == [0, 0], texts
    assert texts[1].stdout.startswith("image views in part 2/2: ")

    assert tlkit.compute_features(recipe).computed == 0
    run = tlkit.run(recipe, out=tmp_path / "out")
    assert [phase.features.computed for phase in run.results.phases] == [0, 0]
    events = read_events(run.folder / "log.jsonl")
    assert not [event for event in events if isinstance(event, FeaturesComputed)]

    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "one"))
    alone = tlkit.compute_features(recipe)
    # two phases' features of 22 images and of the 8 that are tested, in one pass
    assert (alone.views, alone.computed) == (30, 30)
    assert stored(cache) == stored(tmp_path / "one")
    assert alone.later == ()


def test_what_depends_on_training_is_left_to_the_run(few_photos: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", few_photos, "residual", RECIPE + THIRD)
    ended = command("features", recipe, "--shard", "1/1")
    assert ended.returncode == 0
    assert "not computed: what third reads depends on what is trained before" in " ".join(
        ended.stdout.split()
    )


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "1/0", "a/b", "1/4/2", ""])
def test_a_part_that_is_none_is_refused(shard: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "photos", "residual")
    ended = command("features", recipe, "--shard", shard)
    assert ended.returncode == 2
    assert f"{shard!r} is not a part of the images: name one such as 1/8" in ended.stderr
