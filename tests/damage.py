"""Ways to spoil a saved balancer, by chance and by intent."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sklearn_diffult.saving import KEY, VERSION, checksum

Tensors = dict[str, torch.Tensor]


def parts(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Content and tensors of a saved balancer."""
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()[KEY])["content"]
        return content, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write_signed(path: Path, content: dict[str, Any], tensors: Tensors) -> Path:
    """Write a file as whoever knows this library could: with the right checksum."""
    head = {"version": VERSION, "checksum": checksum(content, tensors), "content": content}
    save_file(tensors, path, {KEY: json.dumps(head)})
    return path


# Bytes --------------------------------------------------------------------------------


def _place(data: bytearray, rng: random.Random) -> int:
    """Half of the places lie in the header, which is a small part of the file."""
    n_header = 8 + int.from_bytes(data[:8], "little")
    return rng.randrange(min(n_header, len(data)) if rng.random() < 0.5 else len(data))


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 1, 3, 20])):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    at, n = _place(data, rng), rng.choice([1, 4, 64, 4096])
    data[at : at + n] = rng.choice([bytes(n), b"\xff" * n, rng.randbytes(n)])


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def remove(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice([1, 8, 1000])]


def splice(data: bytearray, rng: random.Random) -> None:
    source, target, n = _place(data, rng), _place(data, rng), rng.choice([1, 8, 1000, 10**6])
    piece = data[source : source + n]
    data[target : target + rng.choice([0, len(piece)])] = piece


def change_header(data: bytearray, rng: random.Random) -> None:
    """Change a shape, a type, an offset or a name that safetensors itself reads."""
    n_header = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n_header])
    _change_somewhere(header, rng)
    text = json.dumps(header).encode()
    data[: 8 + n_header] = len(text).to_bytes(8, "little") + text


def nest_deeply(data: bytearray, rng: random.Random) -> None:
    n_header = int.from_bytes(data[:8], "little")
    depth = rng.choice([500, 5_000, 500_000])
    nested = '{"a":' * depth if rng.random() < 0.5 else "[" * depth
    if rng.random() < 0.5:
        nested = json.dumps({"__metadata__": {KEY: f'{{"version": {VERSION}, "content": {nested}'}})
    data[: 8 + n_header] = len(nested).to_bytes(8, "little") + nested.encode()


BY_CHANCE = [flip_bits, overwrite, truncate, remove, splice, change_header, nest_deeply]


# Content ------------------------------------------------------------------------------

NUMBERS = [0, -1, 1.5, 2**31, 10**18, 10**400, -(10**18), math.nan, math.inf, -math.inf, 1e-320]
TEXTS = ["", "../../../../etc/passwd", "/dev/zero", "\0", "__class__", "os.system", "x" * 10**5]
TYPES = ["O", "<U90000000", "S", "V8", "M8[ns]", "F64", "I64", "BOOL", "float99", "f8,f8", "<c16"]
OTHERS = [None, True, False, [], {}, [[]], [1, 2], {"items": [[1, 2]]}, [[[[[[[[0]]]]]]]]]


def _value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(rng.choice([NUMBERS, TEXTS, TYPES, OTHERS])))


def _change_somewhere(tree: dict[str, Any], rng: random.Random) -> bool:
    """Change one node of a JSON tree; whether it still has all its keys."""
    node: Any = tree
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        below = node[key]
        if not isinstance(below, dict | list) or not below or rng.random() < 0.15:
            break
        node = below
    way = rng.randrange(6)
    if way == 0:
        del node[key]
    elif way == 1 and isinstance(node, dict):
        node[rng.choice(TEXTS)] = node.pop(key)
    elif way == 2 and isinstance(node, list):
        node.append(copy.deepcopy(below))
    elif way == 3 and isinstance(below, int | float):
        node[key] = -below
    elif way == 4:
        below = copy.deepcopy(below)
        for _ in range(200):
            below = [below]
        node[key] = below
    else:
        node[key] = _value(rng)
    return way != 0


def _change_tensor(tensors: Tensors, rng: random.Random) -> None:
    # The codec's are few among the network's, and more is made of them.
    codec = [name for name in tensors if not name.startswith("denoiser.")]
    name = rng.choice(codec if rng.random() < 0.7 else list(tensors))
    tensor = tensors.pop(name)
    way = rng.randrange(8)
    if way == 0:
        return
    if way == 1:
        name = rng.choice([*TEXTS[:-1], f"codec.{rng.randrange(9)}", f"../{name}", f"{name}.x"])
    elif way == 2:
        names = ["float16", "bfloat16", "int64", "uint8", "bool", "float32", "float64"]
        tensor = tensor.to(getattr(torch, rng.choice(names)))
    elif way == 3:
        flat = tensor.reshape(-1)
        tensor = rng.choice([flat[:0].clone(), flat.repeat(2)])
    elif way == 4:
        tensor = -tensor
    elif way == 5:
        tensor = tensor.flip(tensor.ndim - 1)
    elif way == 6:
        tensor = tensor[None].clone()
    else:
        tensor = tensor.clone()
        tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice([math.nan, math.inf, 1e30])
    tensors[name] = tensor.contiguous()


def change_claims(content: dict[str, Any], tensors: Tensors, rng: random.Random) -> bool:
    """Change content, a tensor or both in place; whether no key is missing."""
    is_complete = True
    if rng.random() < 0.7:
        is_complete = _change_somewhere(content, rng)
    else:
        _change_tensor(tensors, rng)
    return is_complete
