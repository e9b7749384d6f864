"""A run's splits.csv as the splits of another run."""

from __future__ import annotations

from small_runs import RECIPE


def test_the_splits_of_a_run_are_those_of_another_run(run):
    first = run(phases=["bottleneck"])
    text = RECIPE.replace(
        "per_class = {{ train = 8, val = 3, test = 4 }}",
        f'splits = "{first.folder / "splits.csv"}"\non_unreadable = "skip"',
    ).replace("seed = 3", "seed = 4")
    second = run(text=text, phases=["bottleneck"])
    texts = [(one.folder / "splits.csv").read_text() for one in (first, second)]
    assert texts[0] == texts[1]
    # interrupted after its first phase, it goes on
    resumed = run(text=text, out=second.folder)
    assert [phase.name for phase in resumed.results.phases] == ["bottleneck", "fine-tune"]
    # a run says of all its images what it has cached
    assert resumed.features is not None
    assert len(resumed.features.images) == len(resumed.features.pooled) == 30
