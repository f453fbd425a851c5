"""Artifacts: put once, fetched anywhere, and every byte of them verified."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ratchet.adapters import ArtifactStore, verify
from ratchet.adapters.artifacts import Layout, Place, digest
from ratchet.config import Config
from ratchet.durable import UNFINISHED
from ratchet.errors import AdapterError, ConfigError
from tests.support.small_adapters import BASE, RANK, written

FILES = {"one.bin": b"1" * 1000, "two.bin": b"22"}
INDEX = json.dumps({"step": 3, "files": {name: digest(content) for name, content in FILES.items()}}).encode()
DIGEST = digest(INDEX)
FETCH = """
import sys
from pathlib import Path
from ratchet.adapters import ArtifactStore
from tests.unit.adapters.test_artifacts import DIGEST, LAYOUTS
for number in range(int(sys.argv[4])):
    ArtifactStore(Path(sys.argv[1]), Path(sys.argv[2])).fetch(DIGEST, LAYOUTS[sys.argv[3]])
"""
PUT = """
import sys
from pathlib import Path
from ratchet.adapters import ArtifactStore
from tests.unit.adapters.test_artifacts import FILES, INDEX, LAYOUTS
ArtifactStore(Path(sys.argv[1]), Path(sys.argv[2])).put(LAYOUTS[sys.argv[3]], INDEX, FILES)
"""


def inside(wanted: str) -> Place:
    """As checkpoints lie: the index in the folder."""
    return Place(Path("kind", wanted), Path("kind", wanted, "state.json"))


def beside(wanted: str) -> Place:
    """As adapters lie: the index beside the folder."""
    return Place(Path("kind", wanted[:12]), Path("kind", f"{wanted[:12]}.json"))


LAYOUTS: dict[str, Layout] = {"inside": inside, "beside": beside}


@pytest.fixture(params=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> Layout:
    return LAYOUTS[request.param]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.fixture
def here(tmp_path: Path, shared: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "here", shared)


@pytest.fixture
def there(tmp_path: Path, shared: Path) -> ArtifactStore:
    """Another machine: another data directory, the same shared folder."""
    return ArtifactStore(tmp_path / "there", shared)


def all_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def in_a_process(program: str, store: Path, shared: Path, layout: Layout, *more: str, failpoint: str = "") -> int:
    name = next(name for name, found in LAYOUTS.items() if found is layout)
    argv = [sys.executable, "-c", program, str(store), str(shared), name, *more]
    return subprocess.run(argv, env={**os.environ, "RATCHET_FAILPOINT": failpoint}, check=False).returncode


def test_what_was_put_is_fetched_from_the_same_data_directory(tmp_path: Path, layout: Layout) -> None:
    store = ArtifactStore(tmp_path)
    found, folder = store.put(layout, INDEX, FILES)
    assert found == DIGEST
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    artifact = store.fetch(DIGEST, layout)
    assert (artifact.folder, artifact.index, artifact.files) == (folder, INDEX, FILES)
    assert folder == tmp_path / layout(DIGEST).folder


def test_what_was_put_is_in_the_shared_folder_under_its_digest(here: ArtifactStore, shared: Path, layout: Layout) -> None:
    here.put(layout, INDEX, FILES)
    assert all_files(shared) == {f"{DIGEST}/index.json", *(f"{DIGEST}/{name}" for name in FILES)}


def test_another_data_directory_fetches_it_from_the_shared_folder(
    here: ArtifactStore, there: ArtifactStore, shared: Path, layout: Layout
) -> None:
    here.put(layout, INDEX, FILES)
    artifact = there.fetch(DIGEST, layout)
    assert artifact.folder == there.data / layout(DIGEST).folder
    assert all_files(there.data) == all_files(here.data)
    shutil.rmtree(shared)
    assert there.fetch(DIGEST, layout).files == FILES


def test_what_is_nowhere_is_an_error_of_one_line(tmp_path: Path, there: ArtifactStore, layout: Layout) -> None:
    for store in (there, ArtifactStore(tmp_path)):
        with pytest.raises(AdapterError, match="cannot be read") as caught:
            store.fetch(DIGEST, layout)
        assert "\n" not in str(caught.value)


def flipped(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def halved(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("damage", [flipped, halved, Path.unlink])
@pytest.mark.parametrize("name", ["index.json", *FILES])
def test_a_damaged_copy_in_the_shared_folder_is_refused_and_nothing_is_left(
    here: ArtifactStore, there: ArtifactStore, shared: Path, layout: Layout, damage: Callable[[Path], None], name: str
) -> None:
    here.put(layout, INDEX, FILES)
    damage(shared / DIGEST / name)
    with pytest.raises(AdapterError):
        there.fetch(DIGEST, layout)
    assert not there.data.exists()


def test_a_file_too_many_is_refused(here: ArtifactStore, there: ArtifactStore, shared: Path, layout: Layout) -> None:
    here.put(layout, INDEX, FILES)
    (shared / DIGEST / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(AdapterError, match="not exactly"):
        there.fetch(DIGEST, layout)
    assert not there.data.exists()


@pytest.mark.parametrize("damage", [flipped, halved, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_copy_damaged_here_is_replaced_from_the_shared_folder(
    here: ArtifactStore, layout: Layout, damage: Callable[[Path], None], name: str
) -> None:
    _, folder = here.put(layout, INDEX, FILES)
    damage(folder / name)
    assert here.fetch(DIGEST, layout).files == FILES
    assert ArtifactStore(here.data).fetch(DIGEST, layout).files == FILES


def test_a_copy_damaged_here_is_refused_where_nothing_is_shared_and_replaced_when_put_again(tmp_path: Path, layout: Layout) -> None:
    store = ArtifactStore(tmp_path)
    _, folder = store.put(layout, INDEX, FILES)
    flipped(folder / "one.bin")
    with pytest.raises(AdapterError, match=r"one\.bin has another sha256"):
        store.fetch(DIGEST, layout)
    store.put(layout, INDEX, FILES)
    assert store.fetch(DIGEST, layout).files == FILES


@pytest.mark.parametrize("wanted", ["../../etc", "", "A" * 64, "0" * 63, "0" * 64 + "\n", "/" * 64, ".." + "0" * 62])
def test_what_is_no_digest_never_becomes_a_path(here: ArtifactStore, layout: Layout, wanted: str) -> None:
    for call in (here.fetch, here.delete):
        with pytest.raises(AdapterError, match="64 hex digits"):
            call(wanted, layout)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "/etc/passwd"])
def test_an_index_cannot_name_a_file_elsewhere(tmp_path: Path, layout: Layout, name: str) -> None:
    index = json.dumps({"files": {name: "0" * 64}}).encode()
    place = layout(digest(index))
    (tmp_path / place.folder).mkdir(parents=True)
    (tmp_path / place.index).write_bytes(index)
    with pytest.raises(AdapterError, match="no plain name"):
        ArtifactStore(tmp_path).fetch(digest(index), layout)


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b'{"files": 1}', b'{"files": {"a": 1}}'])
def test_an_index_that_is_none_is_refused(tmp_path: Path, layout: Layout, index: bytes) -> None:
    place = layout(digest(index))
    (tmp_path / place.folder).mkdir(parents=True)
    (tmp_path / place.index).write_bytes(index)
    with pytest.raises(AdapterError, match="malformed"):
        ArtifactStore(tmp_path).fetch(digest(index), layout)


@pytest.mark.parametrize("hit", [1, 2, 3])
def test_a_put_that_is_killed_leaves_nothing_that_counts(here: ArtifactStore, shared: Path, layout: Layout, hit: int) -> None:
    renames = 2 if layout is inside else 3  # the folder here and the shared one; where it lies beside, the index too
    ended = in_a_process(PUT, here.data, shared, layout, failpoint=f"durable.before_rename:{hit}")
    assert ended == (-signal.SIGKILL if hit <= renames else 0)
    if hit < renames:
        with pytest.raises(AdapterError):
            ArtifactStore(shared).fetch(DIGEST, lambda found: Place(Path(found), Path(found, "index.json")))
    here.put(layout, INDEX, FILES)
    assert here.fetch(DIGEST, layout).files == FILES


def test_a_fetch_that_is_killed_between_copy_and_rename_leaves_nothing_that_counts(
    here: ArtifactStore, there: ArtifactStore, shared: Path, layout: Layout
) -> None:
    here.put(layout, INDEX, FILES)
    last = 1 if layout is inside else 2
    assert in_a_process(FETCH, there.data, shared, layout, "1", failpoint=f"durable.before_rename:{last}") == -signal.SIGKILL
    with pytest.raises(AdapterError):
        ArtifactStore(there.data).fetch(DIGEST, layout)
    assert any(path.name.startswith(UNFINISHED) for path in there.data.rglob("*")), "it was killed before it began to copy"
    assert there.fetch(DIGEST, layout).files == FILES
    assert ArtifactStore(there.data).fetch(DIGEST, layout).files == FILES


def test_many_may_put_and_fetch_the_same_at_once(here: ArtifactStore, there: ArtifactStore, shared: Path, layout: Layout) -> None:
    here.put(layout, INDEX, FILES)
    with ThreadPoolExecutor(6) as pool:
        ends = [pool.submit(in_a_process, FETCH, there.data, shared, layout, "20") for _ in range(2)]
        puts = [pool.submit(store.put, layout, INDEX, FILES) for store in (here, there) for _ in range(20)]
        gets = [pool.submit(there.fetch, DIGEST, layout) for _ in range(20)]
    assert [end.result() for end in ends] == [0, 0]
    assert {put.result()[0] for put in puts} == {DIGEST}
    assert all(got.result().files == FILES for got in gets)
    assert all_files(there.data) == all_files(here.data), "something unfinished remains"


def test_a_deleted_artifact_is_deleted_everywhere(here: ArtifactStore, there: ArtifactStore, layout: Layout) -> None:
    here.put(layout, INDEX, FILES)
    here.delete(DIGEST, layout)
    here.delete(DIGEST, layout)
    assert all_files(here.data) == set()
    with pytest.raises(AdapterError):
        there.fetch(DIGEST, layout)


def test_a_shared_folder_that_is_not_mounted_is_an_error_and_is_not_made(here: ArtifactStore, shared: Path, layout: Layout) -> None:
    shared.rmdir()
    with pytest.raises(AdapterError, match=r"artifacts\.url: .* is no folder"):
        here.put(layout, INDEX, FILES)
    with pytest.raises(ConfigError, match=r"artifacts\.url: .* cannot be written"):
        here.check()
    assert not shared.exists()
    assert here.fetch(DIGEST, layout).files == FILES, "what is here needs no shared folder"


def test_a_check_leaves_the_shared_folder_as_it_was(here: ArtifactStore, shared: Path, tmp_path: Path) -> None:
    here.check()
    ArtifactStore(tmp_path).check()
    assert list(shared.iterdir()) == []


def test_a_shared_folder_that_leads_out_by_a_symlink_is_not_followed(here: ArtifactStore, there: ArtifactStore, shared: Path) -> None:
    here.put(inside, INDEX, FILES)
    (shared / DIGEST).rename(shared.parent / "elsewhere")
    (shared / DIGEST).symlink_to(shared.parent / "elsewhere")
    with pytest.raises(AdapterError, match="not a plain folder"):
        there.fetch(DIGEST, inside)


def test_an_adapter_is_verified_where_it_was_never_written(tmp_path: Path, shared: Path) -> None:
    config = Config.model_validate({"artifacts": {"url": f"file://{shared}"}})
    _, record = written(tmp_path / "here", shared=shared)
    manifest = verify(ArtifactStore.of(config, tmp_path / "there"), record, rank=RANK, base=BASE)
    assert manifest.version == record.version
    assert (tmp_path / "there" / record.path).is_dir()
    assert all_files(tmp_path / "there") == all_files(tmp_path / "here")
