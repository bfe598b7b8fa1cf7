"""Train the small SigLIP of the scenes from scratch, on a CPU (36 minutes on two cores).

Pairs of image and caption are trained with SigLIP's pairwise sigmoid loss. Two more terms use the ground truth of the
scenes; without them, attributes that captions seldom need, such as shape, are learned much later. Every batch also
gets a short prompt for each concept ("a striped shape"), labeled for every image, and a linear head predicts the
concepts from the image embeddings. The head is not kept. The image tower takes longest to learn shape, and the text
tower is as expensive, so the first --vision_steps steps train the image tower alone, with the head.

Images are rendered once into OUTPUT_DIR/pictures.npy; captions are rewritten each time an image is used. A checkpoint
is saved every --eval_steps steps, and the same command continues from it. The result is a folder in transformers'
format with the measured accuracy in backbone_metrics.json and a model card in README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scenes_siglip import (
    MAX_LENGTH,
    WIDTH,
    build_model,
    build_processor,
    concept_prompts,
    evaluate_backbone,
    pixels_from_arrays,
    write_backbone_card,
)
from small_siglip import is_matrix, sigmoid_loss
from torch.nn import functional as F
from tqdm import tqdm

from hf_msae._utils.json_files import write_json
from hf_msae.backbones import Backbone
from hf_msae.scenes import CONCEPTS, IMAGE_SIZE, caption_scene, render_array, sample_scene
from hf_msae.scenes.world import GROUP_OF


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--num_scenes", type=int, default=40_000, help="training pictures (default 40000)")
    parser.add_argument("--max_steps", type=int, default=10_000, help="optimiser steps (default 10000)")
    parser.add_argument("--vision_steps", type=int, default=8000, help="first of them without text (default 8000)")
    parser.add_argument("--batch_size", type=int, default=96, help="pairs a step (default 96)")
    parser.add_argument("--vision_batch_size", type=int, default=48, help="pictures a step without text (default 48)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of AdamW (default 1e-3)")
    parser.add_argument("--matrix_learning_rate", type=float, default=4e-3, help="of Muon (default 4e-3)")
    parser.add_argument("--warmup_steps", type=int, default=150)
    parser.add_argument("--weight_decay", type=float, default=0.02)
    parser.add_argument("--eval_steps", type=int, default=200, help="evaluate and keep a checkpoint this often")
    parser.add_argument("--num_eval_scenes", type=int, default=3000, help="test scenes of the final figures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_workers", "--num_proc", type=int, default=2, help="processes that render")
    return parser.parse_args()


# Weights of the concepts that the image tower learns last.
_EMPHASIS = {"shape": 4.0, "fill": 2.0, "style": 2.0}


def _render_range(job: tuple[int, int, int, str]) -> int:
    seed, start, stop, path = job
    pictures = np.load(path, mmap_mode="r+")
    for index in range(start, stop):
        pictures[index] = render_array(sample_scene("train", seed, index))
    return stop - start


def render_pictures(path: Path, number: int, seed: int, num_proc: int) -> np.ndarray:
    """Return all training images from one memory-mapped uint8 file, which is rendered if it does not exist."""
    if not path.exists():
        unfinished = path.with_name("unfinished-" + path.name)
        shape = (number, IMAGE_SIZE, IMAGE_SIZE, 3)
        np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape).flush()
        jobs = [(seed, start, min(start + 500, number), str(unfinished)) for start in range(0, number, 500)]
        with get_context("spawn").Pool(num_proc) as pool, tqdm(total=number, desc="rendering", unit="img") as bar:
            for done in pool.imap_unordered(_render_range, jobs):
                bar.update(done)
        os.replace(unfinished, path)
    pictures = np.load(path, mmap_mode="r")
    if len(pictures) != number:
        raise SystemExit(f"{path} holds {len(pictures)} pictures, not {number}: delete it or pass --num_scenes")
    return pictures


def concept_logits(calibration, image: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """Return how well concept prompts match images: (batch, concepts)."""
    similarity = F.normalize(image, dim=-1) @ F.normalize(prompts, dim=-1).T
    return similarity * calibration[0].exp() + calibration[1]


def concept_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the sigmoid loss for labels `truth` (batch, concepts), with more weight on difficult groups."""
    emphasis = torch.tensor([_EMPHASIS.get(GROUP_OF[concept], 1.0) for concept in CONCEPTS])
    return F.binary_cross_entropy_with_logits(logits, truth, emphasis, reduction="sum") / len(logits)


def build_optimizers(model, calibration, head, arguments: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Make Muon for the weight matrices of both towers, for which it needs fewer steps, and AdamW for the rest."""
    matrices = {n for n, p in model.named_parameters() if is_matrix(n, p)}
    named = list(model.named_parameters())
    muon = torch.optim.Muon(
        [p for n, p in named if n in matrices],
        lr=arguments.matrix_learning_rate,
        weight_decay=arguments.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(
        [
            {"params": [*(p for n, p in named if n not in matrices), *head.parameters()]},
            {"params": list(calibration), "lr": 10 * arguments.learning_rate},
        ],
        lr=arguments.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    return [muon, adam]


def learning_rate_factor(step: int, arguments: argparse.Namespace) -> float:
    """Return a constant while the image tower is trained alone, then a cosine to 0, each after a warmup."""
    step_of_part = step if step < arguments.vision_steps else step - arguments.vision_steps
    warm = min(1.0, (step_of_part + 1) / arguments.warmup_steps)
    progress = (step - arguments.vision_steps) / max(1, arguments.max_steps - arguments.vision_steps)
    return float(warm * 0.5 * (1 + np.cos(np.pi * min(max(progress, 0.0), 1.0))))


def main() -> None:
    arguments = parse_arguments()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    pictures = render_pictures(
        arguments.output_dir / "pictures.npy", arguments.num_scenes, arguments.seed, arguments.num_workers
    )
    scenes = [sample_scene("train", arguments.seed, i) for i in tqdm(range(arguments.num_scenes), desc="scenes")]
    truth = torch.tensor([[concept in scene.concepts for concept in CONCEPTS] for scene in scenes]).float()
    processor = build_processor(arguments.seed)
    tokenizer = processor.tokenizer
    model = build_model(tokenizer).train()
    # An image has ten concepts, so its cosine with each is at most about 1 / sqrt(10), and a concept matches far more
    # images than a caption does: concepts have their own scale and bias, which are not kept.
    calibration = torch.nn.ParameterList([torch.tensor(3.0), torch.tensor(-3.0)])
    head = torch.nn.Linear(WIDTH, len(CONCEPTS))
    optimizers = build_optimizers(model, calibration, head, arguments)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, arguments))
        for optimizer in optimizers
    ]

    checkpoint, step, seconds = arguments.output_dir / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        calibration.load_state_dict(saved["calibration"])
        head.load_state_dict(saved["head"])
        for part, state in zip([*optimizers, *schedules], saved["optimization"], strict=True):
            part.load_state_dict(state)
        step, seconds = saved["step"], saved["seconds"]
        print(f"continuing from step {step}")

    bar = tqdm(total=arguments.max_steps, initial=step, desc="training", unit="step")
    begun = time.monotonic() - seconds
    while step < arguments.max_steps:
        with_text = step >= arguments.vision_steps
        random = np.random.default_rng([arguments.seed, step])
        batch_size = arguments.batch_size if with_text else arguments.vision_batch_size
        chosen = np.sort(random.choice(arguments.num_scenes, batch_size, replace=False))
        # A shift of a few pixels, the same for the whole batch, reduces overfitting.
        shift = tuple(random.integers(-3, 4, 2))
        pixels = torch.roll(pixels_from_arrays(pictures[chosen]), shift, (2, 3))
        image = model.get_image_features(pixel_values=pixels).pooler_output
        loss = concept_loss(head(image), truth[chosen])
        if with_text:
            texts = [caption_scene(scenes[i], random) for i in chosen] + concept_prompts(random)
            ids = tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_LENGTH)["input_ids"]
            text = model.get_text_features(input_ids=torch.tensor(ids)).pooler_output
            captions, prompts = text[: len(chosen)], text[len(chosen) :]
            loss = loss + sigmoid_loss(model, F.normalize(image, dim=-1), F.normalize(captions, dim=-1))
            loss = loss + concept_loss(concept_logits(calibration, image, prompts), truth[chosen])
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        step += 1
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (
            step % (arguments.eval_steps if with_text else 5 * arguments.eval_steps) == 0
            or step == arguments.max_steps
        ):
            seconds = time.monotonic() - begun
            state = {"model": model.state_dict(), "step": step, "seconds": seconds}
            state["optimization"] = [part.state_dict() for part in (*optimizers, *schedules)]
            state |= {"calibration": calibration.state_dict(), "head": head.state_dict()}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
            if not with_text:
                tqdm.write(f"step {step}: loss {loss.item():.3f}, the image tower alone")
                continue
            figures = evaluate_backbone(Backbone(model, processor), num_scenes=600, seed=1)
            model.train()
            zero_shot = ", ".join(f"{name} {value:.2f}" for name, value in figures["zero_shot_accuracy"].items())
            retrieval = figures["image_to_caption_top1_of_100"]
            tqdm.write(f"step {step}: loss {loss.item():.3f}, retrieval {retrieval:.2f}, {zero_shot}")
    bar.close()

    # Half precision halves what is shipped; the figures are those of the rounded weights.
    model = model.eval().half().float()
    metrics = evaluate_backbone(Backbone(model, processor), arguments.num_eval_scenes)
    metrics["training"] = {
        **{key: value for key, value in vars(arguments).items() if isinstance(value, int | float)},
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
