"""Blocks: how they are dealt out to shards, and that a killed run finds them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from directcm.errors import UserError
from directcm.runtime.blocks import block_ranges, work


@given(total=st.integers(1, 200), block=st.integers(1, 50), shards=st.integers(1, 12))
def test_shards_partition_the_rows_in_whole_blocks(total: int, block: int, shards: int) -> None:
    count = -(-total // block)
    if shards > count:
        with pytest.raises(UserError):
            block_ranges(total, block, 0, shards)
        return
    dealt = [block_ranges(total, block, s, shards) for s in range(shards)]
    assert [b for shard in dealt for b in shard] == block_ranges(total, block, 0, 1)
    assert [i for shard in dealt for b in shard for i in b] == list(range(total))
    sizes = [len(shard) for shard in dealt]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


@pytest.mark.parametrize(("shard", "shards"), [(2, 2), (-1, 2), (0, 5), (0, 0)])
def test_shards_that_are_not_there(shard: int, shards: int, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        block_ranges(40, 10, shard, shards)
    assert f"shard {shard} of {shards}" in one_line(error)


class Maker:
    def __init__(self, stop: int | None = None) -> None:
        self.made: list[int] = []
        self.stop = stop

    def __call__(self, rows: range) -> dict[str, torch.Tensor]:
        if rows.start == self.stop:
            raise KeyboardInterrupt
        self.made.append(rows.start)
        return {"i": torch.tensor(list(rows)), "x": torch.tensor(list(rows)).reshape(-1, 1) ** 0.5}


BLOCKS = block_ranges(10, 4, 0, 1)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = work(tmp_path / "whole", {"a": 1}, BLOCKS, Maker())
    assert whole["i"].tolist() == list(range(10))
    scratch = tmp_path / "scratch"
    with pytest.raises(KeyboardInterrupt):
        work(scratch, {"a": 1}, BLOCKS, Maker(stop=8))
    rest = Maker()
    resumed = work(scratch, {"a": 1}, BLOCKS, rest)
    assert rest.made == [8]
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    nothing = Maker()
    work(scratch, {"a": 1}, BLOCKS, nothing)
    assert nothing.made == []


def test_blocks_of_other_settings_are_thrown_away(tmp_path: Path) -> None:
    work(tmp_path / "s", {"a": 1, "b": 2.5}, BLOCKS, Maker())
    same, other = Maker(), Maker()
    work(tmp_path / "s", {"b": 2.5, "a": 1}, BLOCKS, same)
    work(tmp_path / "s", {"a": 2, "b": 2.5}, BLOCKS, other)
    assert same.made == [] and other.made == [0, 4, 8]


@pytest.mark.parametrize("damage", ["truncate", "flip", "no seal", "bad seal"])
def test_a_damaged_block_is_made_again(tmp_path: Path, damage: str) -> None:
    whole = work(tmp_path / "s", {}, BLOCKS, Maker())
    path = tmp_path / "s" / "block-00000004.safetensors"
    seal = path.with_suffix(".json")
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[:-5])
    elif damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "no seal":
        seal.unlink()
    else:
        seal.write_text("{")
    maker = Maker()
    again = work(tmp_path / "s", {}, BLOCKS, maker)
    assert maker.made == [4]
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def test_a_folder_without_a_key_is_not_trusted(tmp_path: Path) -> None:
    work(tmp_path / "s", {}, BLOCKS, Maker())
    (tmp_path / "s" / "key.json").unlink()
    maker = Maker()
    work(tmp_path / "s", {}, BLOCKS, maker)
    assert maker.made == [0, 4, 8]
