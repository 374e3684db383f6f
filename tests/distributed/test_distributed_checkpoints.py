"""Distributed checkpoints: exact for any number of workers, complete after a kill, and with the same error on all workers."""

import os
import pickle
import shutil
import signal
import warnings
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed.launching import outcomes, run
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor

import funcnet as fn
from funcnet import tree
from funcnet.distributed import Checkpoints, WorkerError, load, load_metadata, save
from funcnet.distributed.checkpointing import checkpoints, folders, torch_checkpoints
from funcnet.distributed.pieces import Pieces, mark
from funcnet.distributed.together import DamagedError
from funcnet.saving.tensors import Damaged

Point = namedtuple("Point", ["x", "y"])


def whole() -> Any:
    """Return a tree with every kind of leaf and node, and a tensor at two paths."""
    weight = fn.random.normal(1, (7, 3), dtype=torch.float64)
    return (
        {"weight": weight, "bias": torch.tensor([-0.0, torch.nan, torch.inf]), "frozen": None},
        OrderedDict(m={"w": fn.random.normal(2, (7, 3)).to(torch.bfloat16), "none": torch.zeros(0, 3)}, step=torch.tensor(5)),
        Point(torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last), [1, "word", 2.5, True, 1j, float("inf")]),
        {"tied": weight, "a.b": torch.tensor([True, False])},
        {"a": {"b": torch.arange(3)}},
        (),
        {},
    )


def names(folder: Any) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def zeros(one: Any) -> Any:
    return tree.map(lambda leaf: torch.zeros_like(leaf) if isinstance(leaf, torch.Tensor) else leaf, one)


def cut(one: Any, rank: int, size: int, *, offset: int = 0) -> Any:
    """Return the tree with a DTensor and a ``Pieces`` of this worker's rows; rank 0 has no rows of the latter, if possible."""
    mesh = init_device_mesh("cpu", (size,))
    weight = distribute_tensor(one[0]["weight"], mesh, [Shard(offset)])
    moment = one[1]["m"]["w"]
    first, end = (0, 7) if size == 1 else [7 * (rank - 1 + i) // (size - 1) for i in (0, 1)] if rank else (0, 0)
    rows = moment[first:end].clone() if end > first else None
    state = Pieces({"w": rows, "none": one[1]["m"]["none"]}, {"w": mark(first, (7, 3)), "none": None})
    return ({**one[0], "weight": weight}, OrderedDict(one[1], m=state), *one[2:])


def bits(one: Any) -> list[Any]:
    """Return every leaf as a string, with the bytes, shapes and strides of tensors."""
    leaves = [leaf.full_tensor() if isinstance(leaf, DTensor) else leaf for leaf in tree.leaves(one)]
    return [
        (pickle.dumps(leaf.contiguous().view(torch.uint8).tolist()), leaf.dtype, leaf.stride()) if leaf.dim() else leaf.item()
        for leaf in leaves
        if isinstance(leaf, torch.Tensor)
    ]


def equal(one: Any, two: Any) -> bool:
    return bits(one) == bits(two) and tree.structure(one) == tree.structure(two)


def written(folder: str) -> None:
    """Save a whole tree and a divided one."""
    one = whole()
    save(f"{folder}/whole-{dist.get_world_size()}", one, {"workers": dist.get_world_size()})
    save(f"{folder}/cut-{dist.get_world_size()}", cut(one, dist.get_rank(), dist.get_world_size()))


def loaded(folder: str) -> list[bool]:
    """Load everything, whole and divided in two ways, with and without ``like``."""
    one, rank, size = whole(), dist.get_rank(), dist.get_world_size()
    found = []
    for name in names(folder):
        path = f"{folder}/{name}"
        got = load(path)
        found.append(bits(got) == bits(one) and got[2]._fields == ("x", "y") and got[2].y == one[2].y)
        got = load(path, zeros(one))
        found.append(equal(got, one) and type(got[2]) is Point and got[0]["frozen"] is None)
        found.append(got[3]["tied"] is got[0]["weight"] if name.startswith("whole") else True)
        for offset in (0, 1):
            like = cut(zeros(one), rank, size, offset=offset)
            got, expected = load(path, like), cut(one, rank, size, offset=offset)
            found.append(isinstance(got[0]["weight"], DTensor) and got[0]["weight"].placements == (Shard(offset),))
            found.append(bits(got) == bits(expected) and type(got[1]["m"]) is Pieces)
    return found


def test_any_number_of_workers_loads_what_any_number_has_saved(tmp_path: Path) -> None:
    """One process, 2 and 4 workers save, whole or divided along two axes; 1, 2 and 4 workers load, with and without ``like``."""
    for size in (2, 4):
        run(size, written, str(tmp_path))
    save(tmp_path / "whole-0", whole(), {"workers": 0})
    for size in (1, 2, 4):
        for found in run(size, loaded, str(tmp_path)):
            assert len(found) == 5 * 7
            assert all(found), found
    for name in ("whole-4", "cut-4", "cut-2", "whole-0"):
        assert bits(load(tmp_path / name)) == bits(whole())
    assert [load_metadata(tmp_path / f"whole-{size}") for size in (0, 4)] == [{"workers": 0}, {"workers": 4}]
    assert load_metadata(tmp_path / "cut-2") is None


def trained(folder: str, name: str) -> bool:
    """Make two steps with a sharded optimizer from the checkpoint, and save; return whether it was loaded unchanged."""
    net, opt = fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2)), fn.distributed.shard_optimizer(fn.Adam(lr=0.1))
    step = fn.distributed.data_parallel(fn.train_step(net, fn.MSE(), opt))
    params = tree.cast(net.init(0), torch.float64)
    state = opt.init(params)
    if Path(folder, "state").exists():
        params, state = load(f"{folder}/state", (params, state))
    x, target = fn.random.normal(1, (8, 3), dtype=torch.float64), fn.random.normal(2, (8, 2), dtype=torch.float64)
    for _ in range(2):
        params, state, _ = step(params, state, *fn.distributed.shard_rows((x, target)))
    save(f"{folder}/{name}", (params, state))
    return bits(load(f"{folder}/{name}", (params, state))) == bits((params, state))


def test_the_state_of_a_sharded_optimizer_goes_on_in_other_workers_and_in_one(tmp_path: Path) -> None:
    """Two steps of four workers and two of two equal four of one process to 1e-12; one process loads the whole state."""
    assert run(4, trained, str(tmp_path), "state") == [True] * 4
    assert run(2, trained, str(tmp_path), "state") == [True] * 2
    plain = tree.cast(fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2)).init(0), torch.float64)
    params, state = load(tmp_path / "state", (plain, fn.Adam(lr=0.1).init(plain)))
    net, opt = fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2)), fn.Adam(lr=0.1)
    step, now = fn.train_step(net, fn.MSE(), opt), opt.init(plain)
    x, target = fn.random.normal(1, (8, 3), dtype=torch.float64), fn.random.normal(2, (8, 2), dtype=torch.float64)
    for _ in range(4):
        plain, now, _ = step(plain, now, x, target)
    assert tree.allclose((params, state), (plain, now), rtol=0.0, atol=1e-12)


def test_plain_tensors_are_spread_over_the_workers_and_saved_once(tmp_path: Path) -> None:
    """Both files together are hardly larger than a single one."""
    run(2, written, str(tmp_path))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "whole-2").glob("*.distcp"))]
    save(tmp_path / "one", whole())
    assert len(sizes) == 2
    assert sum(sizes) < 1.2 * sum(path.stat().st_size for path in (tmp_path / "one").glob("*.distcp"))


def error_of(f: Any) -> str:
    try:
        f()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def refused(folder: str) -> list[str]:
    """Return the errors of calls that fail on every worker or only on rank 1; then save and load again."""
    rank, path = dist.get_rank(), f"{folder}/net"
    one = {"weight": torch.ones(4, 2)}
    save(path, one, "first")
    mesh = init_device_mesh("cpu", (2,))
    partial = DTensor.from_local(torch.ones(2), mesh, [Partial()])
    errors = [
        error_of(lambda: save(path, {"weight": torch.ones(4, 2) + rank})),
        error_of(lambda: save(path, {"weight": torch.ones(4, 2)}, rank)),
        error_of(lambda: save(path, {"n": {1, 2}})),
        error_of(lambda: save(path, {"n": partial})),
        error_of(lambda: save(path, {"n": {1} if rank else 1})),
        error_of(lambda: save(f"{folder}/nowhere/net", one)),
        error_of(lambda: save(f"{folder}/elsewhere/net" if rank else path, one)),
        error_of(lambda: save(b"" if rank else path, one)),
        error_of(lambda: load(f"{folder}/nothing")),
        error_of(lambda: load(path, {"weight": torch.ones(4, 2), "bias": torch.ones(2)})),
        error_of(lambda: load(path, {"weight": torch.ones(2, 4)} if rank else one)),
    ]
    return [*errors, str(bits(load(path)) == bits(one) and load_metadata(path) == "first"), *names(folder)]


def test_every_worker_raises_the_error_of_one(tmp_path: Path) -> None:
    """Examples are invalid arguments, differing trees, folders that a worker cannot see, and ``like``; the old one stays."""
    one, two = run(2, refused, str(tmp_path))
    for i, (rule, alike) in enumerate(
        [
            ("ValueError: save: params and state must be the same on all workers, and tree at 'weight' differs", True),
            (
                "ValueError: save: tree and metadata must be the same on all workers, got different ones on rank 1 than on rank 0",
                True,
            ),
            ("ValueError: save: every leaf must be a tensor, None, a bool, int, float, complex or str, got a set at 'n'", True),
            ("ValueError: save: every tensor must be dense and in memory, got a DTensor with partial sums", True),
            ("ValueError: save: all workers must succeed, got ValueError: save: every leaf must be", True),
            ("FileNotFoundError: [Errno 2] save: all workers must succeed, got FileNotFoundError: [Errno 2]", True),
            ("FileNotFoundError: [Errno 2] save: all workers must succeed, got FileNotFoundError: [Errno 2]", True),
            ("ValueError: save: all workers must succeed, got ValueError: save: path must be a str", True),
            ("FileNotFoundError: [Errno 2] load: path must be a folder written by distributed.save", True),
            ("ValueError: load: ", True),
            ("ValueError: load(", True),
        ]
    ):
        assert one[i].startswith(rule), one[i]
        assert (one[i] == two[i]) is alike
    assert all("on rank 1" in one[i] for i in (4, 6, 7, 10))
    assert "missing 'bias': a tensor of shape (2,) and dtype torch.float32" in one[9]
    assert one[11:] == ["True", "net"]


def as_nobody(folder: str) -> str:
    """Save again as a user without write permission on rank 1, if permissions apply."""
    path = f"{folder}/net"
    save(path, {"weight": torch.ones(4, 2)}, "first")
    Path(folder).chmod(0o755)
    if dist.get_rank() == 1 and os.geteuid() == 0:
        os.setuid(65534)
    elif dist.get_rank() == 1:  # a rank without permissions fails like one with another disk
        return error_of(lambda: save(f"{folder}/elsewhere/net", {"weight": torch.zeros(4, 2)}))
    return error_of(lambda: save(path, {"weight": torch.zeros(4, 2)}))


def test_a_worker_that_may_not_write_is_named_and_the_old_checkpoint_stays(tmp_path: Path) -> None:
    """The system's error is raised on every worker, and no part of the new checkpoint remains."""
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(0o755)
    one, two = run(2, as_nobody, str(tmp_path))
    assert one == two
    assert one.startswith(("PermissionError: [Errno 13] save: all workers must succeed, got", "FileNotFoundError"))
    assert one.endswith("on rank 1")
    assert load(tmp_path / "net")["weight"].sum() == 8
    assert names(tmp_path) == ["net"]


def killed(folder: str, at: str) -> Any:
    """Kill rank 1 or rank 0 during a save."""
    save(f"{folder}/net", {"weight": torch.ones(4, 2)})
    if dist.get_rank() == (at != "rename"):
        place = checkpoints.finish.__globals__ if at == "rename" else vars(checkpoints)
        place["sync_folder" if at == "rename" else "sums_of"] = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    return save(f"{folder}/net", {"weight": torch.zeros(4, 2)})


@pytest.mark.parametrize("other", ["notes.txt", "data/rows.pt", "__1_0.distcp/rows.pt"])
def test_a_folder_with_anything_but_a_checkpoint_is_never_replaced(tmp_path: Path, other: str) -> None:
    """Otherwise a folder of results, or a home folder, could be deleted."""
    save(tmp_path / "net", {"w": torch.ones(2)})
    save(tmp_path / "net", {"w": torch.zeros(2)})  # a checkpoint can be replaced
    (tmp_path / "empty").mkdir()
    save(tmp_path / "empty", {"w": torch.ones(2)})
    for folder in (tmp_path / "net", tmp_path / "files"):
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_text("kept")
        with pytest.raises(OSError, match="path must name a new folder or one with only a checkpoint, got one with"):
            save(folder, {"w": torch.ones(2)})
        assert (folder / other).read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("at", "lost"), [("write", 1), ("rename", 0)])
def test_a_killed_save_leaves_the_old_checkpoint(tmp_path: Path, at: str, lost: int) -> None:
    """Rank 1 is killed after writing, rank 0 before renaming; the next save removes the leftovers."""
    found: list[Any] = outcomes(2, killed, str(tmp_path), at, lost=(lost,))
    assert isinstance(found[1 - lost], WorkerError), found
    assert found[1 - lost].missing == (lost,)
    assert load(tmp_path / "net")["weight"].sum() == 8
    save(tmp_path / "net", {"weight": torch.full((4, 2), 2.0)})
    assert load(tmp_path / "net")["weight"].sum() == 16
    assert names(tmp_path) == ["net"]


def test_a_save_that_is_killed_between_two_names_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """It has its temporary name, under which ``load``, ``load_metadata`` and ``Checkpoints`` find it."""
    path = tmp_path / "net"
    save(path, {"weight": torch.ones(2)}, "old")
    path.rename(tmp_path / ".net.old")
    assert (load(path)["weight"].sum(), load_metadata(path)) == (2, "old")
    save(path, {"weight": torch.zeros(2)}, "new")
    assert (load_metadata(path), names(tmp_path)) == ("new", ["net"])
    checkpoints = Checkpoints(tmp_path / "kept")
    checkpoints.save(3, {"n": 1})
    (tmp_path / "kept" / "step-000000003").rename(tmp_path / "kept" / ".step-000000003.old")
    assert (checkpoints.steps(), checkpoints.latest(), checkpoints.load()) == ([3], 3, {"n": 1})


def test_every_damaged_file_is_found(tmp_path: Path) -> None:
    """A file of each kind is truncated, emptied, changed in one byte, or removed."""
    path = tmp_path / "net"
    save(path, whole())
    for name in ("tree.fn", ".metadata", "__0_0.distcp"):
        content = (path / name).read_bytes()
        for damaged in (content[:-1], b"", content[: len(content) // 2] + b"\xff" + content[len(content) // 2 + 1 :], None):
            (path / name).unlink() if damaged is None else (path / name).write_bytes(damaged)
            with pytest.raises(DamagedError, match=r"^load\('.*net'\): all files of the checkpoint must be whole, got .*"):
                load(path)
        (path / name).write_bytes(content)
    assert bits(load(path)) == bits(whole())


def test_an_attribute_in_a_pickle_is_a_member_of_an_enumeration(tmp_path: Path) -> None:
    """Python before 3.11.4 pickles members this way; any other attribute could execute code."""
    for kind, name in (("torch\nSize", "__new__"), ("torch.distributed.checkpoint.metadata\n_MEM_FORMAT_ENCODING", "mro")):
        (tmp_path / ".metadata").write_bytes(f"cbuiltins\ngetattr\n(c{kind}\nV{name}\ntR.".encode())
        with pytest.raises(Damaged, match=f"a file .metadata that asks .* for {name}"):
            torch_checkpoints.read_metadata(tmp_path, ())
    (tmp_path / ".metadata").write_bytes(
        b"cbuiltins\ngetattr\n(ctorch.distributed.checkpoint.metadata\n_MEM_FORMAT_ENCODING\nVTORCH_CHANNELS_LAST\ntR."
    )
    with pytest.raises(Damaged, match="of other files"):  # it was read
        torch_checkpoints.read_metadata(tmp_path, ())


def test_nothing_is_unpickled_but_the_classes_of_torch(tmp_path: Path) -> None:
    """A pickle with valid checksums that would create a folder is refused."""
    path = tmp_path / "net"
    save(path, {"weight": torch.ones(2)})
    before = (path / ".metadata").read_bytes()

    class Stranger:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    (path / ".metadata").write_bytes(pickle.dumps(Stranger()).ljust(len(before), b"."))
    tree_file = folders.TREE
    about = fn.load(path / tree_file).replace(
        str(folders.zlib.crc32(before)), str(folders.zlib.crc32((path / ".metadata").read_bytes()))
    )
    fn.save(path / tree_file, about)
    with pytest.raises(DamagedError, match=r"names posix\.mkdir"):
        load(path)
    assert not (tmp_path / "made").exists()


def kept(folder: str) -> list[Any]:
    """Save five steps, then damage the newest, and load on all workers."""
    checkpoints = Checkpoints(folder, keep=2)
    found: list[Any] = [checkpoints.latest(), error_of(checkpoints.load)]
    for step in range(5):
        checkpoints.save(step, {"n": torch.full((2,), step), "m": torch.ones(2), "step": step}, step)
    found += [checkpoints.steps(), checkpoints.latest(), checkpoints.load()["step"], checkpoints.load(3)["step"]]
    found += [checkpoints.load_metadata(), error_of(lambda: checkpoints.load(1)), error_of(lambda: checkpoints.save(-1, {}))]
    dist.barrier()
    if dist.get_rank() == 1:
        path = Path(folder, "step-000000004", "__1_0.distcp")
        shutil.copy(path, path.with_suffix(".whole"))
        path.write_bytes(path.read_bytes()[:-1])
    dist.barrier()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found += [checkpoints.load(like={"n": torch.zeros(2, dtype=torch.int64), "m": torch.ones(2), "step": 0})["step"]]
    found += [[str(one.message) for one in heard if one.category is UserWarning], error_of(lambda: checkpoints.load(4))]
    found += [error_of(lambda: checkpoints.load(like={"n": 1}))]
    return found


def test_kept_checkpoints_fall_back_together(tmp_path: Path) -> None:
    """Both workers read the previous one; only rank 0 warns. Missing steps and different trees are errors."""
    folder = tmp_path / "kept"
    one, two = run(2, kept, str(folder))
    assert one[2:7] == [[3, 4], 4, 4, 3, 4]
    assert one[:1] == [None]
    assert "folder must have a checkpoint to load, got none" in one[1]
    assert "step must be one of the saved steps, 3, 4, got 1" in one[7]
    assert "step must be a whole number of at least 0, got -1" in one[8]
    assert one[9] == 3
    assert len(one[10]) == 1
    assert "is damaged and skipped: " in one[10][0]
    assert "__1_0.distcp has" in one[10][0]
    assert two[10] == []
    assert [*one[:10], *one[11:]] == [*two[:10], *two[11:]]
    assert one[11].startswith("DamagedError: ")
    assert "different 'n': a tensor of shape (2,) and dtype torch.int64 instead of the int 1" in one[12]


def test_checkpoints_is_a_value() -> None:
    """It can be compared, printed and pickled, and checks its fields."""
    one = Checkpoints("somewhere", keep=None)
    assert repr(one) == "Checkpoints('somewhere', keep=None)"
    assert one == pickle.loads(pickle.dumps(one)) == Checkpoints(Path("somewhere"), None)
    for wrong in ({"folder": ""}, {"folder": 3}, {"folder": "x", "keep": 0}):
        with pytest.raises(ValueError, match="Checkpoints: "):
            Checkpoints(**wrong)  # type: ignore[arg-type]


def test_nothing_but_a_checkpoint_is_replaced_or_deleted(tmp_path: Path) -> None:
    """A user's folder is refused and kept; paths that do not end with a name are refused."""
    user = tmp_path / "user"
    user.mkdir()
    for name in ("notes.txt", "tree.fn"):  # a file that ``fn.save`` could have written is also the user's
        (user / name).write_text("mine")
        with pytest.raises(
            FileExistsError, match=rf"path must name a new folder or one with only a checkpoint, got one with .*{name}"
        ):
            save(user, {"a": torch.ones(2)})
        assert names(user) == [name]
        (user / name).unlink()
    for path in ("", "..", ".", f"{user}/..", "/"):
        with pytest.raises(
            ValueError, match=r"save: path must be a str or os\.PathLike that ends with the name of a folder, got"
        ):
            save(path, {"a": torch.ones(2)})
    net, other, written = tmp_path / "[n]et", tmp_path / ".net.1.tmp", tmp_path / ".net.part.0123456789abcdef.tmp"
    other.mkdir()
    written.mkdir()  # of a concurrent save to "net.part"
    for name, text in ((other / "notes.txt", "mine"), (written / "__0_0.distcp", "a part")):
        name.write_text(text)
    for _ in range(2):
        save(net, {"a": torch.ones(2)})
        save(tmp_path / "net", {"a": torch.ones(2)})
    (net / "notes.txt").write_text("mine")
    folders.delete(net)
    assert (names(other), names(written)) == (["notes.txt"], ["__0_0.distcp"])
    assert "[n]et" not in names(tmp_path)
    assert [path.read_text() for path in tmp_path.rglob("notes.txt")] == ["mine", "mine"]


def test_what_another_save_is_writing_stays(tmp_path):
    """Only leftovers of killed saves of this path are deleted, not the folders of "net.part" or "next"."""
    token = "0123456789abcdef"
    left, part, other = [folders.beside(tmp_path / name, token) for name in ("n[e]*", "n[e]*.part", "next")]
    for one in (left, part, other):
        one.mkdir()
    save(tmp_path / "n[e]*", {"a": torch.ones(2)})
    assert names(tmp_path) == sorted([part.name, other.name, "n[e]*"])
