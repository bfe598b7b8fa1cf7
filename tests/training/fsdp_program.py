"""
A training in two processes on a CPU, data-parallel or in pieces: `fsdp_program.py KIND OUTPUT_DIR [CHECKPOINT]`.

Accelerate offers FSDP on GPUs alone. What it then does runs on a CPU as well, once its state says that this is FSDP.
"""

import sys

import numpy as np
from accelerate import FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedType, set_seed
from torch.distributed.tensor import DTensor

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainerCallback, MSAETrainingArguments
from hf_msae._utils.acceleration import build_accelerator
from hf_msae.embeddings import load_embeddings

kind, output_dir, *checkpoint = sys.argv[1:]
accelerator = build_accelerator(use_cpu=True)
assert accelerator.num_processes == 2
if kind == "fsdp":
    PartialState._shared_state["distributed_type"] = accelerator.state.distributed_type = DistributedType.FSDP
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
    accelerator.state.fsdp_plugin = plugin


class Watch(MSAETrainerCallback):
    """Checks that FSDP trains shards of the parameters."""

    def on_step_end(self, trainer):
        for parameter in trainer.accelerator._models[0].parameters():
            assert isinstance(parameter, DTensor) == (kind == "fsdp")
            if kind == "fsdp":
                assert parameter.to_local().numel() == parameter.numel() // 2


data = load_embeddings(np.random.default_rng(0).normal(size=(256, 16)).astype(np.float32))
set_seed(0)
args = MSAETrainingArguments(
    output_dir,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=2,
    max_steps=20,
    learning_rate=1e-3,
    logging_steps=5,
    eval_steps=10,
    save_steps=10,
    cknna_batch_size=64,
    auxiliary_k=4,
    dead_steps=3,
    use_cpu=True,
    disable_tqdm=True,
)
model = MSAEModel(MSAEConfig(d_in=16, num_latents=64, nesting_ks=[2, 8, 64], sparsity_coefficient=0.1))
trainer = MSAETrainer(model, args, data, data, callbacks=[Watch()], accelerator=accelerator)
trainer.train(resume_from_checkpoint=checkpoint[0] if checkpoint else None)
assert not any(isinstance(parameter, DTensor) for parameter in trainer.model.parameters())
trainer.save_model()
