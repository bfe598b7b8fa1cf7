"""Train in two CPU processes, data-parallel and with FSDP2, and resume the latter: `fsdp_program.py FOLDER`.

Accelerate offers FSDP on GPUs only, but what it does then also runs on a CPU, once its state says that this is FSDP.
"""

import sys
from pathlib import Path

import numpy as np
from accelerate import FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedType, set_seed
from torch.distributed.tensor import DTensor

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainerCallback, MSAETrainingArguments
from hf_msae._utils.acceleration import build_accelerator
from hf_msae.embeddings import load_embeddings

folder = Path(sys.argv[1])
data = load_embeddings(np.random.default_rng(0).normal(size=(256, 16)).astype(np.float32))


class Watch(MSAETrainerCallback):
    """Checks that FSDP trains shards of the parameters."""

    def on_step_end(self, trainer):
        for parameter in trainer.accelerator._models[0].parameters():
            assert isinstance(parameter, DTensor) == trainer.accelerator.is_fsdp2
            if trainer.accelerator.is_fsdp2:
                assert parameter.to_local().numel() == parameter.numel() // 2


def train(output_dir: Path, checkpoint: Path | None = None) -> None:
    accelerator = build_accelerator(use_cpu=True)
    assert accelerator.num_processes == 2
    if output_dir.name.startswith("fsdp"):
        PartialState._shared_state["distributed_type"] = accelerator.state.distributed_type = DistributedType.FSDP
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
        accelerator.state.fsdp_plugin = plugin
    set_seed(0)
    args = MSAETrainingArguments(
        str(output_dir),
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        max_steps=12,
        learning_rate=1e-3,
        logging_steps=3,
        eval_steps=6,
        save_steps=6,
        cknna_batch_size=64,
        auxiliary_k=4,
        dead_steps=3,
        use_cpu=True,
        disable_tqdm=True,
    )
    model = MSAEModel(MSAEConfig(d_in=16, num_latents=64, nesting_ks=[2, 8, 64], sparsity_coefficient=0.1))
    trainer = MSAETrainer(model, args, data, data, callbacks=[Watch()], accelerator=accelerator)
    trainer.train(resume_from_checkpoint=checkpoint)
    assert not any(isinstance(parameter, DTensor) for parameter in trainer.model.parameters())
    trainer.save_model()


train(folder / "ddp")
train(folder / "fsdp")
train(folder / "fsdp-resumed", folder / "fsdp" / "checkpoint-6")
