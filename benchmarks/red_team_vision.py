"""What a red team says of a small hyperspectral vision transformer that was trained on generated patches.

    python benchmarks/red_team_vision.py --seeds 0 1 2

The layout of the HYPERVIEW transformer with 2 layers of width 128 learns from 1,200 fields of up to 20 pixels, and is
red-teamed on 300 others of the same farms, once where nothing is planted and once where 6% of the fields have extreme
values of P that their spectra do not show. Beside it: ridge regression of the mean spectra, fitted to the same fields.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import r2_score
from torch import nn
from tqdm.auto import trange

from hf_msae.hyperspectral import (
    HYPERVIEW_SCALE,
    HyperviewTransformer,
    Patches,
    VisionRegressor,
    make_patches,
    red_team,
)
from hf_msae.hyperspectral.models import make_model

SIZE = 8


class Standardized(nn.Module):
    """A model of standardized bands; pixels outside of the field stay 0."""

    def __init__(self, model: nn.Module, images: torch.Tensor) -> None:
        super().__init__()
        pixels = images.movedim(1, -1)[images.amax(dim=1) > 0]
        self.model = model
        self.register_buffer("mean", pixels.mean(dim=0)[:, None, None])
        self.register_buffer("std", pixels.std(dim=0)[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the model does."""
        inside = images.amax(dim=1, keepdim=True) > 0
        return self.model((images - self.mean) / self.std * inside)


def trained(patches: Patches, epochs: int, seed: int) -> VisionRegressor:
    torch.manual_seed(seed)
    model = HyperviewTransformer(image_size=SIZE, patch_size=4, width=128, num_layers=2, embedding_size=64)
    images = VisionRegressor(model, image_size=SIZE).images(patches)
    targets = torch.tensor(patches.targets.to_numpy() / HYPERVIEW_SCALE, dtype=torch.float32)
    weights = 1 / targets.var(dim=0)
    model = Standardized(model, images).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    steps = epochs * (len(images) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    progress = trange(epochs, desc=f"seed {seed}", leave=False)
    for _ in progress:
        for rows in torch.randperm(len(images))[: steps // epochs * 32].split(32):
            batch = images[rows]
            batch = batch.flip(2) if torch.rand(()) < 0.5 else batch
            batch = batch.flip(3) if torch.rand(()) < 0.5 else batch
            loss = (((model(batch) - targets[rows]) ** 2) * weights).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return VisionRegressor(model.eval(), image_size=SIZE, target_scale=HYPERVIEW_SCALE, batch_size=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fields", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--spots", nargs="+", default=["none", "outliers"])
    args = parser.parse_args()
    rows = []
    for spot in args.spots:
        for seed in args.seeds:
            planted = [] if spot == "none" else [spot]
            both = make_patches(args.fields + 300, seed, blind_spots=planted, edges=(14, 20))
            train, test = both[: args.fields], both[args.fields :]
            started = time.process_time()
            model = trained(train, args.epochs, seed)
            seconds = time.process_time() - started
            ridge = make_model("ridge").fit(train.mean_spectra, train.targets)
            simple = r2_score(test.targets, ridge.predict(test.mean_spectra), multioutput="raw_values")
            audits = ["performance", "bands", "attacks"]
            report = red_team(model, test, audits=audits, num_attacked=30, seed=seed, progress=False)
            table = report.tables["performance"].set_index(["metric", "target"])["value"]
            attacks = report.tables["attacks"]
            loss = attacks[attacks["allowed"]].groupby("attack")["loss"].mean()
            rows.append(
                {
                    "seed": seed,
                    "planted": spot,
                    "R2": f"{table['r2', 'all']:.2f}",
                    "R2 of ridge": f"{np.mean(simple):.2f}",
                    "range ratio": f"{table['range_ratio'].mean():.2f}",
                    "response to outliers of P": f"{table['outlier_response', 'P']:.2f}",
                    "worst attack": f"{loss.idxmax()} ({loss.max():.2f})",
                    "findings": "; ".join(f"{each.severity}: {each.title}" for each in report.findings) or "none",
                    "seconds of training": f"{seconds:.0f}",
                }
            )
            print(" | ".join(rows[-1][key] if key != "seed" else str(seed) for key in rows[-1]), flush=True)
    frame = pd.DataFrame(rows)
    print("| " + " | ".join(frame.columns) + " |\n|" + "---|" * frame.shape[1])
    for row in frame.itertuples(index=False):
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
