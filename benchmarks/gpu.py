"""Everything about GPUs that has to be measured on one, in one command.

    python benchmarks/gpu.py --output outputs/gpu        # on the GPUs of this machine
    python benchmarks/gpu.py --device cpu --small        # the same checks on a CPU, at sizes for a test

Each check prints rows of one table, which is also written to the output folder as a CSV file and as JSON:

- golden: losses and gradients of the authors' implementation (tests/golden).
- families: loss and gradients of every family in float32, compared with a CPU's, and ten steps in bfloat16, compared
  with ten in float32.
- step: training steps compared with a plain ReLU autoencoder's and with the naive way (train_step.py).
- training: rows a second of MSAETrainer with the data in GPU memory and without, which give the same weights.
- extraction: time compared with that of decoding and the forward pass alone (extraction.py).
- search: building an index and searching it by example, compared with a CPU, with the same pictures found.
- processes: two processes on two GPUs train the model of one process with twice the batch.

A check that fails does not keep the others from running; the command then exits with status 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import train_step
from accelerate.utils import set_seed
from safetensors.torch import load_file

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae._utils.atomic import atomic_path, make_folder
from hf_msae._utils.json_files import write_json
from hf_msae.search import ConceptIndex

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
FAMILIES: dict[str, dict[str, Any]] = {
    "relu, nested top-k": {},
    "relu, nested top-k, reverse weights": {"nesting_weights": "reverse"},
    "relu": {"nesting": "none", "sparsity_coefficient": 0.01},
    "topk": {"nesting": "none", "activation": "topk", "k": 16},
    "batch_topk": {"nesting": "none", "activation": "batch_topk", "k": 16},
    "jump_relu": {"nesting": "none", "activation": "jump_relu", "sparsity_coefficient": 0.01},
    "prefix, batch_topk": {"nesting": "prefix", "activation": "batch_topk", "k": 16},
}


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, and whether it is within its limit (None: there is no limit)."""

    check: str
    what: str
    value: float
    limit: str = ""
    passed: bool | None = None


@dataclass(frozen=True)
class Setting:
    """Where the checks run, and how large they are."""

    device: torch.device
    folder: Path
    small: bool

    def size(self, full: int, small: int) -> int:
        """Return the size to use."""
        return small if self.small else full


def below(check: str, what: str, value: float, limit: float) -> Row:
    """Return a row for a figure that has to be below a limit."""
    return Row(check, what, value, f"< {limit:g}", bool(value < limit))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ||actual - expected|| / ||expected|| in float64."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    return float(torch.linalg.vector_norm(actual - expected) / torch.linalg.vector_norm(expected))


def gradients(model: MSAEModel, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of a batch and the gradient of every parameter."""
    loss = model(x, return_loss=True).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def golden(setting: Setting) -> Iterator[Row]:
    """Compare losses and gradients with those of the authors' implementation."""
    tensors = load_file(GOLDEN / "msae_small.safetensors")
    figures = json.loads((GOLDEN / "msae_small.json").read_text(encoding="utf-8"))
    for weights, prefix in (("uniform", "grad_uw"), ("reverse", "grad_rw")):
        model = MSAEModel(
            MSAEConfig(
                d_in=figures["d_in"], num_latents=figures["num_latents"], nesting_ks=figures["nesting_ks"],
                nesting_weights=weights, reconstruction_loss="nmse",
            )
        )  # fmt: skip
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors[f"weights.{name}"])
        model.set_input_statistics(tensors["mean"], figures["scaling_factor"])
        loss, found = gradients(model.to(setting.device), tensors["x_raw"].to(setting.device))
        error = relative_error(loss, torch.tensor(figures[f"loss_{weights}"]))
        yield below("golden", f"loss, {weights} weights", error, 1e-4)
        error = max(relative_error(found[name], tensors[f"{prefix}.{name}"]) for name in found)
        yield below("golden", f"gradients, {weights} weights", error, 1e-4)


def embeddings(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    """Return embeddings that few directions explain, so that ten steps lower the loss."""
    random = torch.Generator().manual_seed(seed)
    sources = torch.randn(rows, width // 8, generator=random).relu()
    return sources @ torch.randn(width // 8, width, generator=random) + 1.0


def trained(setting: Setting, data: torch.Tensor, steps: int, folder: str, **settings: Any) -> tuple[MSAEModel, Any]:
    """Train a model of the data, and return it and what `MSAETrainer.train` returned."""
    own = settings.pop("config", {})
    set_seed(0)
    model = MSAEModel(MSAEConfig(d_in=data.shape[1], num_latents=8 * data.shape[1], **own))
    arguments = MSAETrainingArguments(
        str(setting.folder / folder), overwrite_output_dir=True, max_steps=steps, learning_rate=1e-3, logging_steps=1,
        save_strategy="no", disable_tqdm=True, use_cpu=setting.device.type == "cpu", report_to=[], **settings,
    )  # fmt: skip
    trainer = MSAETrainer(model, arguments, data.numpy())
    result = trainer.train()
    return trainer.model, result


def families(setting: Setting) -> Iterator[Row]:
    """Compare every family with a CPU, and bfloat16 with float32."""
    width = setting.size(512, 64)
    data = embeddings(setting.size(8192, 512), width)
    for name, config in FAMILIES.items():
        found = []
        for device in ("cpu", setting.device):
            set_seed(0)
            model = MSAEModel(MSAEConfig(d_in=width, num_latents=8 * width, **config)).to(device)
            found.append(gradients(model, data[:256].to(device)))
        (loss, grads), (other_loss, other_grads) = found
        yield below("families", f"{name}: loss, compared with a CPU", relative_error(other_loss, loss), 1e-4)
        present = [key for key, grad in grads.items() if grad is not None and grad.abs().max() > 0]
        error = max(relative_error(other_grads[key], grads[key]) for key in present)
        yield below("families", f"{name}: gradients, compared with a CPU", error, 1e-3)
        last = {}
        for precision in ("no", "bf16"):
            batch = setting.size(1024, 64)
            _, result = trained(
                setting,
                data,
                10,
                "family",
                config=config,
                mixed_precision=precision,
                per_device_train_batch_size=batch,
            )
            losses = [record["loss"] for record in result.log_history if "loss" in record]
            last[precision] = losses[-1]
        yield below("families", f"{name}: 10th loss in bf16 / float32 - 1", abs(last["bf16"] / last["no"] - 1), 0.05)
        yield below("families", f"{name}: 10th loss in bf16 / first", losses[-1] / losses[0], 1.0)


def step(setting: Setting) -> Iterator[Row]:
    """Compare a training step with a plain one and with the naive way."""
    on_gpu = setting.device.type == "cuda"
    for shape in [(64, 32, 256)] if setting.small else train_step.SHAPES:
        for kind, positive in train_step.POSITIVE.items():
            for autocast in (False, True):
                model, x = train_step.build(shape, positive, setting.device.type)
                ways = train_step.steps(model, x, autocast)
                times = train_step.timed(ways, setting.size(9, 2), setting.device.type)
                median = {way: float(np.median(seconds)) for way, seconds in times.items()}
                case = f"{' x '.join(map(str, shape))}, {kind}, {'bf16' if autocast else 'float32'}"
                plain, naive = median["fused"] / median["plain"], median["naive"] / median["fused"]
                yield Row("step", f"{case}: step / plain", plain, *(("<= 1.5", plain <= 1.5) if on_gpu else ()))
                yield Row("step", f"{case}: naive / step", naive, *((">= 10", naive >= 10) if on_gpu else ()))
                yield Row("step", f"{case}: milliseconds", 1e3 * median["fused"])


def training(setting: Setting) -> Iterator[Row]:
    """Measure training with the data in GPU memory and without."""
    data, weights = embeddings(setting.size(200_000, 512), setting.size(768, 64)), {}
    for kept in (True, False):
        model, result = trained(
            setting, data, setting.size(200, 5), "training",
            keep_on_device=kept, per_device_train_batch_size=setting.size(4096, 64),
        )  # fmt: skip
        weights[kept] = model.encoder
        where = "data in GPU memory" if kept else "data in main memory"
        yield Row("training", f"{where}: rows a second", result.samples_per_second)
        yield Row("training", f"{where}: share of the time spent waiting for data", result.data_wait)
    yield below("training", "weights of the two, relative difference", relative_error(*weights.values()), 1e-3)


def extraction(setting: Setting) -> Iterator[Row]:
    """Compare extraction with decoding and the forward pass alone."""
    rows, batch = setting.size(4096, 8), setting.size(256, 4)
    workers = [] if setting.small else ["--num_workers", "0", "8"]
    flags = ["--device", setting.device.type, "--rows", str(rows), "--batch_size", str(batch), *workers]
    shown = run_python(ROOT / "benchmarks" / "extraction.py", *flags, "--rounds", str(setting.size(3, 1)))
    for workers, ratio in re.findall(r"extraction with (\d+) workers / bare work: ([\d.]+)", shown):
        yield Row("extraction", f"{workers} workers / bare work", float(ratio))


def search(setting: Setting) -> Iterator[Row]:
    """Compare building and searching an index with a CPU."""
    width = setting.size(768, 64)
    data = embeddings(setting.size(100_000, 512), width).numpy()
    model, found = MSAEModel(MSAEConfig(d_in=width, num_latents=8 * width)), {}
    model.set_input_statistics(torch.from_numpy(data.mean(axis=0)), 1.0)
    for device in dict.fromkeys(("cpu", setting.device.type)):
        with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
            start = time.perf_counter()
            index = ConceptIndex.build(folder, model.to(device), data, k=32, progress=False)
            yield Row("search", f"index, {device}: rows a second", len(data) / (time.perf_counter() - start))
            found[device] = np.stack([index.by_embedding(torch.from_numpy(row))["row"] for row in data[:20]])
    same = float(np.mean(found["cpu"] == found[setting.device.type]))
    yield Row("search", "share of the ten nearest that agree with the CPU's", same, ">= 0.99", same >= 0.99)


def processes(setting: Setting) -> Iterator[Row]:
    """Train on two GPUs, compared with one process and twice the batch."""
    devices = torch.cuda.device_count() if setting.device.type == "cuda" else 0
    if devices < 2:
        yield Row("processes", f"not run: needs 2 GPUs, and this machine has {devices}", float("nan"))
        return
    np.save(setting.folder / "rows.npy", embeddings(65_536, 512).numpy())
    flags = ["--train_data", setting.folder / "rows.npy", "--num_latents", 4096, "--max_steps", 50]
    flags += ["--learning_rate", 1e-3, "--save_strategy", "no", "--seed", 0, "--overwrite_output_dir"]
    launch = ["-m", "accelerate.commands.launch", "--num_processes"]
    weights, rate = {}, {}
    for count in (1, 2):
        folder = setting.folder / f"processes-{count}"
        several = ["--multi_gpu"] if count > 1 else []
        script = [ROOT / "training" / "train_msae.py", *flags, "--per_device_train_batch_size", 8192 // count]
        shown = run_python(*launch, count, *several, *script, "--output_dir", folder)
        if count == 2 and "on 2 x" not in shown:
            raise RuntimeError(f"the command did not train on two GPUs:\n{shown[-2000:]}")
        weights[count] = load_file(folder / "model.safetensors")["encoder"]
        log = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
        rate[count] = [json.loads(line) for line in log if "samples_per_second" in line][-1]["samples_per_second"]
    yield below("processes", "weights of two, relative difference to one's", relative_error(*weights.values()), 1e-2)
    yield Row("processes", "rows a second of two / of one", rate[2] / rate[1])


def run_python(*command: Any) -> str:
    """Run Python with these arguments, and return what it printed."""
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout + done.stderr


CHECKS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    each.__name__: each for each in (golden, families, step, training, extraction, search, processes)
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="Device to check: cuda, or cpu to try the script.")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS), help="Which checks to run.")
    parser.add_argument("--small", action="store_true", help="Use small sizes, which measure nothing.")
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu"), help="Folder for the table.")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"no device: torch {torch.__version__} sees no GPU here. --device cpu --small tries the script itself.")
        return 1
    torch.backends.cuda.matmul.allow_tf32 = False
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}")
    folder = make_folder(arguments.output)
    rows: list[Row] = []
    for check in arguments.checks:
        try:
            for row in CHECKS[check](Setting(device, folder, arguments.small)):
                rows.append(row)
                print(f"{row.check} | {row.what} | {row.value:.4g} | {row.limit} | {row.passed}", flush=True)
        except Exception:  # the other checks are still wanted; the status says that this one failed
            rows.append(Row(check, traceback.format_exc(limit=1).splitlines()[-1], float("nan"), passed=False))
            traceback.print_exc()
    table = pd.DataFrame(map(asdict, rows))
    with atomic_path(folder / "gpu.csv") as path:
        table.to_csv(path, index=False)
    records = json.loads(table.to_json(orient="records"))  # NaN becomes null
    write_json(folder / "gpu.json", {"device": name, "torch": torch.__version__, "rows": records})
    failed = table[table["passed"].eq(False)]
    print(f"\n{len(table)} figures, {len(failed)} outside their limits")
    return 1 if len(failed) else 0


if __name__ == "__main__":
    sys.exit(main())
