"""Matryoshka sparse autoencoders (MSAE) for CLIP and SigLIP embeddings.

>>> from hf_msae import MSAEModel
>>> model = MSAEModel.from_pretrained(folder_or_hub_id)
>>> latents = model.encode(embeddings)
"""

import lazy_loader

from .model import registration as _registration

__version__ = "0.1.0"

# The public names of __init__.pyi are imported on first use, because torch and transformers take seconds.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __dir__() -> list[str]:
    return sorted(__all__)


_registration.install()
