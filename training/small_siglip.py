"""What the training of the two small SigLIPs in this package shares: tokenizer, model, loss, optimizer and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel, SiglipProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

IMAGE_SIZE = 96


def build_processor(captions: Sequence[str], vocab_size: int, max_length: int) -> SiglipProcessor:
    """Create an image processor, and train a byte-pair tokenizer: lower case, no punctuation, padded on the right."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789▁")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["[PAD]", "[UNK]", "[EOS]"],
        initial_alphabet=letters,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [EOS]", special_tokens=[("[EOS]", tokenizer.token_to_id("[EOS]"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[EOS]",
        model_max_length=max_length,
        padding_side="right",
        model_input_names=["input_ids"],
    )
    image_processor = SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return SiglipProcessor(image_processor=image_processor, tokenizer=fast)


def build_model(tokenizer: PreTrainedTokenizerFast, width: int, num_heads: int, vision_layers: int) -> SiglipModel:
    """Create an untrained SigLIP of 36 image patches of 16 x 16 pixels and two layers of text."""
    common = {"hidden_size": width, "intermediate_size": 3 * width, "num_attention_heads": num_heads}
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.eos_token_id,
    }
    text = {
        **common,
        **special,
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "max_position_embeddings": tokenizer.model_max_length,
        "projection_size": width,
    }
    vision = {**common, "num_hidden_layers": vision_layers, "image_size": IMAGE_SIZE, "patch_size": 16}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    # transformers starts position embeddings an order of magnitude below the patches' content, and where things are,
    # hence shape, which spans patches, is then learned very late. Both start at about the same size here.
    # It starts the logit scale and bias at ln 1 and 0, where training stalls; these are the values of the paper
    # (Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", section 3.2).
    with torch.no_grad():
        embeddings = model.vision_model.embeddings
        embeddings.patch_embedding.weight.mul_(0.5)
        embeddings.position_embedding.weight.normal_(std=0.5)
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-10.0)
    return model


def text_features(model: SiglipModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    """Return L2-normalized text embeddings, padded to the full length and without a mask, as SigLIP is trained."""
    length = tokenizer.model_max_length
    ids = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length)["input_ids"]
    return F.normalize(model.get_text_features(input_ids=torch.tensor(ids)).pooler_output, dim=-1)


def sigmoid_loss(
    model: SiglipModel, image: torch.Tensor, text: torch.Tensor, same: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the pairwise sigmoid loss of Zhai et al. 2023 (algorithm 1).

    Args:
        model: The model, for its logit scale and bias.
        image: L2-normalized image embeddings (batch, width).
        text: L2-normalized text embeddings (batch, width).
        same: Which images a text fits (batch, batch). Defaults to its own alone.
    """
    fits = torch.eye(len(image)) if same is None else same.float()
    logits = image @ text.T * model.logit_scale.exp() + model.logit_bias
    return -F.logsigmoid((2 * fits - 1) * logits).sum(-1).mean()


def is_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon trains a parameter: the weights of linear layers, not tables of embeddings."""
    return parameter.ndim == 2 and not any(table in name for table in ("embedding", "probe"))


class Muon32(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) in float32.

    `torch.optim.Muon` computes in bfloat16, which takes forty times as long on CPUs that have no instructions for it.
    Matrices of one shape are orthogonalized together.

    Args:
        params: Matrices.
        lr: Learning rate.
        weight_decay: Weight decay, multiplied by the learning rate.
        momentum: Nesterov momentum.
    """

    COEFFICIENTS = (3.4445, -4.7750, 2.0315)

    def __init__(self, params: Iterable[torch.Tensor], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Update all matrices."""
        for group in self.param_groups:
            of_shape: dict[torch.Size, list] = {}
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(momentum, group["momentum"])
                of_shape.setdefault(parameter.shape, []).append((parameter, update))
            for (rows, columns), members in of_shape.items():
                updates = self._orthogonalize(torch.stack([update for _, update in members]))
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                for (parameter, _), update in zip(members, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _orthogonalize(self, x: torch.Tensor) -> torch.Tensor:
        """Bring the singular values of matrices `(number, rows, columns)` near 1 by five Newton-Schulz steps."""
        is_tall = x.shape[1] > x.shape[2]
        x = x.mT if is_tall else x
        x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
        a, b, c = self.COEFFICIENTS
        for _ in range(5):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.mT if is_tall else x


def retrieval_accuracy(similarity: torch.Tensor, group_size: int = 100) -> float:
    """Return how often a row's own column is the best of its group; ties count as a random draw.

    Args:
        similarity: Images by captions (n, n), of which only the diagonal blocks of `group_size` are used.
        group_size: Number of candidates.
    """
    hits = []
    for start in range(0, len(similarity) - group_size + 1, group_size):
        block = similarity[start : start + group_size, start : start + group_size]
        best = block.max(-1, keepdim=True).values
        ties = (block == best).sum(-1)
        hits.append((block.diagonal() == best[:, 0]).float() / ties)
    return float(torch.cat(hits).mean())
