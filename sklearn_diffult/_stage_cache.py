"""A cache of finished stages on disk, and keys that depend on values alone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import hashlib
import importlib
import inspect
import io
import os
import re
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch
from filelock import FileLock
from joblib import Memory, parallel_config

from sklearn_diffult._warnings import warn

PACKAGE = Path(__file__).parent
# Their versions are in the key, or their meaning does not change with their source.
KNOWN_PACKAGES = {PACKAGE.name, "torch", "numpy", "scipy", "sklearn", *sys.stdlib_module_names}
# Folders of packages that nobody edits.
INSTALLED = {"site-packages", "dist-packages"}
_PICKLING = threading.RLock()
# joblib's name for the file that holds an entry's value.
CONTENT = "output.pkl"
# cloudpickle names a class written in a notebook by a uuid4 of its own in every process.
CLASS_NAMES = re.compile(rb"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}")


# --------------------------------------------------------------------------------------
# Keys
# --------------------------------------------------------------------------------------


def key_of(*parts: Any) -> str:
    """Return 32 hexadecimal digits that tell `parts` from other values.

    Parts may be None, booleans, numbers, text, bytes, arrays, tensors, functions and classes, and
    sequences, mappings and this library's dataclasses of these. Equal values have equal keys
    whatever holds them: a list or a tuple, an int or numpy's int. The sources of this library and
    the version of torch are in every key.
    """
    digest = hashlib.blake2b(digest_size=16)
    for piece in _pieces((torch.__version__, _own_sources(), parts)):
        digest.update(piece)
    return digest.hexdigest()


@functools.cache
def _own_sources() -> str:
    """Digest of this library's files; a version number would not change with every edit."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes | memoryview]:
    """Yield kind, length and content, so that no two values run together into one."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        yield f"array {value.dtype.str} {value.shape};".encode()
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif value is None or isinstance(value, bool):
        yield f"{value};".encode()
    elif isinstance(value, Real):
        # 1 and 1.0 mean the same to every parameter.
        yield f"number {float(value) if float(value) == value else value!r};".encode()
    elif isinstance(value, str | bytes):
        content = value.encode() if isinstance(value, str) else value
        yield f"{type(value).__name__} {len(content)};".encode()
        yield content
    elif isinstance(value, Mapping):
        yield from _pieces(sorted(value.items()))
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)};".encode()
        for item in value:
            yield from _pieces(item)
    elif _is_ours(type(value)) and dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        yield from _pieces({name: getattr(value, name) for name in fields})
    elif _is_ours(value):
        yield f"ours {value.__module__}.{value.__qualname__};".encode()
        # What a line of a table closes over may be all that tells it from the next.
        cells = getattr(value, "__closure__", None) or ()
        yield from _pieces([cell.cell_contents for cell in cells])
    else:
        yield from _pieces(_pickled(value))


def _is_ours(value: Any) -> bool:
    """Tell this library's classes and functions, whose code `_own_sources` covers."""
    return (getattr(value, "__module__", None) or "").partition(".")[0] == PACKAGE.name


def _pickled(value: Any) -> bytes:
    """Bytes that change with what a user's own function or class does."""
    try:
        try:
            return _dumped(value, by_value=True)
        except Exception:  # a module's locks and open files, which its source stands for
            return _dumped(value, by_value=False)
    except Exception as error:  # whatever a foreign __reduce__ raises
        warn(
            f"{value!r} cannot be pickled ({error}), so what depends on it is neither cached nor "
            "resumed. Define it at the top level of a module."
        )
        return uuid.uuid4().bytes


def _dumped(value: Any, by_value: bool) -> bytes:
    stream = io.BytesIO()
    # What is to be pickled by value cloudpickle knows once for all threads.
    with _PICKLING:
        pickler = _ContentPickler(stream, by_value)
        try:
            pickler.dump(value)
        finally:
            for name in pickler.registered:
                cloudpickle.unregister_pickle_by_value(sys.modules[name])
    sources = "".join(sorted(pickler.sources)).encode()
    return CLASS_NAMES.sub(b"", stream.getvalue()) + sources


class _ContentPickler(cloudpickle.Pickler):
    """Pickles what code does rather than where and when it was written.

    Functions and classes of a user's modules are pickled by value, as they are in memory: the file
    may have been edited since it was imported. Their source is collected too, for what comes as a
    name all the same: modules, and what is not written in Python. Of installed packages it is the
    source alone.
    """

    def __init__(self, stream: io.BytesIO, by_value: bool):
        super().__init__(stream)
        self.sources: set[str] = set()
        self.registered: set[str] = set()
        self._by_value = by_value

    def persistent_id(self, obj: Any) -> Any:
        """Stand in for what pickles differently in every process, by hash order or by address."""
        # Bytes, as 32 hexadecimal digits may look like a class's name.
        if type(obj) in (set, frozenset):
            return type(obj).__name__, sorted(bytes.fromhex(key_of(each)) for each in obj)
        if isinstance(obj, np.ndarray) and not obj.dtype.hasobject:
            return "array", bytes.fromhex(key_of(obj))
        is_plain = isinstance(obj, torch.Tensor) and obj.layout == torch.strided
        if is_plain and not torch.nn.parameter.is_lazy(obj):
            content = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            about = str(obj.dtype), tuple(obj.shape), obj.requires_grad
            return *about, bytes.fromhex(key_of(content))
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.CodeType):
            # Without file name and line numbers: a notebook's kernel has a new file for every cell.
            names = ("co_code", "co_consts", "co_names", "co_varnames", "co_freevars")
            signature = ("co_cellvars", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount")
            return tuple, ([getattr(obj, name) for name in (*names, *signature, "co_flags")],)
        if isinstance(obj, types.FunctionType | type | types.ModuleType):
            self._meet(inspect.getmodule(obj))
        if isinstance(obj, types.FunctionType):
            # Else the path of its file would count.
            self.globals_ref.setdefault(id(obj.__globals__), {"__name__": obj.__module__})
        if isinstance(obj, types.ModuleType) and obj.__name__ in self.registered:
            return importlib.import_module, (obj.__name__,)
        return super().reducer_override(obj)

    def _meet(self, module: types.ModuleType | None) -> None:
        """Collect a module's source, and pickle what it defines by value if it is the user's."""
        name = getattr(module, "__name__", "__main__")
        # What is in __main__ is pickled by value; its text changes with every edit of the script.
        if module is None or name == "__main__" or name.partition(".")[0] in KNOWN_PACKAGES:
            return
        with contextlib.suppress(OSError, TypeError):
            self.sources.add(inspect.getsource(module))
        place = Path(getattr(module, "__file__", None) or "").parts
        is_users = sys.modules.get(name) is module and not INSTALLED.intersection(place)
        if self._by_value and is_users and name not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            self.registered.add(name)


# --------------------------------------------------------------------------------------
# Cache
# --------------------------------------------------------------------------------------

LazyKey = Callable[[], str]
# What a directory holds at most, beside what the last fit needs.
MAX_BYTES = 10 * 2**30


class StageCache:
    """Arrays, bytes and dicts of them under keys, in the store of a `joblib.Memory`.

    Only the store is joblib's, for its atomic writes, `reduce_size` and `clear`; its memorised
    functions forget what they hold when a process uses two directories. Keys come as functions
    that are not called where there is no store, as hashing costs time.

    Parameters
    ----------
    memory : str, PathLike, joblib.Memory or None
        Where to keep what was computed; None keeps nothing. `trim` bounds a directory given by its
        path; who gives a `Memory` bounds it.

    Raises
    ------
    ValueError
        If the directory cannot be made.
    """

    def __init__(self, memory: str | os.PathLike[str] | Memory | None):
        self._store: Any = None if memory is None else _open(memory).store_backend
        self._is_bounded = memory is not None and not isinstance(memory, Memory)
        self._in_use: set[Path] = set()
        self._has_written = False

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._store is not None

    def recall(self, stage: str, key: LazyKey, compute: Callable[[], Any]) -> Any:
        """Return what is kept under `key`, or compute and keep it.

        Of several processes that want the same, one computes and the others wait.
        """
        value = self.load(stage, key)
        if value is None:
            with self.lock(key):
                value = self.load(stage, key)
                if value is None:
                    value = compute()
                    self.store(stage, key, value)
        return value

    def load(self, stage: str, key: LazyKey) -> Any:
        """Return what is kept, or None; what cannot be read is dropped with a warning."""
        if self._store is None:
            return None
        address = (PACKAGE.name, stage, key())
        if not self._store.contains_item(address):
            return None
        try:
            item = self._store.load_item(address, verbose=0)
            if item["key"] == key() and item["digest"] == key_of(item["value"]):
                self._use(address)
                return item["value"]
            fault = "it holds something else"
        except Exception as error:  # unpickling foreign bytes may raise anything
            fault = f"{type(error).__name__}: {error}"
        if self._store.contains_item(address):  # and was not cleared meanwhile
            warn(
                f"The cached {stage} {'/'.join(address)} cannot be used ({fault}) and is computed "
                "again."
            )
            self._store.clear_item(address)
        return None

    def store(self, stage: str, key: LazyKey, value: Any) -> None:
        """Keep a value; joblib warns where the disk does not take it."""
        if self._store is not None:
            item = {"key": key(), "digest": key_of(value), "value": value}
            address = (PACKAGE.name, stage, key())
            self._store.dump_item(address, item, verbose=0)
            self._use(address)
            self._has_written = True

    def _use(self, address: tuple[str, ...]) -> None:
        """Record when the entry was used; many file systems do not by themselves."""
        folder = Path(self._store.location, *address)
        self._in_use.add(folder)
        with contextlib.suppress(OSError):  # cleared meanwhile, or never written
            os.utime(folder / CONTENT)

    def trim(self) -> None:
        """If anything was written, drop what was not used for longest until the rest fits.

        What this object wrote or read stays. Other processes compute again what they miss.
        """
        if not (self._is_bounded and self._has_written):
            return
        root, entries = Path(self._store.location, PACKAGE.name), []
        for name in glob.glob(f"*/*/{CONTENT}", root_dir=root):
            with contextlib.suppress(OSError):  # another process drops entries too
                found = (root / name).stat()
                entries.append((found.st_mtime, found.st_size, (root / name).parent))
        excess = sum(size for _, size, _ in entries) - MAX_BYTES
        for _, size, folder in sorted(entries):
            if excess > 0 and folder not in self._in_use:
                self._store.clear_location(str(folder))
                excess -= size
        self._has_written = False

    @contextlib.contextmanager
    def lock(self, key: LazyKey) -> Iterator[None]:
        """Hold the key against other processes and threads; the system frees it if we die.

        Meanwhile joblib works in this thread alone: what scikit-learn handed to a cluster could
        wait for workers that all wait for this lock.
        """
        if self._store is None or not os.path.isdir(self._store.location):
            yield
            return
        path = Path(self._store.location, PACKAGE.name, "locks", f"{key()}.lock")
        lock = FileLock(path)
        # Where nothing can be written nothing will be kept, so nobody has to wait for it.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            with parallel_config("sequential"):
                yield
        finally:
            # Those who wait for a file that is gone look again.
            if lock.is_locked:
                with contextlib.suppress(OSError):
                    path.unlink()
            lock.release()


def _open(memory: Any) -> Any:
    if isinstance(memory, Memory):
        return memory
    try:
        if not os.fspath(memory):
            raise OSError("it is empty")  # joblib takes it for the working directory
        return Memory(os.fspath(memory), verbose=0)
    except OSError as error:
        raise ValueError(
            f"memory={memory!r} cannot be used as a directory ({error}); "
            "give a path that can be written to."
        ) from error
