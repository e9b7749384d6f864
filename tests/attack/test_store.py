"""The feature store, damaged and shared: what it gives is what was computed, and nothing is lost."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import command
from processes import Started, execute
from torch import Tensor

from tlkit.feature_store.shards import write_shard
from tlkit.feature_store.store import Column, FeatureStore
from tlkit.utils.directories import download_folder, generated_folder

KEY = "ab" + "0" * 38
NAMES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(64)]
FEATURES = torch.randn(64, 1, 50, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def store() -> FeatureStore:
    """A store with a column of two shards."""
    store = FeatureStore()
    for half in (slice(0, 32), slice(32, 64)):
        writer = store.writer(KEY)
        writer.add(NAMES[half], FEATURES[half])
        writer.flush()
    return store


def shards(store: FeatureStore) -> list[Path]:
    return sorted((store.folder / KEY[:2] / KEY).glob("*.safetensors"))


def opened() -> Column:
    """Opens the column as another process would."""
    return FeatureStore().column(KEY)


def assert_right_or_missing(column: Column) -> list[str]:
    """Checks that every feature that the column has is the one that was written; returns what it lacks."""
    missing = column.missing(NAMES)
    present = [index for index, name in enumerate(NAMES) if name not in missing]
    if present:
        features: Tensor = column.rows([NAMES[index] for index in present]).take(np.arange(len(present)))
        assert torch.equal(features, FEATURES[present])
    return missing


def flip_a_bit(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("images", "features"),
    [
        (torch.zeros(4, 31, dtype=torch.uint8), torch.ones(4, 1, 50)),
        (torch.zeros(4, 32, dtype=torch.uint8), torch.ones(3, 1, 50)),
        (torch.zeros(4, 32, dtype=torch.uint8), torch.ones(4, 1, 49)),
        (torch.zeros(4, 32, dtype=torch.uint8), torch.ones(4, 1, 50).bfloat16()),
        (torch.zeros(4, dtype=torch.uint8), torch.ones(4, 1, 50)),
    ],
)
def test_shards_of_other_shapes_are_not_used(store: FeatureStore, images: Tensor, features: Tensor) -> None:
    """Their checksums are right: whoever may write to a shared store can make one."""
    write_shard(store.folder / KEY[:2] / KEY, KEY, images.numpy(), features)
    assert len(shards(store)) == 3
    # where it is the first one, the others do not fit, and their features are computed again
    assert len(assert_right_or_missing(opened())) in (0, 64)


def test_flipped_bits_are_never_used(store: FeatureStore, tmp_path: Path) -> None:
    """Of 150, 149 were once trained on. A few are in names that nothing depends on."""
    whole, noticed = shutil.copytree(store.folder, tmp_path / "whole"), 0
    for number in range(150):
        shutil.copytree(whole, store.folder, dirs_exist_ok=True)
        chance = random.Random(number)
        flip_a_bit(chance.choice(shards(store)), chance)
        missing = assert_right_or_missing(opened())
        assert len(missing) in (0, 32)
        noticed += len(missing) == 32
    assert noticed > 140


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(len(path.read_bytes()) - 4096)),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to("/dev/urandom")),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: path.unlink(),
    ],
    ids=["empty", "cut", "half", "longer", "zeroed pages", "pipe", "device", "folder", "removed"],
)
def test_a_damaged_shard_is_made_again(damage: Callable[[Path], object], store: FeatureStore) -> None:
    damage(shards(store)[0])
    column = opened()
    missing = assert_right_or_missing(column)
    assert len(missing) == 32
    writer = store.writer(KEY)
    writer.add(missing, FEATURES[[NAMES.index(name) for name in missing]])
    writer.flush()
    assert assert_right_or_missing(opened()) == []


def test_a_shard_in_another_column_is_not_read(store: FeatureStore) -> None:
    other = "cd" + "1" * 38
    shutil.copytree(store.folder / KEY[:2] / KEY, store.folder / other[:2] / other)
    assert FeatureStore().column(other).missing(NAMES) == NAMES


def test_what_is_not_the_stores_does_not_disturb_it(store: FeatureStore) -> None:
    for path in (".DS_Store", "ab/.DS_Store", f"ab/{KEY}/.DS_Store", "zz.txt"):
        (store.folder / path).write_text("mine")
    (store.folder / "my photos").mkdir()
    assert [info.key for info in store.columns()] == [KEY]
    listed = command("cache", "list")
    assert listed.returncode == 0, listed.stderr
    store.close()
    assert command("cache", "clear").returncode == 0
    assert (store.folder / "my photos").is_dir()


def test_clear_removes_nothing_that_tlkit_did_not_make(cache: Path) -> None:
    """TLKIT_CACHE may be a folder that has other things."""
    for name in ("downloads", "made", "features"):
        (cache / name).mkdir(parents=True)
        (cache / name / "thesis.txt").write_text("years of work")
    (cache / "features" / "ab").mkdir()
    (cache / "features" / "ab" / ("0" * 40)).mkdir()
    cleared = command("cache", "clear")
    assert cleared.returncode == 0
    assert f"left {cache / 'downloads'}: not made by tlkit" in cleared.stdout
    assert len(list(cache.rglob("thesis.txt"))) == 3
    assert (cache / "features" / "ab" / ("0" * 40)).is_dir()


def test_clear_removes_what_tlkit_made(store: FeatureStore) -> None:
    (download_folder() / "photos.zip.part").write_bytes(b"1")
    (generated_folder() / "a.jpg").write_bytes(b"2")
    store.close()
    assert command("cache", "clear").returncode == 0
    assert not (download_folder() / "photos.zip.part").exists()
    assert not (generated_folder() / "a.jpg").exists()
    assert store.columns() == []


def test_columns_in_use_are_left_by_other_processes(store: FeatureStore) -> None:
    """Pruning beside a run once ended it in 8 of 8 tries."""
    cleared = command("cache", "clear")
    assert cleared.returncode == 0
    assert "used by a run" in cleared.stdout
    assert assert_right_or_missing(opened()) == []
    store.close()


def test_the_lease_of_a_killed_process_ends(store: FeatureStore) -> None:
    store.close()
    program = (
        f"from tlkit.feature_store.store import FeatureStore; store = FeatureStore(); store.column({KEY!r}); "
        "import time; print('leased', flush=True); time.sleep(60)"
    )
    started = Started(execute, program)
    deadline = time.monotonic() + 300
    while started.stdout.read_text() != "leased\n" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert started.stdout.read_text() == "leased\n"
    assert FeatureStore().prune(0) == 0
    started.process.kill()
    started.wait()
    assert FeatureStore().prune(0) > 0


def test_a_column_is_computed_by_one_process_at_a_time(tmp_path: Path) -> None:
    """Six processes on one empty store once computed everything five times over."""
    program = f"""
import hashlib, sys, time, torch
from pathlib import Path
from tlkit.feature_store.store import FeatureStore, Writer
names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(8)]
store = FeatureStore()
waited = []
with store.computing([{KEY!r}], lambda: waited.append(1)):
    column = store.column({KEY!r})
    missing = column.missing(names)
    if missing:
        time.sleep(0.5)
        writer = store.writer({KEY!r})
        writer.add(missing, torch.zeros(len(missing), 1, 3))
        writer.flush()
print(len(missing), len(waited))
"""
    processes = [Started(execute, program) for _ in range(3)]
    computed = [int(process.wait().stdout.split()[0]) for process in processes]
    assert sorted(computed) == [0, 0, 8]


def test_a_store_that_may_only_be_read(store: FeatureStore) -> None:
    """A shared cache, or one on a read-only disk: what it has is used."""
    store.close()
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    for path in (store.folder.parent, *store.folder.parent.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in store.folder.parent.parents:
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    program = (
        "import os; from tlkit.feature_store.store import FeatureStore; os.setuid(65534); "
        f"column = FeatureStore().column({KEY!r}); print(len(column.missing({NAMES!r})))"
    )
    completed = Started(execute, program).wait()
    assert completed.stdout.strip() == "0", completed.stderr


@pytest.mark.parametrize("limit", ["inf", "nan", "-1", "many", "1e400"])
def test_limits_that_are_none(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_CACHE_LIMIT", limit)
    pruned = command("cache", "prune")
    assert pruned.returncode == 2
    assert "is not a size" in pruned.stderr


@pytest.mark.slow
def test_a_million_small_features_open_within_two_seconds(cache: Path) -> None:
    store, count = FeatureStore(), 1_000_000
    ids = np.random.default_rng(1).integers(0, 256, (count, 32), dtype=np.uint8)
    names = [row.tobytes().hex() for row in ids]
    writer = store.writer(KEY)
    for start in range(0, count, 100_000):
        writer.add(names[start : start + 100_000], torch.zeros(100_000, 1, 128, dtype=torch.bfloat16))
    writer.flush()
    began = time.perf_counter()
    column = opened()
    assert time.perf_counter() - began < 2
    assert column.missing(names[:1000]) == []
