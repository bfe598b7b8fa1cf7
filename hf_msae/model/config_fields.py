"""The fields of MSAEConfig, without transformers: the command line makes its flags of them before torch is there."""

import inspect
import re
from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1
"""Version of the checkpoint format that is written. It grows when config.json or the weights change their meaning."""


@dataclass
class MSAEConfigFields:
    r"""Configuration of an [`MSAEModel`]: sizes, levels, loss, and the embeddings it was trained on.

    The defaults are those of "Interpreting CLIP with Hierarchical Sparse Autoencoders" (arXiv 2502.20578): the code
    of level l keeps the `nesting_ks[l]` largest activations of the whole dictionary. The other sense of Matryoshka,
    prefixes of the dictionary (arXiv 2503.17547), is `nesting="prefix"`. With `nesting="none"`, the activations give
    the other autoencoders of the field: "relu" with an L1 penalty, "topk" (arXiv 2406.04093), "batch_topk" (arXiv
    2412.06410) and "jump_relu" (arXiv 2407.14435).

    Args:
        d_in: Width of the embeddings.
        num_latents: Number of latents, the rows of the dictionary.
        activation: Activation function: "relu"; "topk" (the k largest activations of an embedding); "batch_topk" (the
            k times B largest of a batch of B embeddings in training, and later those above the average threshold that
            this led to); "jump_relu" (those above a threshold that each latent learns).
        nesting: How levels nest: "topk" (the k largest activations), "prefix" (the first latents of the dictionary) or
            "none" (one level, the full code).
        nesting_ks: The k of each level, ascending. Defaults to 64, 128, ... doubling, then num_latents (k with
            "topk").
        nesting_widths: Number of latents of each level with nesting="prefix", ascending to num_latents. Defaults to
            num_latents divided by 16, 8, 4, 2 and 1.
        random_prefixes: Number of widths to draw at random in each training step with nesting="prefix". 0 uses
            nesting_widths.
        nesting_weights: Weight of each level in the loss: "uniform" (1 each), "reverse" (L, ..., 2, 1: small k weighs
            most), or one positive number per level.
        k: The k of activation "topk" and "batch_topk", which require it. With other activations, the number of
            activations that `encode` keeps by default; the loss does not depend on it. Defaults to the largest level.
        sparsity_coefficient: Weight of the sparsity penalty in the loss.
        sparsity_penalty: "l1": mean_i ||a_i||_1 / ||u_i||_2 of code a and normalized embedding u. "tanh": mean_i sum_j
            tanh(4 a_ij). "l0", only with "jump_relu": the number of activations above their thresholds. Defaults to
            "l0" with "jump_relu", otherwise "l1".
        jump_relu_threshold: Initial value of the thresholds of "jump_relu".
        jump_relu_bandwidth: Width of the interval around a threshold of "jump_relu" in which activations contribute to
            its gradient.
        reconstruction_loss: "mse" (mean squared error over all entries), "nmse" (mean of ||r_i||^2 / ||u_i||^2 over
            embeddings) or "cosine" (mean of 1 - the cosine of u_i and its reconstruction).
        tied: Use the transposed encoder as the decoder, instead of a separate parameter.
        soft_cap: Replace each selected activation z by cap * tanh(z / cap). Defaults to no cap.
        base_model_name_or_path: Folder or Hub id of the backbone whose embeddings the MSAE was trained on.
        base_model_revision: Git revision of the backbone.
        base_model_weights_sha256: Hash of the backbone's weights, which identifies it even if it is moved.
        base_model_processor_sha256: Hash of the settings of the backbone's image processor.
        hook_point: Where in the backbone the embeddings were read: "image_embeds", "text_embeds", "vision.layers.{i}"
            or "text.layers.{i}".
        schema_version: Version of the checkpoint format, set by the library.

    Raises:
        ValueError: A value is invalid or not supported by this version, or a name is unknown.
        huggingface_hub.errors.StrictDataclassError: A value has the wrong type.
    """

    d_in: int = 768
    num_latents: int = 6144
    activation: Literal["relu", "topk", "batch_topk", "jump_relu"] = "relu"
    nesting: Literal["topk", "prefix", "none"] = "topk"
    nesting_ks: list[int] | None = None
    nesting_widths: list[int] | None = None
    random_prefixes: int = 0
    nesting_weights: str | list[float] = "uniform"
    k: int | None = None
    sparsity_coefficient: float = 0.0
    sparsity_penalty: Literal["l1", "l0", "tanh"] | None = None
    jump_relu_threshold: float = 0.1
    jump_relu_bandwidth: float = 0.1
    reconstruction_loss: Literal["mse", "nmse", "cosine"] = "mse"
    tied: bool = False
    soft_cap: float | None = None
    base_model_name_or_path: str | None = None
    base_model_revision: str | None = None
    base_model_weights_sha256: str | None = None
    base_model_processor_sha256: str | None = None
    hook_point: str = "image_embeds"
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def field_help(cls) -> dict[str, str]:
        """Return one line of help for each own field, from the docstring of this class."""
        doc = inspect.cleandoc(MSAEConfigFields.__doc__).partition("\nRaises:")[0] + "\n"
        entries = re.findall(r"^    (\w+): (.*\n(?:        .*\n)*)", doc, flags=re.MULTILINE)
        return {name: " ".join(text.split()) for name, text in entries}
