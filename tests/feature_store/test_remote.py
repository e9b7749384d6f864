"""A feature store in an object store: several machines share it, and each has copies on its own disk.

The object store is moto's server on loopback, which speaks S3 as Amazon's does.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import write_recipe
from stores import KEY, hashes, stored, write

import tlkit
from tlkit.errors import StoreError
from tlkit.feature_store.remote import RemoteStore
from tlkit.feature_store.store import FeatureStore
from tlkit.plugins.loader import BUILTIN, load_registry

boto3 = pytest.importorskip("boto3")
server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    running = server.ThreadedMotoServer("127.0.0.1", 0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


class Machine:
    """A machine with a disk of its own: a cache folder of the user's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def take_over(self) -> None:
        """Makes this process run on the machine."""
        self._monkeypatch.setenv("XDG_CACHE_HOME", str(self.folder))


@pytest.fixture
def machines(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Machine, Machine]]:
    """Two machines that share an empty bucket; the first one is this process's."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = boto3.resource("s3").create_bucket(Bucket="photos")
    monkeypatch.setenv("TLKIT_CACHE", "s3://photos/tlkit")
    both = (Machine(tmp_path / "one", monkeypatch), Machine(tmp_path / "two", monkeypatch))
    both[0].take_over()
    yield both
    bucket.objects.delete()
    bucket.delete()


Machines = tuple[Machine, Machine]


class Killed(Exception):
    """Stands for the end of the process."""


def test_what_one_machine_writes_another_one_reads(machines: Machines) -> None:
    images, features = hashes(10), torch.randn(10, 2, 3)
    write(FeatureStore(), images[:6], features[:6])
    machines[1].take_over()
    assert FeatureStore().column(KEY).missing(images) == images[6:]
    write(FeatureStore(), images[6:], features[6:])
    for machine in machines:
        machine.take_over()
        assert torch.equal(FeatureStore().column(KEY).rows(images).take(np.arange(10)), features)


def test_what_a_killed_process_has_not_sent_is_kept_and_sent_later(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = hashes(4)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as once, FeatureStore() as store:
        once.setattr(RemoteStore, "send", killed)
        with pytest.raises(Killed):
            write(store, images, torch.ones(4, 1, 2))
    assert FeatureStore().prune(0) == 0
    damaged = FeatureStore().folder / KEY[:2] / KEY / "unsent" / f"{'0' * 32}.safetensors"
    damaged.write_bytes(b"text")
    FeatureStore().column(KEY)
    machines[1].take_over()
    assert FeatureStore().column(KEY).missing(images) == []
    assert len(list(FeatureStore().folder.rglob("*.safetensors"))) == 1


def test_two_processes_may_send_a_shard(machines: Machines) -> None:
    images = hashes(4)
    with FeatureStore() as store:
        write(store, images, torch.ones(4, 1, 2))
        (shard,) = store.folder.glob(f"*/{KEY}/*.safetensors")
        assert store.remote is not None
        # this one saw the shard before the other one had sent and moved it
        store.remote.send(KEY, shard.parent / "unsent" / shard.name)
        assert store.column(KEY).missing(images) == []


def test_a_damaged_copy_is_replaced(machines: Machines) -> None:
    images = hashes(4)
    write(FeatureStore(), images, torch.ones(4, 1, 2))
    (shard,) = FeatureStore().folder.glob(f"*/{KEY}/*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-8])
    assert FeatureStore().column(KEY).missing(images) == []


def test_removing_copies_leaves_the_shared_store(machines: Machines) -> None:
    images = hashes(4)
    with FeatureStore() as store:
        write(store, images, torch.ones(4, 1, 2))
    assert FeatureStore().prune(0) > 0
    assert not list(FeatureStore().folder.rglob("*.safetensors"))
    assert FeatureStore().column(KEY).missing(images) == []


def test_what_is_not_a_shard_there_is_not_used(machines: Machines) -> None:
    images = hashes(4)
    write(FeatureStore(), images, torch.ones(4, 1, 2))
    (shard,) = FeatureStore().folder.glob(f"*/{KEY}/*.safetensors")
    bucket = boto3.resource("s3").Bucket("photos")
    column = f"tlkit/features/{KEY[:2]}/{KEY}"
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    bucket.put_object(Key=f"{column}/{shard.name}", Body=bytes(damaged))
    bucket.put_object(Key=f"{column}/notes.txt", Body=b"text")
    bucket.put_object(Key=f"{column}/{'0' * 32}.safetensors", Body=b"text")
    bucket.put_object(Key=f"{column}/{'1' * 32}.safetensors", Body=b"")
    machines[1].take_over()
    assert FeatureStore().column(KEY).missing(images) == images
    assert not (FeatureStore().folder / KEY[:2] / KEY / "notes.txt").exists()


def test_a_pass_that_one_machine_began_goes_on_on_another(
    machines: Machines, few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", few_photos, "residual")
    first = tlkit.compute_features(recipe, shard="1/2")
    shutil.rmtree(machines[0].folder)
    machines[1].take_over()
    second = tlkit.compute_features(recipe)
    assert 0 < first.computed < second.views and first.computed + second.computed == second.views
    machines[0].take_over()
    assert tlkit.compute_features(recipe).computed == 0
    copies = stored(FeatureStore().folder.parent)
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "alone"))
    tlkit.compute_features(recipe)
    assert copies == stored(tmp_path / "alone")


def test_an_engines_workers_write_to_it(machines: Machines, few_photos: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", few_photos)
    registry = load_registry((*BUILTIN, "engine_parts"))
    done = tlkit.compute_features(recipe, overrides={"compute.engine": "pickling"}, registry=registry)
    machines[1].take_over()
    assert 0 < done.computed and tlkit.compute_features(recipe).computed == 0


def test_a_store_that_cannot_be_used(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_CACHE", "s3://no-such-bucket/tlkit")
    with pytest.raises(
        StoreError, match=r"s3://no-such-bucket/tlkit \(TLKIT_CACHE\) cannot be used: .*bucket"
    ):
        write(FeatureStore(), hashes(4), torch.ones(4, 1, 2))
    # what was computed is kept
    assert list(FeatureStore().folder.rglob("unsent/*.safetensors"))
    for address in ("s4://photos/tlkit", "file:///tmp", "s3://", "S3:///", "s3:/photos/tlkit", "s3:photos"):
        monkeypatch.setenv("TLKIT_CACHE", address)
        with pytest.raises(
            StoreError, match=r"is not an object store: name a folder, or a store as s3://bucket"
        ):
            FeatureStore()
    # fsspec remembers what it has imported
    monkeypatch.delitem(import_module("fsspec.registry")._registry, "s3")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setenv("TLKIT_CACHE", "s3://photos/tlkit")
    with pytest.raises(StoreError, match=r"pip install 'tlkit\[s3\]'"):
        FeatureStore()
