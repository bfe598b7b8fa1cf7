"""The parts of `hf_msae.fused_nested_loss`."""
