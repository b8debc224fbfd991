"""Fitted balancers as one file of numbers and text: safetensors with JSON in its header, no code.

A pickle runs whatever its author put into it; a file of this format can at worst be refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from sklearn.utils.validation import check_is_fitted

from sklearn_diffult._files import replace_file
from sklearn_diffult.codecs import ImageCodec, TableCodec
from sklearn_diffult.codecs.states import plain
from sklearn_diffult.diffusion.denoiser import Denoiser
from sklearn_diffult.networks.denoisers import named_network

# The one key of the file's metadata: with several, equal models would be unequal files.
KEY = "sklearn_diffult.DiffusionBalancer"
VERSION = 1
# A header is read as a whole before anything in it can be checked.
MAX_HEADER_BYTES = 2**24
# They belong to a place rather than to a model.
LEFT_BEHIND = ("memory", "checkpoint", "device", "verbose")
CODECS: dict[str, type[ImageCodec] | type[TableCodec]] = {"image": ImageCodec, "table": TableCodec}
LABEL_KINDS = "biufUO"


class Savable:
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

        Notes
        -----
        What `generate` needs is kept: the denoiser, the encoding of rows, labels and parameters,
        without `memory`, `checkpoint`, `device` and `verbose`. What the last ``fit_resample``
        reported is not.
        """
        check_is_fitted(self, "denoiser_")
        content, tensors = _describe(self)
        replace_file(Path(path), to_bytes(tensors, {KEY: json.dumps(content)}))

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
                content = json.loads((file.metadata() or {}).get(KEY, "{}"))
                _check_version(content)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _restore(cls, content, tensors)
        except (SafetensorError, *_SIGNS_OF_DAMAGE) as error:
            raise ValueError(
                f"{os.fspath(path)!r} cannot be loaded as a saved DiffusionBalancer: {error}."
            ) from error


# What reading content of the wrong kind or shape raises.
_SIGNS_OF_DAMAGE = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _check_version(content: dict[str, Any]) -> None:
    if not content:
        raise ValueError("it holds something else")
    if content["version"] > VERSION:
        raise ValueError(
            f"it has version {content['version']} of the format and this library reads up to "
            f"{VERSION}; upgrade sklearn_diffult"
        )


def _describe(balancer: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    codec = balancer.codec_
    state, arrays = codec.to_state()
    names = getattr(balancer, "feature_names_in_", None)
    content = {
        "version": VERSION,
        "parameters": {
            name: _plain_parameter(name, value)
            for name, value in balancer.get_params(deep=False).items()
            if name not in LEFT_BEHIND
        },
        "codec": {"kind": "image" if codec.is_image else "table", "state": state},
        "sigma_data": balancer.denoiser_.sigma_data,
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
    balancer = cls(**parameters)
    balancer._validate_params()
    arrays = {
        name.removeprefix("codec."): tensor.numpy()
        for name, tensor in tensors.items()
        if name.startswith("codec.")
    }
    codec = CODECS[content["codec"]["kind"]].from_state(content["codec"]["state"], arrays)
    classes = _labels_from_state(content["classes"])
    balancer.codec_, balancer.classes_ = codec, classes
    balancer.denoiser_ = _restore_denoiser(
        parameters["network"],
        codec,
        len(classes),
        float(content["sigma_data"]),
        {
            name.removeprefix("denoiser."): tensor
            for name, tensor in tensors.items()
            if name.startswith("denoiser.")
        },
    )
    balancer.sampling_strategy_ = {label: int(n) for label, n in content["rows_to_generate"]}
    balancer.rows_per_second_ = float(content["rows_per_second"])
    balancer.loss_curve_ = tensors["loss_curve"].numpy().astype(np.float64)
    if codec.is_image:
        balancer.image_shape_ = codec.sample_shape
    if content["n_features"] is not None:
        balancer.n_features_in_ = int(content["n_features"])
    if content["feature_names"] is not None:
        balancer.feature_names_in_ = np.array(content["feature_names"], dtype=object)
    return balancer


def _restore_denoiser(
    choice: str,
    codec: ImageCodec | TableCodec,
    n_classes: int,
    sigma_data: float,
    state: dict[str, torch.Tensor],
) -> Denoiser:
    """Build the named network around the tensors of the file, once their shapes are seen to fit."""
    factory = named_network(choice, codec.sample_shape, codec.is_image)
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
    denoiser = denoiser.to_empty(device="cpu")
    denoiser.load_state_dict(state)
    return denoiser.eval().requires_grad_(False)


def _labels_to_state(classes: np.ndarray) -> dict[str, Any]:
    return {
        "dtype": classes.dtype.str,
        "labels": [plain(label, "label") for label in classes.tolist()],
    }


def _labels_from_state(state: dict[str, Any]) -> np.ndarray:
    dtype, labels = np.dtype(state["dtype"]), state["labels"]
    if dtype.kind not in LABEL_KINDS or not isinstance(labels, list) or len(labels) < 2:
        raise ValueError("its labels are none")
    return np.array([plain(label, "label") for label in labels], dtype=dtype)


def _plain_parameter(name: str, value: Any) -> Any:
    """Return what JSON gives back as it was; a mapping and a tuple by their items."""
    if isinstance(value, Mapping):
        return {"items": [[plain(k, name), plain(v, name)] for k, v in value.items()]}
    if isinstance(value, tuple | list):
        return [plain(item, name) for item in value]
    return plain(value, name)


def _parameter_from_state(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(value["items"])
    return tuple(value) if isinstance(value, list) else value


def _check_header(path: str | os.PathLike[str]) -> None:
    """Refuse a header whose size is absurd before it is read."""
    with open(path, "rb") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
    if not 2 <= n_bytes <= min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(
            f"{os.fspath(path)!r} is damaged or no safetensors file: its header would have "
            f"{n_bytes} bytes, the file has {size}."
        )
