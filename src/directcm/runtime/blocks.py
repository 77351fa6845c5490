"""Long per-row work in resumable blocks: each finished block is a file that the next run finds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from directcm.errors import UserError
from directcm.runtime.artifacts import load_tensors, read_json, save_tensors, sha256, write_json
from directcm.runtime.unchanged import continued, made_by


def block_ranges(total: int, block: int, shard: int, shards: int) -> list[range]:
    """The blocks of rows of shard `shard` of `shards`: whole, contiguous blocks.

    A block does not depend on its shard, so the number of shards changes no byte of the result.
    """
    count = -(-total // block)
    if not 0 <= shard < shards <= count:
        raise UserError(
            f"shard {shard} of {shards}: there are {count} blocks of {block} rows; ask for shards 0 to {count - 1} at most"
        )
    first, last = shard * count // shards, (shard + 1) * count // shards
    return [range(b * block, min((b + 1) * block, total)) for b in range(first, last)]


def batches(rows: range, size: int) -> list[range]:
    """The rows in consecutive batches of `size`, the last of them perhaps smaller."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def clear(scratch: Path) -> None:
    """Delete finished blocks, after the artefact that holds them is written."""
    shutil.rmtree(scratch, ignore_errors=True)


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _finished(path: Path) -> dict[str, Tensor] | None:
    """A block's tensors, if its file is there and whole; says so where it is damaged."""
    seal = path.with_suffix(".json")
    if not path.is_file() or not seal.is_file():
        return None
    with suppress(UserError):
        if read_json(seal) == {"sha256": sha256(path)}:
            return load_tensors(path)
    print(f"{path}: damaged, made again", flush=True)
    return None


def _begun(marker: Path, key: Mapping[str, Any]) -> list[str] | None:
    """Digests of the older code that made the blocks beside a marker; None if they have another key."""
    found = read_json(marker) if marker.is_file() else {}
    codes = made_by(key, lambda one: _digest(one) == found.get("key"))
    return None if codes is None else [*found.get("continued", []), *codes]


def work(
    scratch: Path,
    key: Mapping[str, Any],
    blocks: list[range],
    make: Callable[[range], Mapping[str, Tensor]],
    found: Callable[[range], None] | None = None,
) -> dict[str, Tensor]:
    """Make the blocks that are not in `scratch` yet; returns all blocks' tensors joined along dimension 0.

    `key` holds everything that the rows depend on. Blocks with another key are deleted, unless only its `code` differs and is
    declared unchanged (directcm.runtime.unchanged). Damaged blocks are made again. `found` is called for blocks that were there.
    """
    marker = scratch / "key.json"
    begun = _begun(marker, key) if scratch.exists() else []
    if begun is None:
        shutil.rmtree(scratch)
    continued(str(scratch), begun or [])
    write_json(marker, {"key": _digest(key), **({"continued": begun} if begun else {})})
    parts: list[dict[str, Tensor]] = []
    for rows in blocks:
        path = scratch / f"block-{rows.start:08d}.safetensors"
        if (tensors := _finished(path)) is None:
            tensors = {k: v.detach().cpu() for k, v in make(rows).items()}
            save_tensors(path, tensors)
            write_json(path.with_suffix(".json"), {"sha256": sha256(path)})
        elif found is not None:
            found(rows)
        parts.append(tensors)
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
