"""Where the SigLIP of the scenes is; `training/train_scenes_backbone.py` trains it."""

from pathlib import Path

BACKBONE_DIR = Path(__file__).parent / "siglip"
"""A folder in transformers' format with a SiglipModel, its image processor and tokenizer."""
BACKBONE_NAME = "hf_msae/scenes-siglip"
