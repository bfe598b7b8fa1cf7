"""The activation families by their name in `MSAEConfig.activation`; each has a file of its own."""

from .batch_topk import BatchTopK
from .family import ActivationFamily
from .jump_relu import JumpReLU
from .relu import ReLU
from .topk import TopK

FAMILIES: dict[str, ActivationFamily] = {family.name: family for family in (ReLU(), TopK(), BatchTopK(), JumpReLU())}
