"""The recording of the activation proof, packed into one file and read back.

    python -m bench.activation.data RAW

Packs what `record` and `score` left in RAW into tests/data/activation.npz. Keys: `prompts` and `prompt_lengths`; and for each LEVEL (an
engine's dtype) and set NAME (`base`, or LINEAGE@VERSION: who drew the answers) `LEVEL/NAME/` with `prompt`, `lengths` and `tokens` of the
answers, `engine`, and `exact/VERSION`, `rounded/VERSION` as `learner.gate.activation` names them; log-probs in nats, one a token.
"""

from __future__ import annotations

import json
import sys
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.activation.score import names
from learner.gate.activation import Probe

FILE = Path(__file__).resolve().parents[2] / "tests" / "data" / "activation.npz"
DECIMALS = 5
"""A float32 engine's own noise is a few 1e-5 nats."""
LEVELS = {"float32": "scores", "bfloat16": "rounded"}
"""The engine's dtype, and which of the learner's files is in its precision."""

Sets = dict[str, list[Probe]]


def pack(raw: Path, target: Path = FILE) -> None:
    """Writes the sets that are complete."""
    prompts: list[list[int]] = []
    arrays: dict[str, Any] = {}
    for level, precision in LEVELS.items():
        for name in names():
            files = [raw / level / f"{name}.{suffix}json" for suffix in ("", "scores.", f"{precision}.")]
            if all(path.exists() for path in files):
                arrays |= _set(f"{level}/{name}", prompts, *(json.loads(path.read_text()) for path in files))
    arrays["prompts"] = np.array([token for prompt in prompts for token in prompt], np.uint16)
    arrays["prompt_lengths"] = np.array([len(prompt) for prompt in prompts], np.uint16)
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, **arrays)


def _set(
    key: str, prompts: list[list[int]], answers: list[dict[str, Any]], exact: dict[str, Any], rounded: dict[str, Any]
) -> dict[str, Any]:
    answers = [answer for answer in answers if answer["answer"]]
    for answer in answers:
        if answer["prompt"] not in prompts:
            prompts.append(answer["prompt"])
    arrays = {
        f"{key}/prompt": np.array([prompts.index(a["prompt"]) for a in answers], np.uint8),
        f"{key}/lengths": np.array([len(a["answer"]) for a in answers], np.uint8),
        f"{key}/tokens": np.array([token for a in answers for token in a["answer"]], np.uint16),
        f"{key}/engine": _nats([value for a in answers for value in a["engine"]]),
    }
    both = sorted(exact.keys() & rounded.keys())
    arrays |= {f"{key}/exact/{version}": _nats(exact[version]) for version in both}
    return arrays | ({} if exact == rounded else {f"{key}/rounded/{version}": _nats(rounded[version]) for version in both})


def _nats(values: list[float]) -> Any:
    return np.round(np.array(values, np.float64), DECIMALS).astype(np.float32)


def load(path: Path = FILE) -> dict[str, Sets]:
    """The recorded probes by level and set."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    found: dict[str, Sets] = {level: {} for level in LEVELS}
    for key in arrays:
        if key.endswith("/lengths"):
            level, name, _ = key.split("/")
            found[level][name] = _probes(arrays, f"{level}/{name}")
    return found


def _probes(arrays: dict[str, Any], key: str) -> list[Probe]:
    ends = list(pairwise([0, *accumulate(int(n) for n in arrays[f"{key}/lengths"])]))

    def cut(values: Any) -> list[list[float]]:
        listed = values.tolist()
        return [listed[begin:end] for begin, end in ends]

    engine = cut(arrays[f"{key}/engine"])
    exact = {name.rpartition("/")[2]: cut(values) for name, values in arrays.items() if name.startswith(f"{key}/exact/")}
    rounded = {name.rpartition("/")[2]: cut(values) for name, values in arrays.items() if name.startswith(f"{key}/rounded/")} or exact
    return [
        Probe(answer, {name: rows[i] for name, rows in exact.items()}, {name: rows[i] for name, rows in rounded.items()})
        for i, answer in enumerate(engine)
    ]


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
    print(f"{FILE}: {FILE.stat().st_size / 2**20:.2f} MiB")
