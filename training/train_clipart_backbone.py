"""Train the small SigLIP of the clip art from scratch, on a CPU.

    python -m hf_msae.clipart.build
    python training/clipart_icons.py --output_dir outputs/icons
    python training/train_clipart_backbone.py --icons outputs/icons --output_dir outputs/clipart_siglip

Half of each batch are training drawings of the Open Clip Art Library, half are icons. Three losses are added: SigLIP's
pairwise sigmoid loss between pictures and captions, which are put together anew from title, tags and category each
time; the same loss between the pictures and single tags; and how far a linear map of the image embeddings is from the
features of an ImageNet network (see clipart_teacher.py). Pictures are turned, scaled, shifted and recolored, and only
a part of their patches is read until the last --decay_steps steps, in which the learning rate falls to zero.

A checkpoint is saved every --eval_steps steps, and the same command continues from it. The result is a folder in
transformers' format, with figures on authors that were not trained on in backbone_metrics.json and a model card.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from clipart_siglip import Pictures, evaluate_backbone, write_backbone_card
from clipart_teacher import principal_features, teacher_features
from datasets import load_from_disk
from small_siglip import Muon32, build_model, build_processor, is_matrix, sigmoid_loss, text_features
from torch.nn import functional as F
from tqdm import tqdm

from hf_msae._utils.json_files import write_json
from hf_msae.backbones import Backbone
from hf_msae.clipart import load_clipart

_MIN_TAG_COUNT = 5
_TAGS_OF_BATCH, _OTHER_TAGS = 64, 32
_TEACHER_WIDTH = 256


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--icons", type=Path, required=True, help="folder that clipart_icons.py wrote")
    parser.add_argument("--clipart", type=Path, help="folder of the drawings (default: where load_clipart looks)")
    parser.add_argument("--max_steps", type=int, default=5000, help="optimizer steps (default 5000)")
    parser.add_argument("--decay_steps", type=int, default=1500, help="last of them, with all patches (default 1500)")
    parser.add_argument("--batch_size", type=int, default=96, help="pictures a step (default 96)")
    parser.add_argument("--kept_patches", type=float, default=0.5, help="share of patches that is read (default 0.5)")
    parser.add_argument("--teacher_weight", type=float, default=10.0, help="of the third loss (default 10)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of AdamW (default 1e-3)")
    parser.add_argument("--matrix_learning_rate", type=float, default=1e-2, help="of Muon (default 1e-2)")
    parser.add_argument("--warmup_steps", type=int, default=100)
    parser.add_argument("--weight_decay", type=float, default=0.1)
    parser.add_argument("--eval_steps", type=int, default=100, help="evaluate and keep a checkpoint this often")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def caption(row: dict, random: np.random.Generator) -> str:
    """Put a caption together from some of what is known of a picture."""
    tags = list(row["tags"])
    random.shuffle(tags)
    kind = random.random()
    if kind < 0.35 or not tags:
        parts = [row["title"]]
    elif kind < 0.8:
        parts = [row["title"], *tags[: random.integers(1, 5)]]
    else:
        parts = tags[:4]
    if row["category"] and random.random() < 0.2:
        parts.append(row["category"])
    return ", ".join(parts)


def augment(pixels: torch.Tensor, may_flip: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn, scale, shift, mirror and recolor pictures on a white ground.

    Args:
        pixels: Values of 0 to 255 (batch, 3, height, width).
        may_flip: Which pictures may be mirrored (batch,).
        generator: Source of all randomness.

    Returns:
        Values of -1 to 1, of the same shape.
    """
    number = len(pixels)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(number, generator=generator) * (high - low) + low

    angle, scale, aspect = uniform(-0.25, 0.25), uniform(0.8, 1.35), uniform(0.85, 1.18)
    flip = torch.where((torch.rand(number, generator=generator) < 0.5) & may_flip, -1.0, 1.0)
    rows = [
        torch.stack([flip * scale * aspect * angle.cos(), -scale * angle.sin(), uniform(-0.18, 0.18)], -1),
        torch.stack([flip * scale * angle.sin(), scale / aspect * angle.cos(), uniform(-0.18, 0.18)], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), pixels.shape, align_corners=False)
    ink = F.grid_sample(1 - pixels / 255, grid, align_corners=False)
    gain = 1 + (torch.rand(number, 3, 1, 1, generator=generator) - 0.5) * 0.4
    changed = 1 - ink * gain * uniform(0.8, 1.2).view(-1, 1, 1, 1)
    is_gray = (torch.rand(number, 1, 1, 1, generator=generator) < 0.1).float()
    changed = changed * (1 - is_gray) + is_gray * changed.mean(1, keepdim=True)
    return changed.clamp(0, 1) * 2 - 1


def image_features(model, pixels: torch.Tensor, kept: float, generator: torch.Generator) -> torch.Tensor:
    """Return L2-normalized image embeddings from a random share of the patches."""
    vision = model.vision_model
    hidden = vision.embeddings(pixels)
    if kept < 1:
        number = round(kept * hidden.shape[1])
        chosen = torch.rand(hidden.shape[:2], generator=generator).argsort(1)[:, :number]
        hidden = hidden.gather(1, chosen[..., None].expand(-1, -1, hidden.shape[2]))
    hidden = vision.encoder(inputs_embeds=hidden).last_hidden_state
    return F.normalize(vision.head(vision.post_layernorm(hidden)), dim=-1)


def tag_matrix(rows: list[dict]) -> tuple[list[str], np.ndarray]:
    """Return the tags to train on, and which picture has which `(pictures, tags)`.

    A word of a title counts as a tag if some picture has that tag.
    """
    known = {tag for row in rows for tag in row["tags"]}
    tags_of = [
        {*row["tags"], *(word for word in (row["title"], *row["title"].split()) if word in known and len(word) > 2)}
        for row in rows
    ]
    counts = Counter(tag for tags in tags_of for tag in tags)
    tags = sorted(tag for tag, count in counts.items() if count >= _MIN_TAG_COUNT)
    return tags, np.array([[tag in own for tag in tags] for own in tags_of])


def rate(step: int, arguments: argparse.Namespace) -> float:
    """Return the factor of the learning rates: a warm-up, a constant, and a fall to zero."""
    left = (arguments.max_steps - step) / arguments.decay_steps
    return min(1.0, (step + 1) / arguments.warmup_steps) * min(1.0, max(0.0, left))


def main() -> None:
    arguments = parse_arguments()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    drawings = Pictures.of(load_clipart("train", arguments.clipart))
    icons = Pictures.of(load_from_disk(str(arguments.icons)))
    held_out = {split: Pictures.of(load_clipart(split, arguments.clipart)) for split in ("validation", "test")}
    rows, pixels = drawings.rows + icons.rows, np.concatenate([drawings.pixels, icons.pixels])
    features = teacher_features(pixels, arguments.output_dir / "teacher.npy")
    targets = principal_features(features, _TEACHER_WIDTH)
    # Drawings and icons get half of the batches each.
    share = np.repeat([0.5 / len(drawings.rows), 0.5 / len(icons.rows)], [len(drawings.rows), len(icons.rows)])
    words = [
        text for row in rows for text in (row["title"], ", ".join(row["tags"]), *row["tags"], row["category"]) if text
    ]
    processor = build_processor(words, vocab_size=2048, max_length=16)
    tokenizer = processor.tokenizer
    model = build_model(tokenizer, width=192, num_heads=6, vision_layers=6).train()
    tags, has_tag = tag_matrix(rows)
    has_side = [{"left", "right"} & set(" ".join([row["title"], *row["tags"]]).split()) for row in rows]
    may_flip = np.array([not sides for sides in has_side])

    # A picture has several tags, and a tag fits far more pictures than a caption: tags have their own scale and bias.
    calibration = torch.nn.ParameterList([torch.tensor(3.0), torch.tensor(-4.0)])
    to_teacher = torch.nn.Linear(model.config.vision_config.hidden_size, _TEACHER_WIDTH)
    named = list(model.named_parameters())
    optimizers = [
        Muon32(
            [p for n, p in named if is_matrix(n, p)],
            lr=arguments.matrix_learning_rate,
            weight_decay=arguments.weight_decay,
        ),
        torch.optim.AdamW(
            [
                {
                    "params": [
                        *(p for n, p in named if not is_matrix(n, p) and "logit_" not in n),
                        *to_teacher.parameters(),
                    ]
                },
                {"params": [*calibration, model.logit_scale, model.logit_bias], "lr": 10 * arguments.learning_rate},
            ],
            lr=arguments.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, arguments)) for optimizer in optimizers
    ]
    checkpoint, step, seconds = arguments.output_dir / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        calibration.load_state_dict(saved["calibration"])
        to_teacher.load_state_dict(saved["to_teacher"])
        for part, state in zip([*optimizers, *schedules], saved["optimization"], strict=True):
            part.load_state_dict(state)
        step, seconds = saved["step"], saved["seconds"]
        print(f"continuing from step {step}")

    bar = tqdm(total=arguments.max_steps, initial=step, desc="training", unit="step")
    begun = time.monotonic() - seconds
    while step < arguments.max_steps:
        random = np.random.default_rng([arguments.seed, step])
        generator = torch.Generator().manual_seed(arguments.seed * 1_000_003 + step)
        chosen = random.choice(len(rows), arguments.batch_size, replace=False, p=share)
        batch = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).float()
        batch = augment(batch, torch.from_numpy(may_flip[chosen]), generator)
        kept = arguments.kept_patches if step < arguments.max_steps - arguments.decay_steps else 1.0
        image = image_features(model, batch, kept, generator)
        captions = [caption(rows[i], random) for i in chosen]
        present = random.permutation(np.flatnonzero(has_tag[chosen].any(0)))[:_TAGS_OF_BATCH]
        asked = np.unique(np.concatenate([present, random.choice(len(tags), _OTHER_TAGS, replace=False)]))
        text = text_features(model, tokenizer, [*captions, *(tags[i] for i in asked)])
        # Several sets draw the same thing under the same title.
        titles = np.array([rows[i]["title"] for i in chosen])
        same = torch.from_numpy(titles[:, None] == titles[None])
        loss = sigmoid_loss(model, image, text[: len(chosen)], same)
        logits = image @ text[len(chosen) :].T * calibration[0].exp() + calibration[1]
        truth = torch.from_numpy(has_tag[chosen][:, asked]).float()
        loss = loss + F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / len(chosen)
        distance = 1 - F.cosine_similarity(to_teacher(image), targets[chosen]).mean()
        loss = loss + arguments.teacher_weight * distance
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        step += 1
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}", teacher=f"{1 - distance.item():.3f}")
        if step % arguments.eval_steps == 0 or step == arguments.max_steps:
            seconds = time.monotonic() - begun
            state = {"model": model.state_dict(), "calibration": calibration.state_dict(), "step": step}
            state |= {
                "to_teacher": to_teacher.state_dict(),
                "optimization": [part.state_dict() for part in (*optimizers, *schedules)],
                "seconds": seconds,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
            figures = evaluate_backbone(Backbone(model, processor), held_out["validation"], min_count=5)
            model.train()
            tqdm.write(
                f"step {step}: loss {loss.item():.3f}, tags of unseen authors: AUROC {figures['tag_auroc']:.3f}"
            )
    bar.close()

    # Half precision halves what is shipped; the figures are those of the rounded weights.
    model = model.eval().half().float()
    metrics = evaluate_backbone(Backbone(model, processor), held_out["test"])
    metrics["training"] = {
        **{key: value for key, value in vars(arguments).items() if isinstance(value, int | float)},
        "drawings": len(drawings.rows),
        "icons": len(icons.rows),
        "minutes": round(seconds / 60, 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    model.half().save_pretrained(arguments.output_dir)
    processor.save_pretrained(arguments.output_dir)
    write_json(arguments.output_dir / "backbone_metrics.json", metrics)
    write_backbone_card(arguments.output_dir, metrics)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
