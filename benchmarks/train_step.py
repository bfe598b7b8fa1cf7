"""What a training step costs compared with a plain ReLU autoencoder's: forward pass, backward pass and Adam.

    python benchmarks/train_step.py                       # two shapes, fresh and trained, float32
    python benchmarks/train_step.py --autocast            # the same in bfloat16
    python benchmarks/train_step.py --only fused --autocast --processor_time     # without the slow ones

Four implementations train the same dictionary on the same batch and take turns:

- plain: a ReLU code, one decode and the mean squared error, with autograd.
- fused: MSAEModel as `MSAETrainer` uses it on a CPU (`hf_msae/model/fused_nested_loss.py`). On a GPU it equals eager.
- eager: MSAEModel with the fused computation switched off.
- naive: one `topk` and one dense decode for each level, as in the authors' published code.

In a "fresh" model about half of the entries of the code are positive, as at initialization. In a "trained" one it is a
fifth. All four compute gradients of the same parameters and step the same optimizer. What a trainer does besides
(normalizing the decoder's rows) is left out.

On a processor without instructions for bfloat16, `--autocast` takes minutes: plain and naive multiply in bfloat16 all
the same, thirty to forty times slower than in float32, which MSAEModel takes instead.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.model.fused_nested_loss import nested_loss_implementation

SHAPES = ((1024, 512, 4096), (4096, 768, 6144))
POSITIVE = {"fresh": 0.5, "trained": 0.2}
WAYS = ("plain", "fused", "eager", "naive")


def build(shape: tuple[int, int, int], positive: float, device: str) -> tuple[MSAEModel, torch.Tensor]:
    """A model and a batch for which the given share of the entries of the code is positive."""
    batch, d, n = shape
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=d, num_latents=n)).to(device)
    x = torch.randn(batch, d, device=device)
    with torch.no_grad():
        model.encoder.copy_(F.normalize(torch.randn(d, n, device=device), dim=0))  # activations have unit variance
        model.latent_bias.fill_(-torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - positive)).item())
    return model, x


def steps(model: MSAEModel, x: torch.Tensor, autocast: bool) -> dict[str, Callable[[], None]]:
    """A whole training step of each implementation, as a function."""
    config, weights = model.config, model.config.level_weights

    def plain() -> torch.Tensor:
        code = F.relu(torch.addmm(model.latent_bias, x - model.pre_bias, model.encoder))
        return F.mse_loss((code @ model.decoder + model.pre_bias).float(), x)

    def naive() -> torch.Tensor:
        code = F.relu(torch.addmm(model.latent_bias, x - model.pre_bias, model.encoder))
        total = 0.0
        for k, weight in zip(config.nesting_ks, weights, strict=True):
            top = code.topk(k, dim=-1)
            level = torch.zeros_like(code).scatter_(-1, top.indices, top.values)
            total = total + weight * F.mse_loss((level @ model.decoder + model.pre_bias).float(), x)
        return total / sum(weights)

    def fused() -> torch.Tensor:
        with nested_loss_implementation("auto"):
            return model(x, return_loss=True, loss_only=True).loss

    def eager() -> torch.Tensor:
        with nested_loss_implementation("eager"):
            return model(x, return_loss=True, loss_only=True).loss

    def step(loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        # A learning rate of 0 costs as much as any other and leaves the share of positive entries unchanged.
        optimizer = torch.optim.Adam(model.parameters(), lr=0.0, foreach=True)

        def run() -> None:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
                value = loss()
            value.backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    return {name: step(function) for name, function in zip(WAYS, (plain, fused, eager, naive), strict=True)}


def products(model: MSAEModel, x: torch.Tensor, autocast: bool) -> Callable[[], None]:
    """The five matrix products of a plain step, written to preallocated memory."""
    dtype = torch.bfloat16 if autocast else torch.float32
    rows, encoder, decoder = (t.detach().to(dtype) for t in (x, model.encoder, model.decoder))
    code, out = rows @ encoder, torch.empty_like(rows)
    grad_encoder, grad_decoder = torch.empty_like(encoder), torch.empty_like(decoder)

    def run() -> None:
        torch.mm(rows, encoder, out=code)
        torch.mm(code, decoder, out=out)
        torch.mm(rows, decoder.T, out=code)
        torch.mm(code.T, rows, out=grad_decoder)
        torch.mm(rows.T, code, out=grad_encoder)

    return run


def timed(
    functions: dict[str, Callable[[], None]], rounds: int, device: str, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds per call. The functions take turns, so that a busy spell of the machine slows all of them."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = {name: [] for name in functions}
    for turn in range(rounds + 2):  # two to warm up
        for name, function in functions.items():
            wait()
            start = clock()
            function()
            wait()
            if turn > 1:
                times[name].append(clock() - start)
    return times


def peak_memory(way: str, arguments: argparse.Namespace, shape: tuple[int, int, int], kind: str) -> float:
    """MB that a step adds to what its process held before. Each implementation gets its own process."""
    command = [sys.executable, __file__, "--memory_of", way, "--shape", *map(str, shape), "--kind", kind]
    command += ["--autocast"] * arguments.autocast + ["--device", arguments.device]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def resident(what: str) -> float:
    """MB that this process holds now (VmRSS) or has held at most (VmHWM)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(what)) / 1e3


def print_peak_memory(arguments: argparse.Namespace) -> None:
    model, x = build(tuple(arguments.shape), POSITIVE[arguments.kind[0]], arguments.device)
    run = steps(model, x, arguments.autocast)[arguments.memory_of]
    if arguments.device == "cuda":
        run()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        print((torch.cuda.max_memory_allocated() - before) / 1e6)
        return
    before = resident("VmRSS")
    for _ in range(3):
        run()
    print(resident("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="Number of times that each step is timed.")
    parser.add_argument(
        "--shape", type=int, nargs=3, metavar=("B", "d", "n"),
        help="Batch size, width and number of latents to measure instead of the two default shapes.",
    )  # fmt: skip
    parser.add_argument("--kind", nargs="+", choices=POSITIVE, default=list(POSITIVE), help="Models to measure.")
    parser.add_argument(
        "--only", nargs="+", choices=WAYS, default=WAYS, help="Implementations to measure beside plain."
    )
    parser.add_argument(
        "--processor_time", action="store_true",
        help="Measure the processor time of all threads, which other work on the machine changes little.",
    )  # fmt: skip
    parser.add_argument("--autocast", action="store_true", help="Compute under bfloat16 autocast.")
    parser.add_argument("--device", default="cpu", help="Device to train on: cpu or cuda.")
    parser.add_argument("--no_memory", action="store_true", help="Do not measure peak memory.")
    parser.add_argument("--memory_of", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        return print_peak_memory(arguments)

    device = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    clock = time.process_time if arguments.processor_time else time.perf_counter
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {device}, median of {arguments.rounds}")
    print(f"{'bfloat16 autocast' if arguments.autocast else 'float32'}; ratios to plain: median (lowest to highest)\n")
    print(
        "| B, d, n | model | implementation | step time (ms) | step time / plain step time "
        "| step time / time of 5 matrix products | speedup over naive | peak memory added (MB) |"
    )
    print("|---|---|---|---:|---|---:|---:|---:|")
    for shape in [tuple(arguments.shape)] if arguments.shape else SHAPES:
        for kind in arguments.kind:
            model, x = build(shape, POSITIVE[kind], arguments.device)
            all_steps = steps(model, x, arguments.autocast)
            functions = {"products": products(model, x, arguments.autocast)}
            functions |= {way: all_steps[way] for way in WAYS if way in ("plain", *arguments.only)}
            times = timed(functions, arguments.rounds, arguments.device, clock)
            medians = {name: statistics.median(values) for name, values in times.items()}
            for way in list(functions)[1:]:
                ratios = sorted(a / b for a, b in zip(times[way], times["plain"], strict=True))
                speedup = f"{medians['naive'] / medians[way]:.2f}" if "naive" in medians else ""
                memory = "" if arguments.no_memory else f"{peak_memory(way, arguments, shape, kind):.0f}"
                print(
                    f"| {', '.join(map(str, shape))} | {kind} | {way} | {1e3 * medians[way]:.0f} "
                    f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) "
                    f"| {medians[way] / medians['products']:.2f} | {speedup} | {memory} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
