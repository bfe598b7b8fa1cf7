"""Writes the checkpoints in this folder, with inputs and what overcomplete computes from them, by overcomplete itself.

Run with overcomplete 0.3.0 (torch 2.13.0): `python write_overcomplete.py`. overcomplete is imported without its own
__init__, which wants timm and torchvision for image encoders.
"""

import importlib.util
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
D, N, ROWS, K = 8, 24, 16, 4

ROOT = importlib.util.find_spec("overcomplete").submodule_search_locations[0]
sys.modules["overcomplete"] = types.ModuleType("overcomplete")
sys.modules["overcomplete"].__path__ = [ROOT]

from overcomplete.sae import QSAE, SAE, BatchTopKSAE, JumpSAE, MpSAE, RATopKSAE, TopKSAE  # noqa: E402


def plain(sae):
    """What the converter's error tells people to save."""
    extras = {name: getattr(sae, name, None) for name in ("top_k", "running_threshold")}
    return {
        "class": type(sae).__name__, "state_dict": sae.state_dict(),
        "dictionary": sae.get_dictionary().detach(), **extras,
    }  # fmt: skip


def write(name, make, form="state_dict", trained=True):
    torch.manual_seed(sum(name.encode()))
    sae = make()
    x = 2 * torch.randn(ROWS, D) + 1
    if trained:  # statistics of BatchNorm and BatchTopKSAE are made in training mode
        sae.train()
        optimizer = torch.optim.Adam(sae.parameters(), lr=1e-2)
        for _ in range(20):
            loss = (sae(x)[-1] - x).square().mean() + 1e-3 * sae.encode(x)[1].abs().sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    in_training = sae.state_dict() if form == "before_eval" else None
    if in_training is not None:
        in_training = {key: tensor.clone() for key, tensor in in_training.items()}
    sae.eval()
    content = {"state_dict": sae.state_dict, "plain": lambda: plain(sae), "module": lambda: sae}
    torch.save(in_training if in_training is not None else content[form](), folder / "sae.pt")
    with torch.no_grad():
        code = sae.encode(x)[1]
        expected = {"inputs": x, "code": code, "reconstruction": sae.decode(code)}
    active = (code > 0).float().mean()
    assert 0.02 < active, (name, active)
    save_file({key: tensor.contiguous() for key, tensor in expected.items()}, folder / "expected.safetensors")
    print(f"{name}: {active:.2f} of the code is above 0")


if __name__ == "__main__":
    write("relu", lambda: SAE(D, N))
    write("top_k", lambda: TopKSAE(D, N, top_k=K))
    write("top_k_saved_in_training", lambda: TopKSAE(D, N, top_k=K), form="before_eval")
    write("top_k_multiplied", lambda: TopKSAE(D, N, top_k=K, dictionary_params={"use_multiplier": True}))
    identity = {"normalization": "identity"}
    write("top_k_not_normalised", lambda: TopKSAE(D, N, top_k=K, dictionary_params=identity))
    write("top_k_not_normalised_plain", lambda: TopKSAE(D, N, top_k=K, dictionary_params=identity), form="plain")
    max_l2 = {"normalization": "max_l2"}
    write("relu_max_l2", lambda: SAE(D, N, dictionary_params=max_l2))
    write("relu_max_l2_plain", lambda: SAE(D, N, dictionary_params=max_l2), form="plain")
    write("top_k_batch_norm", lambda: TopKSAE(D, N, top_k=K, encoder_module="mlp_bn_1"))
    write("top_k_tied", lambda: TopKSAE(D, N, top_k=K).tied(bias=True))
    write("top_k_untied", lambda: TopKSAE(D, N, top_k=K).untied())
    write("top_k_archetypal", lambda: RATopKSAE(D, N, torch.randn(40, D), top_k=K))
    write("jump_relu", lambda: JumpSAE(D, N))
    write("batch_top_k_plain", lambda: BatchTopKSAE(D, N, top_k=K * ROWS), form="plain")
    write("batch_top_k_state_dict", lambda: BatchTopKSAE(D, N, top_k=K * ROWS))
    write("archetypal_plain", lambda: RATopKSAE(D, N, torch.randn(40, D), top_k=K), form="plain")
    write("whole_module", lambda: TopKSAE(D, N, top_k=K), form="module")
    write("layer_norm", lambda: TopKSAE(D, N, top_k=K, encoder_module="mlp_ln_1"))
    write("hidden_layers", lambda: TopKSAE(D, N, top_k=K, encoder_module="mlp_bn_3"))
    write("matching_pursuit", lambda: MpSAE(D, N, k=K))
    write("quantised", lambda: QSAE(D, N, q=4, hard=True), trained=False)
