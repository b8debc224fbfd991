"""Fitted balancers as one file of numbers and text: safetensors with JSON in its header, no code.

A pickle runs whatever its author put into it; a file of this format can at worst be refused.

The header's metadata hold one JSON text under `KEY`: ``version``, ``checksum`` and ``content``. The
version is one whole number, raised with every change after which an older library would misread a
file. This library reads all versions up to its own, and refuses newer ones by name; every version
to come keeps its number where it is. The checksum is that of the content and of all tensors, and
guards against damage. It does not tell who wrote the file, so whatever a content claims is checked
too.

| version | what changed |
|---|---|
| 1 | |
| 2 | the checksum; what had been the whole JSON became its ``content`` |
| 3 | number columns have ``decimals`` in the place of ``is_whole``; the network "mlp" is smaller |
| 4 | ``groups``: of the network's group norms, which were 8 or a divisor of it; ``is_whole_`` |
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from sklearn.utils.validation import check_is_fitted

from sklearn_diffult._files import replace_file
from sklearn_diffult._fitting import Portable
from sklearn_diffult._torch import empty_as
from sklearn_diffult.codecs import ImageCodec, TableCodec
from sklearn_diffult.codecs.states import claim, plain
from sklearn_diffult.diffusion.denoiser import Denoiser
from sklearn_diffult.networks.denoisers import named_network
from sklearn_diffult.plans import generation_plan

# The one key of the file's metadata: with several, equal models would be unequal files.
KEY = "sklearn_diffult.DiffusionBalancer"
VERSION = 4
# A header is read as a whole before anything in it can be checked.
MAX_HEADER_BYTES = 2**24
# They belong to a place rather than to a model.
LEFT_BEHIND = ("memory", "checkpoint", "device", "verbose")
CODECS: dict[str, type[ImageCodec] | type[TableCodec]] = {"image": ImageCodec, "table": TableCodec}
LABEL_KINDS = "biufUO"
# A dtype may claim any length for its text.
MAX_LABEL_BYTES = 2**24


class Savable(Portable):
    """`save` and `load` for a balancer."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to a file that holds no code and no training row.

        Parameters
        ----------
        path : str or PathLike
            File to write, replaced in one go. By custom it ends in ``.safetensors``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If a parameter, a label or a column's name is no text, number or boolean: your own
            network or solver is code, which only pickle keeps.
        ValueError
            If `load` could not read the file, as parameters were changed after `fit`.

        Notes
        -----
        What `generate` needs is kept: the denoiser, the encoding of rows, labels and parameters,
        without `memory`, `checkpoint`, `device` and `verbose`. What the last ``fit_resample``
        reported is not.
        """
        check_is_fitted(self, "denoiser_")
        content, tensors = _describe(self)
        try:
            _restore(type(self), json.loads(json.dumps(content)), tensors)
        except _SIGNS_OF_DAMAGE as error:
            raise ValueError(
                f"The model cannot be saved, as it could not be loaded again: {error}. Were "
                "parameters changed after fit? Put them back, or fit again."
            ) from error
        head = {"version": VERSION, "checksum": checksum(content, tensors), "content": content}
        replace_file(Path(path), to_bytes(tensors, {KEY: json.dumps(head)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that `save` wrote, on any device; safe for files from strangers.

        Parameters
        ----------
        path : str or PathLike
            File to read.

        Returns
        -------
        balancer : DiffusionBalancer
            Fitted: `generate` gives the same rows as before.

        Raises
        ------
        ValueError
            If the file is damaged, is no saved balancer, or was written by a later version of
            the format.
        OSError
            If it cannot be read.
        """
        _check_header(path)
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                head = json.loads((file.metadata() or {}).get(KEY, "{}"))
                _check_version(head)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _restore(cls, _content(head, tensors), tensors)
        except (SafetensorError, *_SIGNS_OF_DAMAGE) as error:
            raise ValueError(
                f"{os.fspath(path)!r} cannot be loaded as a saved DiffusionBalancer: {error}."
            ) from error


# What reading content of the wrong kind or shape raises.
_SIGNS_OF_DAMAGE = (
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


def checksum(content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    """Return 32 hexadecimal digits that change with the content and with every bit of a tensor."""
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)};".encode())
        if tensor.numel():  # none has strides that cannot be viewed as bytes
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_version(head: Any) -> None:
    if not isinstance(head, dict) or not head:
        raise ValueError("it holds something else")
    version = head.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"its version of the format is {version!r}, not a number from 1 on")
    if version > VERSION:
        raise ValueError(
            f"it has version {version} of the format and this library reads up to "
            f"{VERSION}; upgrade sklearn_diffult"
        )


def _content(head: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Bring the head of any version to the present one's content."""
    content = head if head["version"] == 1 else head["content"]
    if head["version"] > 1 and head["checksum"] != checksum(content, tensors):
        raise ValueError(
            "its checksum is not that of what it holds, so it was damaged; copy or save it again"
        )
    if head["version"] < 3 and content["codec"]["kind"] == "table":
        _upgrade_table(content)
    if head["version"] < 4:
        content["groups"] = None
        if content["codec"]["kind"] == "image":
            state = content["codec"]["state"]
            state["is_whole_"] = np.dtype(state["dtype"]).kind in "bui"
    return content


def _upgrade_table(content: dict[str, Any]) -> None:
    """Bring a table's content from version 1 or 2 to version 3."""
    if content["parameters"]["network"] in ("auto", "mlp"):
        content["parameters"]["network"] = "mlp_large"
    for column, *_ in content["codec"]["state"]["fields"]:
        numbers = column.get("gappy", column).get("number")
        if numbers is not None:
            numbers["decimals"] = 0 if numbers.pop("is_whole") else None


def _describe(balancer: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    codec = balancer.codec_
    state, arrays = codec.to_state()
    names = getattr(balancer, "feature_names_in_", None)
    content = {
        "parameters": {
            name: _plain_parameter(name, value)
            for name, value in balancer.get_params(deep=False).items()
            if name not in LEFT_BEHIND
        },
        "codec": {"kind": "image" if codec.is_image else "table", "state": state},
        "sigma_data": balancer.denoiser_.sigma_data,
        "groups": [norm.num_groups for norm in _group_norms(balancer.denoiser_)],
        "classes": _labels_to_state(balancer.classes_),
        "rows_to_generate": [
            [plain(label, "label"), int(n)] for label, n in balancer.sampling_strategy_.items()
        ],
        "rows_per_second": float(balancer.rows_per_second_),
        "n_features": getattr(balancer, "n_features_in_", None),
        "feature_names": None if names is None else list(map(str, names)),
    }
    tensors = {
        f"denoiser.{name}": value.contiguous()
        for name, value in balancer.denoiser_.state_dict().items()
    }
    tensors |= {
        f"codec.{name}": torch.from_numpy(np.ascontiguousarray(array))
        for name, array in arrays.items()
    }
    tensors["loss_curve"] = torch.from_numpy(np.asarray(balancer.loss_curve_, dtype=np.float64))
    return content, tensors


def _restore(cls: Any, content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    parameters = {
        name: _parameter_from_state(value) for name, value in content["parameters"].items()
    }
    # A stranger shall not choose where to read and write.
    claim(not parameters.keys() & set(LEFT_BEHIND), "parameters")
    balancer = cls(**parameters)
    balancer._validate_params()
    parts: dict[str, dict[str, torch.Tensor]] = {"denoiser": {}, "codec": {}, "loss_curve": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        claim(part in parts, f"tensor {name!r}")
        claim(bool(torch.isfinite(tensor).all()), f"tensor {name!r}")
        parts[part][rest] = tensor
    # A file's tensors are parts of it, and change when it is overwritten: what is kept is copied.
    arrays = {name: tensor.numpy().copy() for name, tensor in parts["codec"].items()}
    codec = CODECS[content["codec"]["kind"]].from_state(content["codec"]["state"], arrays)
    generation_plan(balancer, codec.is_image, torch.device("cpu"))
    classes = _labels_from_state(content["classes"])
    sigma_data = _number(content["sigma_data"], "sigma_data")
    claim(sigma_data > 0, "sigma_data")
    balancer.codec_, balancer.classes_ = codec, classes
    balancer.denoiser_ = _restore_denoiser(
        parameters["network"], codec, len(classes), sigma_data, content["groups"], parts["denoiser"]
    )
    balancer.sampling_strategy_ = _counts_from_state(content["rows_to_generate"], classes)
    balancer.rows_per_second_ = _number(content["rows_per_second"], "rows_per_second")
    balancer.loss_curve_ = parts["loss_curve"][""].numpy().astype(np.float64)
    claim(balancer.loss_curve_.ndim == 1, "loss_curve")
    if codec.is_image:
        balancer.image_shape_ = codec.sample_shape
    n_features, names = content["n_features"], content["feature_names"]
    if n_features is not None:
        claim(type(n_features) is int and n_features > 0, "n_features")
        balancer.n_features_in_ = n_features
    if names is not None:
        claim(isinstance(names, list) and len(names) == n_features, "feature_names")
        claim(all(isinstance(name, str) for name in names), "feature_names")
        balancer.feature_names_in_ = np.array(names, dtype=object)
    return balancer


def _number(value: Any, what: str) -> float:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    claim(is_number and math.isfinite(value) and value >= 0, what)
    return float(value)


def _counts_from_state(state: Any, classes: np.ndarray) -> dict[Any, int]:
    labels = classes.tolist()
    for label, n in state:
        claim(label in labels and type(n) is int and n >= 0, "rows_to_generate")
    counts = dict(state)
    claim(len(counts) == len(state), "rows_to_generate")
    return counts


def _restore_denoiser(
    choice: str,
    codec: ImageCodec | TableCodec,
    n_classes: int,
    sigma_data: float,
    groups: list[int] | None,
    state: dict[str, torch.Tensor],
) -> Denoiser:
    """Build the named network around the tensors of the file, once their shapes are seen to fit."""
    factory = named_network(choice, codec.sample_shape)
    # Without memory: shapes that a hostile file claims must not be allocated.
    with torch.device("meta"):
        network = factory(codec.sample_shape, n_classes)
        denoiser = Denoiser(network, sigma_data, n_classes)
    wanted = {key: (tensor.shape, tensor.dtype) for key, tensor in denoiser.state_dict().items()}
    found = {key: (tensor.shape, tensor.dtype) for key, tensor in state.items()}
    if wanted != found:
        differing = sorted(
            key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)
        )
        raise ValueError(f"its network's {differing[0]} is not of the expected shape or type")
    norms = _group_norms(denoiser)
    if groups is None:
        groups = [math.gcd(8, norm.num_channels) for norm in norms]
    claim(isinstance(groups, list) and len(groups) == len(norms), "groups")
    for norm, n_groups in zip(norms, groups, strict=True):
        claim(type(n_groups) is int and n_groups > 0, "groups")
        claim(norm.num_channels % n_groups == 0, "groups")
        norm.num_groups = n_groups
    # Copied into the layout that the network wants, which files do not keep.
    own = {key: empty_as(like).copy_(state[key]) for key, like in denoiser.state_dict().items()}
    denoiser.load_state_dict(own, assign=True)
    return denoiser.eval().requires_grad_(False)


def _labels_to_state(classes: np.ndarray) -> dict[str, Any]:
    return {
        "dtype": classes.dtype.str,
        "labels": [plain(label, "label") for label in classes.tolist()],
    }


def _labels_from_state(state: dict[str, Any]) -> np.ndarray:
    claim(isinstance(state["dtype"], str) and isinstance(state["labels"], list), "classes")
    dtype, labels = np.dtype(state["dtype"]), [plain(each, "label") for each in state["labels"]]
    claim(dtype.kind in LABEL_KINDS and dtype.itemsize * len(labels) <= MAX_LABEL_BYTES, "classes")
    classes = np.array(labels, dtype=dtype)
    # Whatever the dtype cannot hold, such as a fraction among integers, would not come back.
    types = [list(map(type, each)) for each in (classes.tolist(), labels)]
    claim(classes.tolist() == labels and types[0] == types[1], "classes")
    claim(dtype.str == state["dtype"] and len(set(labels)) == len(labels) >= 2, "classes")
    return classes


def _plain_parameter(name: str, value: Any) -> Any:
    """Return what JSON gives back as it was; a mapping, a tuple and an array by their items."""
    if hasattr(value, "tolist"):  # of numpy and pandas
        value = value.tolist()
    if isinstance(value, Mapping):
        return {"items": [[plain(k, name), plain(v, name)] for k, v in value.items()]}
    if isinstance(value, tuple | list):
        return [plain(item, name) for item in value]
    return plain(value, name)


def _parameter_from_state(value: Any) -> Any:
    if isinstance(value, dict):
        return {plain(k, "parameter"): plain(v, "parameter") for k, v in value["items"]}
    if isinstance(value, list):
        return tuple(plain(item, "parameter") for item in value)
    return value


def _check_header(path: str | os.PathLike[str]) -> None:
    """Refuse a header whose size is absurd before it is read."""
    with open(path, "rb") as file:
        beginning = file.read(8)
        size = os.fstat(file.fileno()).st_size
    n_bytes = int.from_bytes(beginning, "little")
    if 2 <= n_bytes <= min(MAX_HEADER_BYTES, size - 8):
        return
    # The first byte of a pickle, of zlib and of a zip archive.
    is_pickle = beginning[:1] in (b"\x80", b"\x78") or beginning[:2] == b"PK"
    hint = " It looks like a pickle: joblib.load or pickle.load read those." if is_pickle else ""
    raise ValueError(f"{os.fspath(path)!r} is damaged or not written by save().{hint}")


def _group_norms(module: torch.nn.Module) -> list[torch.nn.GroupNorm]:
    return [each for each in module.modules() if isinstance(each, torch.nn.GroupNorm)]
