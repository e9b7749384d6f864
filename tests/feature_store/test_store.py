"""The feature store: found by content, written whole or not at all, limited in size."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import KEY, hashes, write

from tlkit.errors import StoreError
from tlkit.feature_store import store as store_module
from tlkit.feature_store.store import FeatureStore, Rows, cache_limit


def test_features_come_back_by_image_in_any_order() -> None:
    store, images = FeatureStore(), hashes(10)
    features = torch.randn(10, 2, 3)
    write(store, images[:6], features[:6])
    write(store, images[6:], features[6:])
    column = FeatureStore().column(KEY)
    order = [7, 0, 5, 9, 6]
    rows = column.rows([images[index] for index in order])
    assert torch.equal(rows.take(np.arange(5)), features[order])
    twice = Rows.joined([rows, FeatureStore().column(KEY).rows(images[:3])])
    assert torch.equal(twice.take(np.array([4, 6, 0])), features[[6, 1, 7]])
    assert column.missing([*images, *hashes(2, 50)]) == hashes(2, 50)
    with pytest.raises(StoreError, match="2 images have no cached features"):
        column.rows([*images, *hashes(2, 50)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_both_precisions(dtype: torch.dtype) -> None:
    store, images = FeatureStore(), hashes(4)
    features = torch.randn(4, 1, 5).to(dtype)
    write(store, images, features)
    stored = store.column(KEY).rows(images).take(np.arange(4))
    assert stored.dtype == dtype
    assert torch.equal(stored, features)


def test_a_shard_cut_short_is_ignored() -> None:
    store, images = FeatureStore(), hashes(6)
    write(store, images[:3], torch.zeros(3, 1, 4))
    write(store, images[3:], torch.ones(3, 1, 4))
    shard = sorted(store.column(KEY).folder.glob("*.safetensors"))[0]
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 8)
    missing = store.column(KEY).missing(images)
    assert missing in (images[:3], images[3:])


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_shard_that_must_not_be_read_is_an_error() -> None:
    """Computing all of it again, and no word about it, would be worse."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        store = FeatureStore(Path(folder) / "store")
        write(store, hashes(3), torch.zeros(3, 1, 4))
        (shard,) = store.column(KEY).folder.glob("*.safetensors")
        shard.chmod(0)
        user = os.geteuid()
        if user == 0:  # who may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(StoreError, match=rf"{shard.name} must not be read .*chmod -R g\+rX"):
                FeatureStore(Path(folder) / "store").column(KEY)
        finally:
            os.seteuid(user)
        store.close()


def test_a_shard_of_another_column_is_ignored() -> None:
    store, images = FeatureStore(), hashes(3)
    write(store, images, torch.zeros(3, 1, 4))
    other = "cd" + "0" * 38
    folder = store.folder / "cd" / other
    folder.mkdir(parents=True)
    for shard in store.column(KEY).folder.glob("*.safetensors"):
        shard.rename(folder / shard.name)
    assert store.column(other).missing(images) == images


def test_unfinished_files_are_not_read() -> None:
    store, images = FeatureStore(), hashes(3)
    write(store, images, torch.zeros(3, 1, 4))
    for shard in store.column(KEY).folder.glob("*.safetensors"):
        shard.rename(shard.with_suffix(".unfinished"))
    assert store.column(KEY).missing(images) == images


def test_two_writers_may_write_at_once() -> None:
    store, images = FeatureStore(), hashes(4)
    first, second = store.writer(KEY), FeatureStore().writer(KEY)
    first.add(images[:2], torch.zeros(2, 1, 4))
    second.add(images[1:], torch.zeros(3, 1, 4))
    second.flush()
    first.flush()
    assert store.column(KEY).missing(images) == []


def test_the_longest_unused_column_is_removed_first_but_none_in_use() -> None:
    store = FeatureStore()
    keys = [f"{number:02x}" + "0" * 38 for number in range(3)]
    for age, key in enumerate(keys):
        write(store, hashes(8), torch.zeros(8, 1, 100), key)
        folder = store.column(key).folder
        os.utime(folder, (1000 + age, 1000 + age))
    size = store.columns()[0].size
    assert [info.key for info in store.columns()] == keys
    store.close()
    user = FeatureStore()
    user.column(keys[0])
    os.utime(store.folder / keys[0][:2] / keys[0], (1000, 1000))
    assert store.prune(2 * size) == size
    assert {info.key for info in store.columns()} == {keys[0], keys[2]}
    user.close()
    assert store.prune(0) == 2 * size


def test_a_column_that_is_removed_by_hand_while_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    store, features = FeatureStore(), torch.randn(4, 1, 2)
    write(store, hashes(4), features)
    open_shard = store_module.open_shard

    def open_and_remove(path: Path, key: str) -> object:
        shard = open_shard(path, key)
        shutil.rmtree(path.parent)
        return shard

    monkeypatch.setattr(store_module, "open_shard", open_and_remove)
    column = store.column(KEY)
    assert not column.folder.exists()
    assert torch.equal(column.rows(hashes(4)).take(np.arange(4)), features)


def test_a_folder_removed_while_columns_are_listed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore()
    keys = [f"{number:02x}" + "0" * 38 for number in range(2)]
    for key in keys:
        write(store, hashes(4), torch.zeros(4, 1, 2), key)
    folders = list(store._folders())
    monkeypatch.setattr(store, "_folders", lambda: folders)
    shutil.rmtree(folders[0])
    assert [info.key for info in store.columns()] == keys[1:]


def test_shards_are_closed_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SHARD_BYTES", 1000)
    store, images = FeatureStore(), hashes(10)
    writer = store.writer(KEY)
    for image in images:
        writer.add([image], torch.zeros(1, 1, 100))
    writer.flush()
    assert len(list(store.column(KEY).folder.iterdir())) == 4
    assert store.column(KEY).missing(images) == []


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FeatureStore(tmp_path / "file")
    with pytest.raises(StoreError, match="TLKIT_CACHE"):
        write(store, hashes(1), torch.zeros(1, 1, 4))


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("500mb", 5 * 10**8), ("12", 12), ("1.5k", 1500)]
)
def test_cache_limits(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_CACHE_LIMIT", text)
    assert cache_limit() == size


@pytest.mark.parametrize("text", ["much", "-5GB", "GB"])
def test_limits_that_are_not_sizes(text: str) -> None:
    with pytest.raises(StoreError, match="is not a size"):
        cache_limit(text)
