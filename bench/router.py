"""A router that learns whom to ask: soft top-k beside hard, on the digits of scikit-learn.

Sixteen experts, of which each image asks two. The two ways differ in one line, `WAYS`: how the two are marked in
training. The test is the same for both: two experts and no more. There is neither a loss that balances the experts nor
noise on the scores, by which routers in use are kept from asking the same few.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import approxtopk as atk

__all__ = ["EXPERTS", "UNITS", "WAYS", "Experts", "run"]

EXPERTS, K, BATCH, TEST = 16, 2, 128, 500
UNITS = (2, 8)  # inside an expert
START, END = 2.0, 0.1  # the strength l: it falls during two thirds of the epochs

#: From scores, and the strength at this time, to a mask that sums to K.
WAYS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "soft": lambda scores, l: atk.soft_top_k_mask(scores, K, l=l),
    "hard": lambda scores, l: atk.hard_top_k_mask(scores, K),
}
#: The best learning rates of 0.003, 0.01, 0.03 and 0.1, by images held out of the training set, with seeds 100 to 102.
RATES = {"soft": 3e-2, "hard": 1e-2}


class Experts(nn.Module):
    """Small networks side by side, and a router that weights those it selects by the softmax of their scores."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.router = nn.Linear(64, EXPERTS)
        self.inside = nn.Linear(64, EXPERTS * units)
        self.outside = nn.Linear(EXPERTS * units, 10)

    def forward(self, x: Tensor, way: str, l: float) -> tuple[Tensor, Tensor]:
        scores = self.router(x)
        mask = WAYS[way](scores, l)
        weights = mask * scores.softmax(-1)
        weights = weights / weights.sum(-1, keepdim=True)
        hidden = self.inside(x).relu().unflatten(-1, (EXPERTS, -1))
        return self.outside((hidden * weights[..., None]).flatten(-2)), mask


def run(seed: int = 0, epochs: int = 30, seeds: int = 10, tell: Callable[[str], Any] = print) -> dict[str, Any]:
    """Train experts of each size both ways, from the same starts and on the same batches.

    Returns
    -------
    dict
        The settings, the seconds taken, and `results`: by size, way and seed `train`, the loss of each epoch; `loss`
        and `accuracy` on the test set; `share`, each expert's of the choices there; `idle`, how many nobody chose.
    """
    began, threads = time.perf_counter(), torch.get_num_threads()
    results: list[dict[str, Any]] = []
    tell(f"{EXPERTS} experts, {epochs} epochs, {seeds} seeds: means on the test set (least to most)")
    try:
        torch.set_num_threads(1)  # arrays are small
        for units in UNITS:
            for way in WAYS:
                some = _train(units, way, list(range(seed, seed + seeds)), epochs)
                cells = (f"{name} {_spread([one[name] for one in some])}" for name in ("loss", "accuracy", "idle"))
                tell(f"{units} units an expert, {way}:  " + "  ".join(cells))
                results += some
    finally:
        torch.set_num_threads(threads)
    settings = {"seed": seed, "seeds": seeds, "epochs": epochs, "experts": EXPERTS, "k": K, "l": [START, END]}
    return {**settings, "seconds": time.perf_counter() - began, "results": results}


def _spread(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _train(units: int, way: str, seeds: list[int], epochs: int) -> list[dict[str, Any]]:
    """Train a model for each seed: all at once, each on its own batches."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    models, orders = [], []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            train, test = torch.randperm(len(images)).tensor_split([-TEST])
            models.append(Experts(units))
            orders.append((test, [train[torch.randperm(len(train))] for _ in range(epochs)]))
    weights, _ = torch.func.stack_module_state(models)  # type: ignore[arg-type]
    optimiser, losses = torch.optim.Adam(weights.values(), lr=RATES[way]), []

    def measure(rows: Tensor, way: str, l: float) -> tuple[Tensor, Tensor, Tensor]:
        call = lambda w, x: torch.func.functional_call(models[0], w, (x, way, l))  # noqa: E731
        logits, masks = torch.vmap(call)(weights, images[rows])
        each = nn.functional.cross_entropy(logits.transpose(1, 2), labels[rows], reduction="none")
        return each.mean(1), logits, masks

    for epoch in range(epochs):
        l = START * (END / START) ** min(1.5 * epoch / epochs, 1)
        rows = torch.stack([batches[epoch] for _, batches in orders])
        for batch in rows.split(BATCH, dim=1):
            loss, *_ = measure(batch, way, l)
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
            losses.append(loss.detach() * batch.shape[1] / rows.shape[1])
    curve = torch.stack(losses).reshape(epochs, -1, len(seeds)).sum(1)
    with torch.no_grad():
        rows = torch.stack([test for test, _ in orders])
        loss, logits, masks = measure(rows, "hard", END)
    right, share = (logits.argmax(-1) == labels[rows]).float().mean(1), masks.mean(1) / K
    return [
        {"units": units, "way": way, "seed": seed, "train": curve[:, i].tolist(), "loss": loss[i].item(),
         "accuracy": right[i].item(), "share": share[i].tolist(), "idle": int((share[i] == 0).sum())}
        for i, seed in enumerate(seeds)
    ]  # fmt: skip
