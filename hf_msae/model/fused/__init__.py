"""The parts of `hf_msae.model.fused_nested_loss`."""
