"""How a process uses memory."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from tlkit.runtime.process import without_garbage_collection

#: Prints how many pages each of 10 large blocks costs in a thread that is not the first.
ALLOCATING = """
import resource, threading
from tlkit.runtime.process import keep_freed_memory
keep_freed_memory()
def allocate():
    for _ in range(11):
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        bytearray(b"x") * 100_000_000
faults = []
thread = threading.Thread(target=allocate)
thread.start()
thread.join()
print((faults[-1] - faults[1]) // 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's thresholds")
def test_freed_memory_is_kept_for_the_next_block_in_any_thread() -> None:
    done = subprocess.run([sys.executable, "-c", ALLOCATING], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100, "100 MB are 24,000 pages"


def test_garbage_is_collected_again_after_an_error() -> None:
    with pytest.raises(KeyError), without_garbage_collection():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
