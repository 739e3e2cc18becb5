"""The teacher's distribution along fixed texts on disk: its likeliest ids per token, or ids drawn from it.

Shards are safetensors files, each complete or absent, which runs and processes share; rows are read from them in place.
Keyed by teacher, tokenizer, text and settings. Only texts that are known beforehand can be looked up.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .. import distributed
from ..config import ConfigError, DistillConfig
from ..maths.lm_head import slices
from ..models.tokenizers import num_token_ids
from ..parquet_shards import ABANDONED_SECONDS
from ..teachers import Teacher
from .examples import Example
from .student import SoftTargets

TEXTS_PER_SHARD = 256
LOGITS_PER_CHUNK = 2**22


class CachedRow(NamedTuple):
    """Of one text's N completion tokens: K ids each, with their log-probabilities (N x K) or, where the ids were drawn,
    the entropy of the distribution (N)."""

    ids_NK: Tensor
    values: Tensor


class CacheShards:
    """Rows by key in a folder that several processes and runs read and write at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._places: dict[str, tuple[Path, int, int]] = {}
        self._opened: dict[Path, Any] = {}
        for leftover in folder.glob(".writing-*"):  # of a process that died
            if time.time() - leftover.stat().st_mtime > ABANDONED_SECONDS:
                leftover.unlink(missing_ok=True)

    def look(self) -> None:
        """Finds shards that were written since; one that is torn is left out, so that its rows are made anew."""
        known = {path for path, _, _ in self._places.values()}
        for path in sorted(set(self.folder.glob("[0-9]*.safetensors")) - known):
            try:
                opened = safe_open(path, "pt")
            except (SafetensorError, OSError):
                continue
            self._opened[path] = opened
            index = json.loads(opened.metadata()["index"])
            start = 0
            for key, size in index:
                self._places[key] = (path, start, start + size)
                start += size

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> CachedRow:
        """The row of a key that is there; KeyError for another."""
        path, start, end = self._places[key]
        opened = self._opened[path]
        ids, values = (opened.get_slice(name)[start:end] for name in ("ids", "values"))
        return CachedRow(ids.long(), values)

    def put(self, keys: Sequence[str], rows: Sequence[CachedRow]) -> None:
        """Writes the rows as one new shard: visible whole after this returns, or, after a crash, not at all."""
        index = json.dumps([(key, len(row.ids_NK)) for key, row in zip(keys, rows, strict=True)])
        tensors = {
            "ids": torch.cat([row.ids_NK for row in rows]).int().cpu().contiguous(),
            "values": torch.cat([row.values for row in rows]).float().cpu().contiguous(),
        }
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.safetensors"
        temporary = self.folder / f".writing-{name}"
        save_file(tensors, temporary, metadata={"index": index})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


class TeacherCache:
    """The soft targets of a stage's fixed texts. `fill` asks the teacher for those that are not there yet."""

    def __init__(self, folder: Path, teacher: Teacher, tokenizer: Any, settings: DistillConfig) -> None:
        self.shards, self.teacher, self.settings = CacheShards(folder), teacher, settings
        self.num_vocab = num_token_ids(tokenizer)
        self.num_ids = min(settings.top_k, self.num_vocab) if settings.cache == "top_k" else settings.top_k
        words = json.dumps(sorted(tokenizer.get_vocab().items()))
        made_from = [teacher.fingerprint, words, settings.cache, self.num_ids, settings.temperature.start]
        self._prefix = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()

    def key(self, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> str:
        text = json.dumps([self._prefix, list(prompt_ids), list(completion_ids)])
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def fill(self, examples: Sequence[Example]) -> None:
        """Scores what is missing, by all processes together. ConfigError, before the teacher works, without room."""
        self.shards.look()
        keyed = {self.key(e.prompt_ids, e.completion_ids): e for e in examples}
        missing = distributed.from_main([key for key in keyed if key not in self.shards])
        self._check_room(sum(len(keyed[key].completion_ids) for key in missing))
        for start in range(0, len(missing), TEXTS_PER_SHARD * distributed.world_size()):
            group = missing[start : start + TEXTS_PER_SHARD * distributed.world_size()]
            mine = group[distributed.rank() :: distributed.world_size()] or group[:1]  # all ask a teacher together
            self.shards.put(mine, self._rows(mine, [keyed[key] for key in mine]))
        distributed.barrier()
        self.shards.look()

    def _check_room(self, num_tokens: int) -> None:
        needed = num_tokens * bytes_per_token(self.settings.cache, self.num_ids)
        free = shutil.disk_usage(self.shards.folder).free
        if needed > free:
            raise ConfigError(
                f"distill.cache: {num_tokens:,} tokens with {self.num_ids} ids each need {needed / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} are free in {str(self.shards.folder)!r}: lower distill.top_k, or set cache_dir"
            )

    def _rows(self, keys: Sequence[str], examples: Sequence[Example]) -> list[CachedRow]:
        prompts, completions = [e.prompt_ids for e in examples], [e.completion_ids for e in examples]
        tasks, temperature = [e.task for e in examples], self.settings.temperature.start
        sizes = [len(ids) for ids in completions]
        if self.settings.cache == "top_k":
            scores = self.teacher.score(prompts, completions, tasks=tasks, temperature=temperature, top_k=self.num_ids)
            assert scores.top_ids_NK is not None, "asked for"
            assert scores.top_logprobs_NK is not None, "asked for"
            return list(map(CachedRow, scores.top_ids_NK.split(sizes), scores.top_logprobs_NK.split(sizes)))
        hidden_NE = self.teacher.score(prompts, completions, tasks=tasks, temperature=temperature).hidden_NE
        head_VE = self.teacher.lm_head_weight_VE
        assert isinstance(head_VE, Tensor), "check_distillation refuses teachers without a whole distribution"
        drawn = zip(keys, hidden_NE.split(sizes), strict=True)
        return [draw(states, head_VE[: self.num_vocab], temperature, self.num_ids, key) for key, states in drawn]

    def targets(self, prompt_ids: Iterable[Sequence[int]], completion_ids: Iterable[Sequence[int]]) -> SoftTargets:
        """The soft targets of rows that were filled, in their order, on this process's device."""
        rows = [self.shards.get(self.key(*ids)) for ids in zip(prompt_ids, completion_ids, strict=True)]
        ids, values = (torch.cat(parts).to(distributed.device()) for parts in zip(*rows, strict=True))
        if self.settings.cache == "top_k":
            return SoftTargets(top_ids_NK=ids, top_logprobs_NK=values)
        return SoftTargets(sampled_ids_NS=ids, entropy_N=values)


@torch.no_grad()
def draw(hidden_NE: Tensor, head_VE: Tensor, temperature: float, num_ids: int, seed: str) -> CachedRow:
    """`num_ids` ids per token drawn with replacement from the teacher's distribution, and its entropy; the draws follow
    from `seed` (hexadecimal) alone."""
    generator = torch.Generator(hidden_NE.device).manual_seed(int(seed[:15], 16))
    ids, entropies = [], []
    for chunk in slices(len(hidden_NE), max(1, LOGITS_PER_CHUNK // len(head_VE))):
        logits_nV = torch.nn.functional.linear(hidden_NE[chunk], head_VE).float() / temperature
        logq_nV = logits_nV.log_softmax(-1)
        ids.append(torch.multinomial(logq_nV.exp(), num_ids, replacement=True, generator=generator))
        entropies.append(torch.special.entr(logq_nV.exp()).sum(-1))
    return CachedRow(torch.cat(ids), torch.cat(entropies))


def bytes_per_token(cache: str, num_ids: int) -> int:
    """On disk: 4 for an id and 4 for its log-probability, or ids and one entropy where they were drawn."""
    return 8 * num_ids if cache == "top_k" else 4 * num_ids + 4
